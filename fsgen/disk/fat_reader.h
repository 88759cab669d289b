// SPDX-License-Identifier: BSD-3-Clause
// Private to this room.
#pragma once

#include "fsgen/disk/cached_source.h"
#include "fsgen/disk/read_disk.h"

namespace mkvirtfs::disk {

/// Whether a disk begins with the boot sector of a FAT file system.
Result<bool> is_fat(ByteSource& disk);

/// read_disk_here() of FAT12, FAT16 and FAT32. A set dirty bit, clusters that are in no chain and
/// chains that are longer than their files are remarks.
Result<ReadDisk> read_fat(CachedSource& disk, const archive::ReadLimits& limits, LogSink& log);

}  // namespace mkvirtfs::disk
