// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <vector>

#include "fsgen/ext2/numbers.h"
#include "fsgen/ext2/parameters.h"
#include "support/error.h"

namespace mkvirtfs::ext2 {

/// Which groups begin with a copy of the superblock and the descriptors: all, or with sparse_super
/// 0, 1 and powers of 3, 5 and 7.
enum class Copies : std::uint8_t { all_groups, sparse };
/// Where bitmaps and inode tables stand: each group's in the group, or with flex_bg all of them at
/// the front of the space.
enum class Tables : std::uint8_t { in_groups, packed };

/// Where the block groups and their fixed metadata lie: arithmetic over a handful of numbers,
/// whatever the size.
///
/// Fixed metadata are the superblock and descriptor copies, with the reserved ones, and, without
/// flex_bg, each group's bitmaps and inode table. With flex_bg these are packed at the front of the
/// space instead, so that file data is contiguous. Groups between two copies are all alike, so a
/// list of such stretches (fewer than a hundred up to 256 TiB) answers everything by binary search.
/// Immutable.
class GroupLayout {
 public:
  /// `block_count` counts from block 0. The last group is usable: see usable_block_count().
  GroupLayout(const Parameters& parameters, std::uint64_t block_count,
              std::uint32_t inodes_per_group, std::uint32_t reserved_descriptor_blocks = 0);

  /// `block_count` without a last group too small for its own metadata (as mke2fs does: less than
  /// 50 blocks over).
  static std::uint64_t usable_block_count(const Parameters& parameters, std::uint64_t block_count,
                                          std::uint32_t inodes_per_group,
                                          std::uint32_t reserved_descriptor_blocks = 0);
  /// Blocks that resize_inode keeps behind the descriptors, as mke2fs does: for a file system 1024
  /// times as large, but for no more blocks than one of its inode's maps lists. 0 from 16 TiB on
  /// (4 KiB blocks): the inode's block numbers have 32 bits.
  static std::uint32_t reserved_descriptor_blocks_for(const Parameters& parameters,
                                                      std::uint64_t block_count);
  /// Blocks for the descriptors of so many groups.
  static std::uint64_t descriptor_blocks_for(const Parameters& parameters,
                                             std::uint64_t group_count);
  static std::uint64_t group_count_for(const Parameters& parameters, std::uint64_t block_count);
  /// The least inodes a group can have, and the step: whole inode-table blocks and whole bitmap
  /// bytes.
  static std::uint32_t inode_step(const Parameters& parameters);

  std::uint64_t block_count() const noexcept { return block_count_; }
  std::uint32_t group_count() const noexcept { return group_count_; }
  std::uint32_t inodes_per_group() const noexcept { return inodes_per_group_; }
  std::uint32_t inode_table_blocks() const noexcept { return inode_table_blocks_; }
  std::uint32_t descriptor_blocks() const noexcept { return descriptor_blocks_; }
  std::uint32_t reserved_descriptor_blocks() const noexcept { return reserved_descriptor_blocks_; }

  BlockNo group_start(GroupNo group) const noexcept {
    return BlockNo{first_data_block_ + std::uint64_t{group.value()} * blocks_per_group_};
  }
  std::uint32_t group_blocks(GroupNo group) const noexcept;
  GroupNo group_of(BlockNo block) const noexcept {
    return GroupNo{
        static_cast<std::uint32_t>((block.value() - first_data_block_) / blocks_per_group_)};
  }
  /// Whether the group begins with a copy of the superblock and the descriptors.
  bool has_superblock(GroupNo group) const noexcept;
  /// All groups that do, in order, with sparse_super. Made for each call; fewer than a hundred.
  std::vector<GroupNo> superblock_groups() const;
  /// Blocks of fixed metadata at the start of the group.
  std::uint32_t overhead(GroupNo group) const noexcept;

  BlockNo block_bitmap(GroupNo group) const noexcept;
  BlockNo inode_bitmap(GroupNo group) const noexcept;
  BlockNo inode_table(GroupNo group) const noexcept;

  /// One past the last block that is space; how many these are.
  SpaceNo space_end() const noexcept { return SpaceNo{space_blocks_}; }
  /// The first SpaceNo behind the metadata that flex_bg packs at the front (0 without it).
  SpaceNo packed_end() const noexcept { return packed_end_; }
  BlockNo block_at(SpaceNo space) const noexcept;
  /// How many space blocks lie below `block`: the SpaceNo of a block that is space.
  SpaceNo space_below(BlockNo block) const noexcept;
  /// How many blocks from `space` on are contiguous on disk.
  std::uint64_t contiguous_from(SpaceNo space) const noexcept;

  /// What of the packed metadata stands at `space` (which lies below packed_end()).
  enum class Packed : std::uint8_t { block_bitmap, inode_bitmap, inode_table, gap };
  struct PackedAt {
    Packed what;
    GroupNo group{};
    std::uint32_t index = 0;        ///< inode_table: block within the group's table
    std::uint64_t blocks_left = 1;  ///< gap: blocks to its end
  };
  PackedAt packed_at(SpaceNo space) const noexcept;
  /// Space left unused below packed_end(), because an inode table may not be cut: free blocks.
  struct Gap {
    SpaceNo start;
    std::uint64_t count;
  };
  const std::vector<Gap>& gaps() const noexcept { return gaps_; }

 private:
  /// Consecutive groups with the same overhead.
  struct Stretch {
    GroupNo first_group;
    std::uint32_t group_count;
    std::uint32_t overhead;
    SpaceNo space_before;
  };
  /// Consecutive groups whose packed inode tables touch.
  struct TableRun {
    GroupNo first_group;
    SpaceNo start;
  };

  const Stretch& stretch_of_group(GroupNo group) const noexcept;
  const Stretch& stretch_of_space(SpaceNo space) const noexcept;
  void lay_out_stretches();
  void pack_metadata();

  std::uint32_t blocks_per_group_;
  std::uint32_t first_data_block_;
  std::uint32_t inodes_per_group_;
  std::uint32_t inode_table_blocks_;
  std::uint32_t descriptor_blocks_;
  std::uint32_t reserved_descriptor_blocks_;
  Copies copies_;
  Tables tables_;
  std::uint64_t block_count_;
  std::uint32_t group_count_;
  std::uint64_t space_blocks_ = 0;
  SpaceNo packed_end_;
  std::vector<Stretch> stretches_;
  std::vector<TableRun> table_runs_;
  std::vector<Gap> gaps_;
};

}  // namespace mkvirtfs::ext2
