// SPDX-License-Identifier: BSD-3-Clause
//
// Space is numbered over all groups, without their fixed metadata. How many blocks these are
// changes only where a group has a copy of the superblock, which with sparse_super few have. So the
// groups are a short list of stretches, each of groups that are alike, with the number of space
// blocks before it: a search in it and a division lead from a space number to a block, and back.
//
// With flex_bg bitmaps and inode tables are the first things in space. A table may not be cut by
// group metadata, so tables are packed into each contiguous run, and what is left of a run is a
// gap: free blocks.
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

Copies copies_of(const Parameters& parameters) noexcept {
  return parameters.sparse_super ? Copies::sparse : Copies::all_groups;
}

Tables tables_of(const Parameters& parameters) noexcept {
  return parameters.flex_bg ? Tables::packed : Tables::in_groups;
}

bool superblock_in_group(Copies copies, GroupNo group) noexcept {
  const std::uint32_t number = group.value();
  if (copies == Copies::all_groups || number <= 1) return true;
  if (number % 2 == 0) return false;
  return is_power_of(number, 3) || is_power_of(number, 5) || is_power_of(number, 7);
}

/// Blocks of fixed metadata of a group whose tables have so many.
std::uint32_t overhead_of(Copies copies, Tables tables, GroupNo group,
                          std::uint64_t descriptor_blocks,
                          std::uint32_t inode_table_blocks) noexcept {
  const std::uint64_t copied = superblock_in_group(copies, group) ? 1 + descriptor_blocks : 0;
  const std::uint32_t own = tables == Tables::packed ? 0 : kBitmapBlocks + inode_table_blocks;
  return static_cast<std::uint32_t>(copied + own);
}

std::uint32_t table_blocks_for(const Parameters& parameters,
                               std::uint32_t inodes_per_group) noexcept {
  return ceil_div(inodes_per_group, parameters.inodes_per_block());
}

}  // namespace

std::uint64_t GroupLayout::group_count_for(const Parameters& parameters,
                                           std::uint64_t block_count) {
  return ceil_div<std::uint64_t>(block_count - parameters.first_data_block(),
                                 parameters.blocks_per_group());
}

std::uint64_t GroupLayout::descriptor_blocks_for(const Parameters& parameters,
                                                 std::uint64_t group_count) {
  return ceil_div<std::uint64_t>(group_count,
                                 parameters.block_bytes / parameters.descriptor_bytes());
}

std::uint32_t GroupLayout::reserved_descriptor_blocks_for(const Parameters& parameters,
                                                          std::uint64_t block_count) {
  constexpr std::uint64_t kMostBlocks = 0xFFFFFFFF;
  constexpr std::uint64_t kTimes = 1024;
  if (block_count > kMostBlocks) return 0;
  const std::uint64_t later_blocks =
      block_count < kMostBlocks / kTimes ? block_count * kTimes : kMostBlocks;
  const std::uint64_t later =
      descriptor_blocks_for(parameters, group_count_for(parameters, later_blocks));
  const std::uint64_t now =
      descriptor_blocks_for(parameters, group_count_for(parameters, block_count));
  const std::uint64_t numbers_in_block = parameters.block_bytes / sizeof(std::uint32_t);
  return narrow<std::uint32_t>(later > now ? std::min(later - now, numbers_in_block) : 0);
}

std::uint32_t GroupLayout::inode_step(const Parameters& parameters) {
  return std::lcm(8u, parameters.inodes_per_block());
}

std::uint64_t GroupLayout::usable_block_count(const Parameters& parameters,
                                              std::uint64_t block_count,
                                              std::uint32_t inodes_per_group,
                                              std::uint32_t reserved_descriptor_blocks) {
  const std::uint64_t in_groups = block_count - parameters.first_data_block();
  const std::uint64_t last_blocks = in_groups % parameters.blocks_per_group();
  if (last_blocks == 0) return block_count;
  const std::uint64_t groups = group_count_for(parameters, block_count);
  const GroupNo last_group{narrow<std::uint32_t>(groups - 1)};
  const std::uint32_t needed =
      overhead_of(copies_of(parameters), tables_of(parameters), last_group,
                  descriptor_blocks_for(parameters, groups) + reserved_descriptor_blocks,
                  table_blocks_for(parameters, inodes_per_group));
  const bool only_group = groups == 1;
  const bool usable =
      last_blocks >= static_cast<std::uint64_t>(needed) + (only_group ? 0 : kLeastLastGroupSpace);
  return usable ? block_count : block_count - last_blocks;
}

GroupLayout::GroupLayout(const Parameters& parameters, std::uint64_t block_count,
                         std::uint32_t inodes_per_group, std::uint32_t reserved_descriptor_blocks)
    : blocks_per_group_(parameters.blocks_per_group()),
      first_data_block_(parameters.first_data_block()),
      inodes_per_group_(inodes_per_group),
      inode_table_blocks_(table_blocks_for(parameters, inodes_per_group)),
      descriptor_blocks_(0),
      reserved_descriptor_blocks_(reserved_descriptor_blocks),
      copies_(copies_of(parameters)),
      tables_(tables_of(parameters)),
      block_count_(block_count),
      group_count_(narrow<std::uint32_t>(group_count_for(parameters, block_count))) {
  assert(block_count > first_data_block_);
  assert(usable_block_count(parameters, block_count, inodes_per_group,
                            reserved_descriptor_blocks) == block_count);
  descriptor_blocks_ = narrow<std::uint32_t>(descriptor_blocks_for(parameters, group_count_));
  lay_out_stretches();
  if (tables_ == Tables::packed) pack_metadata();
}

void GroupLayout::lay_out_stretches() {
  const auto append = [&](std::uint64_t first, std::uint64_t count) {
    const GroupNo group{static_cast<std::uint32_t>(first)};
    const std::uint32_t each = overhead(group);
    assert(each < blocks_per_group_);
    stretches_.push_back({group, static_cast<std::uint32_t>(count), each, space_end()});
    space_blocks_ += count * (blocks_per_group_ - each);
  };
  // With sparse_super the copies stand in few groups: find those by walking the powers, not the
  // groups.
  if (copies_ == Copies::all_groups) {
    append(0, group_count_);
  } else {
    std::uint64_t next = 0;
    for (const GroupNo group : superblock_groups()) {
      const std::uint64_t copy = group.value();
      if (copy > next) append(next, copy - next);
      append(copy, 1);
      next = copy + 1;
    }
    if (next < group_count_) append(next, group_count_ - next);
  }
  // The last group may be shorter than the others.
  space_blocks_ -= blocks_per_group_ - group_blocks(GroupNo{group_count_ - 1});
}

std::vector<GroupNo> GroupLayout::superblock_groups() const {
  std::vector<GroupNo> groups = {GroupNo{0}};
  if (group_count_ > 1) groups.emplace_back(1u);
  for (const std::uint64_t base : {3u, 5u, 7u}) {
    for (std::uint64_t group = base; group < group_count_; group *= base) {
      groups.emplace_back(static_cast<std::uint32_t>(group));
    }
  }
  std::ranges::sort(groups);
  return groups;
}

void GroupLayout::pack_metadata() {
  SpaceNo at{kBitmapBlocks * std::uint64_t{group_count_}};
  std::uint32_t group = 0;
  while (group < group_count_) {
    if (at >= space_end()) {  // does not fit: the planner sees it in packed_end()
      at += std::uint64_t{group_count_ - group} * inode_table_blocks_;
      break;
    }
    const std::uint64_t contiguous = contiguous_from(at);
    const std::uint64_t tables = contiguous / inode_table_blocks_;
    if (tables == 0) {
      gaps_.push_back({at, contiguous});
      at += contiguous;
      continue;
    }
    table_runs_.push_back({GroupNo{group}, at});
    const std::uint64_t placed = std::min<std::uint64_t>(tables, group_count_ - group);
    group += static_cast<std::uint32_t>(placed);
    at += placed * inode_table_blocks_;
  }
  packed_end_ = at;
}

std::uint32_t GroupLayout::group_blocks(GroupNo group) const noexcept {
  return static_cast<std::uint32_t>(
      std::min<std::uint64_t>(blocks_per_group_, block_count_ - group_start(group).value()));
}

bool GroupLayout::has_superblock(GroupNo group) const noexcept {
  return superblock_in_group(copies_, group);
}

std::uint32_t GroupLayout::overhead(GroupNo group) const noexcept {
  return overhead_of(copies_, tables_, group, descriptor_blocks_ + reserved_descriptor_blocks_,
                     inode_table_blocks_);
}

const GroupLayout::Stretch& GroupLayout::stretch_of_group(GroupNo group) const noexcept {
  return *std::prev(std::ranges::upper_bound(stretches_, group, {}, &Stretch::first_group));
}

const GroupLayout::Stretch& GroupLayout::stretch_of_space(SpaceNo space) const noexcept {
  return *std::prev(std::ranges::upper_bound(stretches_, space, {}, &Stretch::space_before));
}

BlockNo GroupLayout::block_at(SpaceNo space) const noexcept {
  assert(space < space_end());
  const Stretch& stretch = stretch_of_space(space);
  const std::uint64_t per_group = blocks_per_group_ - stretch.overhead;
  const std::uint64_t local = space - stretch.space_before;
  const GroupNo group = stretch.first_group + static_cast<std::uint32_t>(local / per_group);
  return group_start(group) + stretch.overhead + local % per_group;
}

SpaceNo GroupLayout::space_below(BlockNo block) const noexcept {
  if (block <= BlockNo{first_data_block_}) return SpaceNo{0};
  if (block >= BlockNo{block_count_}) return space_end();
  const GroupNo group = group_of(block);
  const Stretch& stretch = stretch_of_group(group);
  const std::uint64_t local = block - group_start(group);
  return stretch.space_before +
         std::uint64_t{group - stretch.first_group} * (blocks_per_group_ - stretch.overhead) +
         (local > stretch.overhead ? local - stretch.overhead : 0);
}

std::uint64_t GroupLayout::contiguous_from(SpaceNo space) const noexcept {
  assert(space < space_end());
  const auto next = std::ranges::upper_bound(stretches_, space, {}, &Stretch::space_before);
  const Stretch& stretch = *std::prev(next);
  const std::uint64_t per_group = blocks_per_group_ - stretch.overhead;
  const std::uint64_t local = space - stretch.space_before;
  const std::uint64_t end = per_group * stretch.group_count;
  std::uint64_t run_end = stretch.overhead == 0 ? end : round_down(local, per_group) + per_group;
  // Groups without overhead go on where the group before them ends.
  if (run_end == end && next != stretches_.end() && next->overhead == 0) {
    run_end += std::uint64_t{blocks_per_group_} * next->group_count;
  }
  return std::min(run_end - local, space_end() - space);
}

BlockNo GroupLayout::block_bitmap(GroupNo group) const noexcept {
  if (tables_ == Tables::packed) return block_at(SpaceNo{group.value()});
  return group_start(group) + (overhead(group) - kBitmapBlocks - inode_table_blocks_);
}

BlockNo GroupLayout::inode_bitmap(GroupNo group) const noexcept {
  if (tables_ == Tables::packed) return block_at(SpaceNo{group_count_} + group.value());
  return block_bitmap(group) + 1;
}

BlockNo GroupLayout::inode_table(GroupNo group) const noexcept {
  if (tables_ == Tables::in_groups) return block_bitmap(group) + kBitmapBlocks;
  const TableRun& run =
      *std::prev(std::ranges::upper_bound(table_runs_, group, {}, &TableRun::first_group));
  return block_at(run.start + std::uint64_t{group - run.first_group} * inode_table_blocks_);
}

GroupLayout::PackedAt GroupLayout::packed_at(SpaceNo space) const noexcept {
  assert(space < packed_end_);
  const SpaceNo inode_bitmaps{group_count_};
  const auto group = [](std::uint64_t number) {
    return GroupNo{static_cast<std::uint32_t>(number)};
  };
  if (space < inode_bitmaps) return {Packed::block_bitmap, group(space.value())};
  if (space < inode_bitmaps + group_count_) {
    return {Packed::inode_bitmap, group(space - inode_bitmaps)};
  }
  const auto gap = std::ranges::upper_bound(gaps_, space, {}, &Gap::start);
  if (gap != gaps_.begin() && space < std::prev(gap)->start + std::prev(gap)->count) {
    return {Packed::gap, {}, 0, std::prev(gap)->start + std::prev(gap)->count - space};
  }
  const TableRun& run =
      *std::prev(std::ranges::upper_bound(table_runs_, space, {}, &TableRun::start));
  const std::uint64_t local = space - run.start;
  return {Packed::inode_table,
          run.first_group + static_cast<std::uint32_t>(local / inode_table_blocks_),
          static_cast<std::uint32_t>(local % inode_table_blocks_)};
}

}  // namespace mkvirtfs::ext2
