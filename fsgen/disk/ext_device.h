// SPDX-License-Identifier: BSD-3-Clause
// Private to this room: it shows types of libext2fs.
#pragma once

#include <ext2fs/ext2fs.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "block/extent.h"
#include "fsgen/disk/cached_source.h"
#include "fsgen/disk/journal_map.h"
#include "support/error.h"

namespace mkvirtfs::disk {

/// A disk as libext2fs and the reader see it: with what its journal still holds laid over it, and
/// never written. One thread.
class ExtDevice {
 public:
  explicit ExtDevice(CachedSource& disk) : disk_(disk) {}
  ExtDevice(const ExtDevice&) = delete;
  ExtDevice& operator=(const ExtDevice&) = delete;

  CachedSource& disk() noexcept { return disk_; }

  /// From now on the copies in the journal count. `block_bytes` are those of the file system.
  void lay_over(JournalMap journal, std::uint32_t block_bytes);

  /// Errc::unreadable beyond the end.
  Result<void> read(std::uint64_t offset, std::span<std::byte> out);
  /// Appends where on the disk the bytes of a range lie that is inside the disk.
  void append_pieces(Range range, std::vector<Range>& pieces) const;

  /// Opens the file system on it: what libext2fs reports. It must not outlive the device.
  errcode_t open(ext2_filsys* file_system);
  /// What the disk itself reported when libext2fs failed.
  std::optional<Error> take_error() noexcept;

 private:
  struct IoManager;

  CachedSource& disk_;
  JournalMap journal_;
  std::uint64_t block_bytes_ = 1024;
  std::uint64_t magic_at_ = 0;  // a place on the disk where the journal's magic stands
  std::optional<Error> error_;
};

/// "Illegal inode number"
std::string ext_message(errcode_t code);

}  // namespace mkvirtfs::disk
