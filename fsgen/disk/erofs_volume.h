// SPDX-License-Identifier: BSD-3-Clause
// Private to this room.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "block/extent.h"
#include "fsgen/disk/cached_source.h"
#include "fsgen/disk/problems.h"
#include "fsgen/tree/source_tree.h"
#include "support/error.h"

namespace mkvirtfs::disk {

/// What an inode of EROFS says of itself.
struct ErofsInode {
  std::uint64_t number = 0;  ///< its nid
  std::uint64_t offset = 0;  ///< of it on the disk
  unsigned layout = 0;
  std::uint16_t mode = 0;
  std::uint32_t link_count = 0;
  std::uint64_t size_bytes = 0;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  Timestamp mtime;
  std::uint32_t place = 0;        ///< first block, device number or form of chunks
  Range xattrs;                   ///< of the disk; empty: there are none
  std::uint64_t tail_offset = 0;  ///< on the disk: behind the attributes

  DeviceNumber device() const noexcept;
};

/// Where the bytes of an inode are.
struct ErofsData {
  std::vector<Range> runs;    ///< of the file: all else is holes
  std::vector<Range> pieces;  ///< of the disk, with as many bytes; all of them are there
};

/// Where things are on an EROFS volume, by its superblock (Linux, fs/erofs/erofs_fs.h). One thread.
///
/// Errors of inodes are words that follow the inode's name.
class ErofsVolume {
 public:
  using Xattrs = std::vector<std::pair<std::string, std::string>>;

  /// Errc::unsupported for features that are not known. A wrong checksum is a problem.
  static Result<ErofsVolume> open(CachedSource& disk, Problems& problems);

  std::uint64_t root_number() const noexcept { return root_number_; }
  std::uint64_t block_bytes() const noexcept { return std::uint64_t{1} << block_bits_; }
  std::uint64_t offset_of(std::uint64_t number) const noexcept;

  Result<ErofsInode> inode(std::uint64_t number);
  /// Of what has bytes. Errc::unsupported where they are compressed or on another device.
  Result<ErofsData> data(const ErofsInode& inode);
  /// No name twice.
  Result<Xattrs> xattrs(const ErofsInode& inode);

 private:
  explicit ErofsVolume(CachedSource& disk) : disk_(disk) {}

  std::uint64_t block_offset(std::uint64_t block) const noexcept { return block << block_bits_; }
  bool holds(Range range) const noexcept {
    return range.offset <= end_ && range.length <= end_ - range.offset;
  }
  Result<void> parse();
  Result<bool> has_good_checksum(std::uint32_t expected);
  Result<void> add_chunks(const ErofsInode& inode, ErofsData& made);
  Result<std::string> text(Range range);
  /// The attribute at `offset`, which ends before `end`; returns where it ends.
  Result<std::uint64_t> take_xattr(std::uint64_t offset, std::uint64_t end, Xattrs& found);

  CachedSource& disk_;
  unsigned block_bits_ = 0;
  std::uint64_t end_ = 0;  // of what can be asked of the disk
  std::uint64_t root_number_ = 0;
  std::uint64_t inodes_at_ = 0;
  std::uint64_t shared_xattrs_at_ = 0;
  Timestamp build_time_;
  std::uint32_t device_mask_ = 0;  // of the numbers of devices in chunks
  std::uint64_t map_bytes_ = 0;    // of chunks, that were read
};

}  // namespace mkvirtfs::disk
