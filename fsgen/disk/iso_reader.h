// SPDX-License-Identifier: BSD-3-Clause
// Private to this room.
#pragma once

#include "fsgen/disk/cached_source.h"
#include "fsgen/disk/read_disk.h"

namespace mkvirtfs::disk {

/// read_disk_here() of ISO 9660: by Rock Ridge where the volume has it, else by Joliet, else by the
/// primary names. Files of zisofs, sparse and interleaved ones are unreadable.
Result<ReadDisk> read_iso(CachedSource& disk, const archive::ReadLimits& limits, LogSink& log);

}  // namespace mkvirtfs::disk
