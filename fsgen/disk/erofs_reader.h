// SPDX-License-Identifier: BSD-3-Clause
// Private to this room.
#pragma once

#include "fsgen/disk/cached_source.h"
#include "fsgen/disk/read_disk.h"

namespace mkvirtfs::disk {

/// Whether a disk has the superblock of EROFS.
Result<bool> is_erofs(ByteSource& disk);

/// read_disk_here() of EROFS. Files that are compressed, or lie on another device, are unreadable.
Result<ReadDisk> read_erofs(CachedSource& disk, const archive::ReadLimits& limits, LogSink& log);

}  // namespace mkvirtfs::disk
