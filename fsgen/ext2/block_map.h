// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "fsgen/ext2/group_layout.h"
#include "fsgen/ext2/parameters.h"

namespace mkvirtfs::ext2 {

/// Consecutive logical blocks of one inode that hold data.
struct BlockRun {
  std::uint64_t logical = 0;
  std::uint64_t count = 0;
  std::uint64_t rank = 0;  ///< how many of the inode's data blocks come before

  std::uint64_t end() const noexcept { return logical + count; }
};

/// The blocks of one inode: its mapping blocks (extent tree or indirect blocks), then its data,
/// consecutive in space.
struct InodeBlocks {
  BlockRun dense;  ///< the only run, unless `sparse` has some; none if it is empty
  std::span<const BlockRun> sparse;  ///< sorted, disjoint, not touching
  SpaceNo start;
  std::uint64_t mapping_blocks = 0;

  std::span<const BlockRun> runs() const noexcept {
    return sparse.empty() ? std::span(&dense, dense.count == 0 ? 0 : 1) : sparse;
  }
  SpaceNo data_start() const noexcept { return start + mapping_blocks; }
  std::uint64_t data_blocks() const noexcept {
    return sparse.empty() ? dense.count : sparse.back().rank + sparse.back().count;
  }
  /// The data block with that rank; the logical block it is.
  std::uint64_t logical_of(std::uint64_t rank) const noexcept;
};

/// Turns an inode's block runs into what the disk format maps them with: an extent tree (ext4) or
/// indirect blocks. Pure arithmetic over the layout; holds references only.
class BlockMapper {
 public:
  BlockMapper(const Parameters& parameters, const GroupLayout& layout)
      : parameters_(parameters), layout_(layout) {}

  /// The first logical block that no inode can have.
  static std::uint64_t logical_limit(const Parameters& parameters) noexcept;

  /// How many mapping blocks the runs need when the first of these lies at `start`.
  std::uint64_t mapping_blocks_for(std::span<const BlockRun> runs, SpaceNo start) const;

  /// Fills the 60 bytes of i_block.
  void write_root(const InodeBlocks& blocks, std::span<std::byte, 60> out) const;
  /// Fills mapping block `index`; `inode_seed` starts its checksum.
  void write_mapping_block(const InodeBlocks& blocks, std::uint64_t index, std::uint32_t inode_seed,
                           std::span<std::byte> out) const;

 private:
  struct ExtentTree;
  struct IndirectTree;

  std::uint64_t extent_count(std::span<const BlockRun> runs, SpaceNo data_start) const;
  void put_index(const ExtentTree& tree, const InodeBlocks& blocks, std::size_t level,
                 std::uint64_t first, std::uint64_t last, std::span<std::byte> out) const;
  void write_extent_root(const InodeBlocks& blocks, std::span<std::byte, 60> out) const;
  void write_extent_block(const InodeBlocks& blocks, std::uint64_t index, std::uint32_t inode_seed,
                          std::span<std::byte> out) const;
  void write_indirect_root(const InodeBlocks& blocks, std::span<std::byte, 60> out) const;
  void write_indirect_block(const InodeBlocks& blocks, std::uint64_t index,
                            std::span<std::byte> out) const;

  const Parameters& parameters_;
  const GroupLayout& layout_;
};

}  // namespace mkvirtfs::ext2
