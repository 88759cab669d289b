// SPDX-License-Identifier: BSD-3-Clause
// Private to this room.
#pragma once

#include "fsgen/disk/cached_source.h"
#include "fsgen/disk/read_disk.h"

namespace mkvirtfs::disk {

/// read_disk_here() of ext2, ext3 and ext4. What a journal still holds counts.
Result<ReadDisk> read_ext(CachedSource& disk, const archive::ReadLimits& limits, LogSink& log);

}  // namespace mkvirtfs::disk
