// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/ext2/group_layout.h"

#include <algorithm>
#include <cassert>
#include <numeric>

#include "support/arithmetic.h"

namespace mkvirtfs::ext2 {
namespace {

constexpr std::uint32_t kBitmapBlocks = 2;          // a group's block bitmap and inode bitmap
constexpr std::uint32_t kLeastLastGroupSpace = 50;  // as mke2fs: a smaller last group is left away

bool is_power_of(std::uint64_t value, std::uint64_t base) noexcept {
  std::uint64_t power = base;
  while (power < value) power *= base;
  return power == value;
}

bool superblock_in_group(bool sparse_super, GroupNo group) noexcept {
  if (!sparse_super || group <= 1) return true;
  if (group % 2 == 0) return false;
  return is_power_of(group, 3) || is_power_of(group, 5) || is_power_of(group, 7);
}

std::uint32_t overhead_of(bool flex_bg, bool superblock, std::uint64_t descriptor_blocks,
                          std::uint32_t inode_table_blocks) noexcept {
  const std::uint64_t copies = superblock ? 1 + descriptor_blocks : 0;
  return static_cast<std::uint32_t>(copies + (flex_bg ? 0 : kBitmapBlocks + inode_table_blocks));
}

std::uint32_t table_blocks_for(const Parameters& parameters,
                               std::uint32_t inodes_per_group) noexcept {
  return ceil_div(inodes_per_group, parameters.inodes_per_block());
}

}  // namespace

std::uint64_t GroupLayout::group_count_for(const Parameters& parameters, BlockNo block_count) {
  return ceil_div<std::uint64_t>(block_count - parameters.first_data_block(),
                                 parameters.blocks_per_group());
}

std::uint64_t GroupLayout::descriptor_blocks_for(const Parameters& parameters,
                                                 std::uint64_t group_count) {
  return ceil_div<std::uint64_t>(group_count,
                                 parameters.block_bytes / parameters.descriptor_bytes());
}

std::uint32_t GroupLayout::inode_step(const Parameters& parameters) {
  return std::lcm(8u, parameters.inodes_per_block());
}

BlockNo GroupLayout::usable_block_count(const Parameters& parameters, BlockNo block_count,
                                        std::uint32_t inodes_per_group) {
  const BlockNo in_groups = block_count - parameters.first_data_block();
  const BlockNo last_blocks = in_groups % parameters.blocks_per_group();
  if (last_blocks == 0) return block_count;
  const std::uint64_t groups = group_count_for(parameters, block_count);
  const auto last_group = narrow<GroupNo>(groups - 1);
  const std::uint32_t needed = overhead_of(
      parameters.flex_bg, superblock_in_group(parameters.sparse_super, last_group),
      descriptor_blocks_for(parameters, groups), table_blocks_for(parameters, inodes_per_group));
  const bool only_group = groups == 1;
  const bool usable =
      last_blocks >= static_cast<BlockNo>(needed) + (only_group ? 0 : kLeastLastGroupSpace);
  return usable ? block_count : block_count - last_blocks;
}

GroupLayout::GroupLayout(const Parameters& parameters, BlockNo block_count,
                         std::uint32_t inodes_per_group)
    : blocks_per_group_(parameters.blocks_per_group()),
      first_data_block_(parameters.first_data_block()),
      inodes_per_group_(inodes_per_group),
      inode_table_blocks_(table_blocks_for(parameters, inodes_per_group)),
      descriptor_blocks_(0),
      sparse_super_(parameters.sparse_super),
      flex_bg_(parameters.flex_bg),
      block_count_(block_count),
      group_count_(narrow<GroupNo>(group_count_for(parameters, block_count))) {
  assert(block_count > first_data_block_);
  assert(usable_block_count(parameters, block_count, inodes_per_group) == block_count);
  descriptor_blocks_ = narrow<std::uint32_t>(descriptor_blocks_for(parameters, group_count_));
  lay_out_stretches();
  if (flex_bg_) pack_metadata();
}

void GroupLayout::lay_out_stretches() {
  const auto append = [&](GroupNo group, GroupNo count) {
    const std::uint32_t each = overhead(group);
    assert(each < blocks_per_group_);
    stretches_.push_back({group, count, each, space_blocks_});
    space_blocks_ += static_cast<SpaceNo>(count) * (blocks_per_group_ - each);
  };
  // With sparse_super the copies stand in few groups: find those by walking the powers, not the
  // groups.
  if (!sparse_super_) {
    append(0, group_count_);
  } else {
    std::vector<std::uint64_t> copies = {0, 1};
    for (const std::uint64_t base : {3u, 5u, 7u}) {
      for (std::uint64_t group = base; group < group_count_; group *= base) copies.push_back(group);
    }
    std::ranges::sort(copies);
    std::uint64_t next = 0;
    for (const std::uint64_t copy : copies) {
      if (copy >= group_count_) break;
      if (copy > next) append(static_cast<GroupNo>(next), static_cast<GroupNo>(copy - next));
      append(static_cast<GroupNo>(copy), 1);
      next = copy + 1;
    }
    if (next < group_count_)
      append(static_cast<GroupNo>(next), static_cast<GroupNo>(group_count_ - next));
  }
  // The last group may be shorter than the others.
  space_blocks_ -= static_cast<SpaceNo>(blocks_per_group_) - group_blocks(group_count_ - 1);
}

void GroupLayout::pack_metadata() {
  SpaceNo at = kBitmapBlocks * static_cast<SpaceNo>(group_count_);
  GroupNo group = 0;
  while (group < group_count_) {
    if (at >= space_blocks_) {  // does not fit: the planner sees it in packed_end()
      at += static_cast<SpaceNo>(group_count_ - group) * inode_table_blocks_;
      break;
    }
    const std::uint64_t contiguous = contiguous_from(at);
    const std::uint64_t tables = contiguous / inode_table_blocks_;
    if (tables == 0) {
      gaps_.push_back({at, contiguous});
      at += contiguous;
      continue;
    }
    table_runs_.push_back({group, at});
    const auto placed = static_cast<GroupNo>(std::min<std::uint64_t>(tables, group_count_ - group));
    group += placed;
    at += static_cast<SpaceNo>(placed) * inode_table_blocks_;
  }
  packed_end_ = at;
}

std::uint32_t GroupLayout::group_blocks(GroupNo group) const noexcept {
  return static_cast<std::uint32_t>(
      std::min<BlockNo>(blocks_per_group_, block_count_ - group_start(group)));
}

bool GroupLayout::has_superblock(GroupNo group) const noexcept {
  return superblock_in_group(sparse_super_, group);
}

std::uint32_t GroupLayout::overhead(GroupNo group) const noexcept {
  return overhead_of(flex_bg_, has_superblock(group), descriptor_blocks_, inode_table_blocks_);
}

const GroupLayout::Stretch& GroupLayout::stretch_of_group(GroupNo group) const noexcept {
  return *std::prev(std::ranges::upper_bound(stretches_, group, {}, &Stretch::first_group));
}

const GroupLayout::Stretch& GroupLayout::stretch_of_space(SpaceNo space) const noexcept {
  return *std::prev(std::ranges::upper_bound(stretches_, space, {}, &Stretch::space_before));
}

BlockNo GroupLayout::block_at(SpaceNo space) const noexcept {
  assert(space < space_blocks_);
  const Stretch& stretch = stretch_of_space(space);
  const std::uint64_t per_group = blocks_per_group_ - stretch.overhead;
  const SpaceNo local = space - stretch.space_before;
  const GroupNo group = stretch.first_group + static_cast<GroupNo>(local / per_group);
  return group_start(group) + stretch.overhead + local % per_group;
}

SpaceNo GroupLayout::space_below(BlockNo block) const noexcept {
  if (block <= first_data_block_) return 0;
  if (block >= block_count_) return space_blocks_;
  const GroupNo group = group_of(block);
  const Stretch& stretch = stretch_of_group(group);
  const BlockNo local = block - group_start(group);
  return stretch.space_before +
         static_cast<SpaceNo>(group - stretch.first_group) *
             (blocks_per_group_ - stretch.overhead) +
         (local > stretch.overhead ? local - stretch.overhead : 0);
}

std::uint64_t GroupLayout::contiguous_from(SpaceNo space) const noexcept {
  assert(space < space_blocks_);
  const auto next = std::ranges::upper_bound(stretches_, space, {}, &Stretch::space_before);
  const Stretch& stretch = *std::prev(next);
  const std::uint64_t per_group = blocks_per_group_ - stretch.overhead;
  const SpaceNo local = space - stretch.space_before;
  const SpaceNo end = per_group * stretch.group_count;
  SpaceNo run_end = stretch.overhead == 0 ? end : round_down(local, per_group) + per_group;
  // Groups without overhead go on where the group before them ends.
  if (run_end == end && next != stretches_.end() && next->overhead == 0) {
    run_end += static_cast<SpaceNo>(blocks_per_group_) * next->group_count;
  }
  return std::min<std::uint64_t>(run_end - local, space_blocks_ - space);
}

BlockNo GroupLayout::block_bitmap(GroupNo group) const noexcept {
  if (flex_bg_) return block_at(group);
  return group_start(group) + overhead(group) - kBitmapBlocks - inode_table_blocks_;
}

BlockNo GroupLayout::inode_bitmap(GroupNo group) const noexcept {
  if (flex_bg_) return block_at(static_cast<SpaceNo>(group_count_) + group);
  return block_bitmap(group) + 1;
}

BlockNo GroupLayout::inode_table(GroupNo group) const noexcept {
  if (!flex_bg_) return block_bitmap(group) + kBitmapBlocks;
  const TableRun& run =
      *std::prev(std::ranges::upper_bound(table_runs_, group, {}, &TableRun::first_group));
  return block_at(run.start + static_cast<SpaceNo>(group - run.first_group) * inode_table_blocks_);
}

GroupLayout::PackedAt GroupLayout::packed_at(SpaceNo space) const noexcept {
  assert(space < packed_end_);
  if (space < group_count_) return {Packed::block_bitmap, static_cast<GroupNo>(space)};
  if (space < kBitmapBlocks * static_cast<SpaceNo>(group_count_)) {
    return {Packed::inode_bitmap, static_cast<GroupNo>(space - group_count_)};
  }
  const auto gap = std::ranges::upper_bound(gaps_, space, {}, &Gap::start);
  if (gap != gaps_.begin() && space < std::prev(gap)->start + std::prev(gap)->count) {
    return {Packed::gap, 0, 0, std::prev(gap)->start + std::prev(gap)->count - space};
  }
  const TableRun& run =
      *std::prev(std::ranges::upper_bound(table_runs_, space, {}, &TableRun::start));
  const SpaceNo local = space - run.start;
  return {Packed::inode_table, run.first_group + static_cast<GroupNo>(local / inode_table_blocks_),
          static_cast<std::uint32_t>(local % inode_table_blocks_)};
}

}  // namespace mkvirtfs::ext2
