// SPDX-License-Identifier: BSD-3-Clause
//
// An inode's mapping blocks stand before its data, and nothing of them is stored: the shape of an
// extent tree follows from how many extents there are, that of indirect blocks from which logical
// blocks are there. One extent ends where the data jumps in the file or on disk, so how many there
// are depends on where the data begins, and that on how many mapping blocks there are: tried upward
// until it holds. Children are spread evenly over their parents, so the children of any block are
// known without the blocks before it; a block is made by one walk over its own extents.
#include "fsgen/ext2/block_map.h"

#include <ext2fs/ext2_fs.h>
#include <ext2fs/ext3_extents.h>

#include <algorithm>
#include <cassert>
#include <cstring>

#include "fsgen/image/crc32c.h"
#include "support/arithmetic.h"
#include "support/byte_order.h"

namespace mkvirtfs::ext2 {
namespace {

constexpr std::uint64_t kLongestExtent =
    32768;  // EXT_INIT_MAX_LEN: ee_len above it marks an unwritten extent
constexpr std::uint64_t kRootExtents = 4;  // what fits in i_block behind the header
constexpr std::uint64_t kDirectBlocks = EXT2_NDIR_BLOCKS;

template <class T>
void put(std::span<std::byte> out, std::size_t at, const T& structure) noexcept {
  assert(at + sizeof(T) <= out.size());
  std::memcpy(out.data() + at, &structure, sizeof(T));
}

/// How many nodes each level of an extent tree has; level 0 are the leaves, the root in the inode
/// is not counted.
struct Levels {
  static constexpr std::size_t kMost = 5;  // the kernel's EXT4_MAX_EXTENT_DEPTH
  std::uint64_t nodes[kMost] = {};
  std::size_t count = 0;

  std::uint64_t total() const noexcept {
    std::uint64_t sum = 0;
    for (std::size_t level = 0; level < count; ++level) sum += nodes[level];
    return sum;
  }
};

Levels levels_above(std::uint64_t leaves, std::uint64_t capacity) noexcept {
  Levels levels;
  if (leaves == 0) return levels;
  levels.nodes[levels.count++] = leaves;
  while (levels.nodes[levels.count - 1] > kRootExtents) {
    assert(levels.count < Levels::kMost);
    levels.nodes[levels.count] = ceil_div(levels.nodes[levels.count - 1], capacity);
    ++levels.count;
  }
  return levels;
}

Levels levels_for_extents(std::uint64_t extents, std::uint64_t capacity) noexcept {
  return levels_above(extents <= kRootExtents ? 0 : ceil_div(extents, capacity), capacity);
}

/// The tree that has exactly so many mapping blocks. Every count that levels_for_extents() makes is
/// found.
Levels levels_with_total(std::uint64_t total, std::uint64_t capacity) noexcept {
  std::uint64_t leaves = total;
  while (leaves > 0 && levels_above(leaves, capacity).total() > total) --leaves;
  return levels_above(leaves, capacity);
}

/// The part `index` of `parts` when `count` things are spread evenly: [first, second).
std::pair<std::uint64_t, std::uint64_t> share(std::uint64_t count, std::uint64_t parts,
                                              std::uint64_t index) noexcept {
  const std::uint64_t each = count / parts;
  const std::uint64_t more = count % parts;  // the first so many parts hold one more
  const std::uint64_t first = index * each + std::min(index, more);
  return {first, first + each + (index < more ? 1 : 0)};
}

ext3_extent_header header(std::uint64_t entries, std::uint64_t most, std::size_t depth) noexcept {
  ext3_extent_header made{};
  made.eh_magic = to_le<std::uint16_t>(EXT3_EXT_MAGIC);
  made.eh_entries = to_le(narrow<std::uint16_t>(entries));
  made.eh_max = to_le(narrow<std::uint16_t>(most));
  made.eh_depth = to_le(narrow<std::uint16_t>(depth));
  return made;
}

/// Calls visit(index, logical, block, length) for the extents [first, last) of the inode, in order.
template <class Visit>
void for_extents(const GroupLayout& layout, std::span<const BlockRun> runs, SpaceNo data_start,
                 std::uint64_t first, std::uint64_t last, Visit&& visit) {
  std::uint64_t index = 0;
  for (const BlockRun& run : runs) {
    std::uint64_t done = 0;
    while (done < run.count) {
      if (index >= last) return;
      const SpaceNo at = data_start + run.rank + done;
      const std::uint64_t length =
          std::min({run.count - done, kLongestExtent, layout.contiguous_from(at)});
      if (index >= first) visit(index, run.logical + done, at, length);
      ++index;
      done += length;
    }
  }
}

/// Sets of indices as runs, so that a level of indirect blocks of a file without holes is one run.
std::vector<BlockRun> parents_of(std::span<const BlockRun> runs, std::uint64_t first_child,
                                 std::uint64_t children_per_block) {
  std::vector<BlockRun> parents;
  for (const BlockRun& run : runs) {
    if (run.end() <= first_child) continue;
    const std::uint64_t first =
        (std::max(run.logical, first_child) - first_child) / children_per_block;
    const std::uint64_t last = (run.end() - 1 - first_child) / children_per_block;
    if (!parents.empty() && first <= parents.back().end()) {
      BlockRun& before = parents.back();
      before.count = std::max(before.end(), last + 1) - before.logical;
    } else {
      const std::uint64_t rank = parents.empty() ? 0 : parents.back().rank + parents.back().count;
      parents.push_back({first, last - first + 1, rank});
    }
  }
  return parents;
}

std::uint64_t size_of(std::span<const BlockRun> runs) noexcept {
  return runs.empty() ? 0 : runs.back().rank + runs.back().count;
}

std::uint64_t nth(std::span<const BlockRun> runs, std::uint64_t rank) noexcept {
  const BlockRun& run = *std::prev(std::ranges::upper_bound(runs, rank, {}, &BlockRun::rank));
  return run.logical + (rank - run.rank);
}

/// Calls visit(index, rank) for every member of the set in [from, to).
template <class Visit>
void for_members(std::span<const BlockRun> runs, std::uint64_t from, std::uint64_t to,
                 Visit&& visit) {
  auto run =
      std::ranges::upper_bound(runs, from, {}, [](const BlockRun& each) { return each.end(); });
  for (; run != runs.end() && run->logical < to; ++run) {
    const std::uint64_t last = std::min(run->end(), to);
    for (std::uint64_t index = std::max(run->logical, from); index < last; ++index) {
      visit(index, run->rank + (index - run->logical));
    }
  }
}

}  // namespace

std::uint64_t InodeBlocks::logical_of(std::uint64_t rank) const noexcept {
  return nth(runs(), rank);
}

/// The shape of one inode's extent tree. On disk: the leaves, then the level above them, and so on.
struct BlockMapper::ExtentTree {
  std::uint64_t capacity;  // entries of a tree block
  std::uint64_t extents;
  Levels levels;

  ExtentTree(const BlockMapper& mapper, const InodeBlocks& blocks)
      : capacity(capacity_of(mapper.parameters_)),
        extents(mapper.extent_count(blocks.runs(), blocks.data_start())),
        levels(levels_with_total(blocks.mapping_blocks, capacity)) {}

  static std::uint64_t capacity_of(const Parameters& parameters) noexcept {
    return (parameters.block_bytes - sizeof(ext3_extent_header)) / sizeof(ext3_extent);
  }

  /// The first extent below node `node` of `level`.
  std::uint64_t first_extent(std::size_t level, std::uint64_t node) const noexcept {
    for (; level > 0; --level)
      node = share(levels.nodes[level - 1], levels.nodes[level], node).first;
    return share(extents, levels.nodes[0], node).first;
  }
  std::uint64_t level_start(std::size_t level) const noexcept {
    std::uint64_t start = 0;
    for (std::size_t below = 0; below < level; ++below) start += levels.nodes[below];
    return start;
  }
};

/// The sets of indirect blocks an inode has. Level 1 holds data pointers; index 0 of each level
/// hangs in the inode. On disk: all of level 1, then all of level 2, then level 3.
struct BlockMapper::IndirectTree {
  std::uint64_t per_block;
  std::vector<BlockRun> level1, level2, level3;

  IndirectTree(const Parameters& parameters, std::span<const BlockRun> runs)
      : per_block(parameters.block_bytes / 4),
        level1(parents_of(runs, kDirectBlocks, per_block)),
        level2(parents_of(level1, 1, per_block)),
        level3(parents_of(level2, 1, per_block)) {}

  std::uint64_t total() const noexcept {
    return size_of(level1) + size_of(level2) + size_of(level3);
  }
};

std::uint64_t BlockMapper::logical_limit(const Parameters& parameters) noexcept {
  constexpr std::uint64_t kLogicalNumbers =
      (std::uint64_t{1} << 32) - 1;  // 32 bits, the last one reserved
  // Linux takes no file, however sparse, whose blocks could not all be counted in i_blocks.
  constexpr std::uint64_t kSectors = (std::uint64_t{1} << 32) - 1;
  const std::uint64_t counted =
      parameters.huge_file ? kLogicalNumbers : kSectors / parameters.sectors_per_block();
  if (parameters.extents) return std::min(kLogicalNumbers, counted);
  const std::uint64_t per_block = parameters.block_bytes / 4;
  const std::uint64_t double_start = kDirectBlocks + per_block;
  const std::uint64_t triple_start = double_start + per_block * per_block;
  const std::uint64_t mapped =
      std::min(kLogicalNumbers, triple_start + per_block * per_block * per_block);
  // i_blocks counts the indirect blocks, too. As ext4_max_bitmap_size() and ext2_max_size() of
  // Linux have it, which is a little less than what would fit: so they agree to the byte.
  const std::uint64_t double_and_below = 1 + 1 + per_block;
  const std::uint64_t all_indirect = double_and_below + 1 + per_block + per_block * per_block;
  if (parameters.huge_file || mapped + all_indirect <= counted) return mapped;
  const std::uint64_t in_triple = counted - triple_start;
  return counted - double_and_below - 1 - ceil_div(in_triple, per_block) -
         ceil_div(in_triple, per_block * per_block);
}

std::uint64_t BlockMapper::extent_count(std::span<const BlockRun> runs, SpaceNo data_start) const {
  // The usual file lies in one piece: no walk.
  if (runs.empty()) return 0;
  if (runs.size() == 1 &&
      runs[0].count <= std::min(kLongestExtent, layout_.contiguous_from(data_start)))
    return 1;
  std::uint64_t count = 0;
  for_extents(layout_, runs, data_start, 0, ~std::uint64_t{0},
              [&](auto, auto, auto, auto) { ++count; });
  return count;
}

std::uint64_t BlockMapper::mapping_blocks_for(std::span<const BlockRun> runs, SpaceNo start) const {
  if (runs.empty()) return 0;
  if (!parameters_.extents) {
    if (runs.size() == 1 && runs[0].end() <= kDirectBlocks) return 0;
    return IndirectTree(parameters_, runs).total();
  }
  const std::uint64_t capacity = ExtentTree::capacity_of(parameters_);
  // Tree blocks push the data along, which may add an extent at a group's end, which may add a tree
  // block: the count only grows from round to round, and the tree spreads fewer extents over its
  // blocks if need be.
  std::uint64_t mapping_blocks = 0;
  while (true) {
    if (start + (mapping_blocks + size_of(runs)) > layout_.space_end()) {
      return mapping_blocks;  // will not fit
    }
    const std::uint64_t extents = extent_count(runs, start + mapping_blocks);
    const std::uint64_t needed = levels_for_extents(extents, capacity).total();
    if (needed <= mapping_blocks) return mapping_blocks;
    mapping_blocks = needed;
  }
}

void BlockMapper::write_root(const InodeBlocks& blocks, std::span<std::byte, 60> out) const {
  std::ranges::fill(out, std::byte{0});
  if (parameters_.extents) {
    write_extent_root(blocks, out);
  } else {
    write_indirect_root(blocks, out);
  }
}

void BlockMapper::write_mapping_block(const InodeBlocks& blocks, std::uint64_t index,
                                      std::uint32_t inode_seed, std::span<std::byte> out) const {
  assert(index < blocks.mapping_blocks && out.size() == parameters_.block_bytes);
  std::ranges::fill(out, std::byte{0});
  if (parameters_.extents) {
    write_extent_block(blocks, index, inode_seed, out);
  } else {
    write_indirect_block(blocks, index, out);
  }
}

namespace {

void put_extents(const GroupLayout& layout, const InodeBlocks& blocks, std::uint64_t first,
                 std::uint64_t last, std::span<std::byte> out) {
  for_extents(layout, blocks.runs(), blocks.data_start(), first, last,
              [&](std::uint64_t index, std::uint64_t logical, SpaceNo at, std::uint64_t length) {
                const std::uint64_t block = layout.block_at(at).value();
                ext3_extent extent{};
                extent.ee_block = to_le(narrow<std::uint32_t>(logical));
                extent.ee_len = to_le(narrow<std::uint16_t>(length));
                extent.ee_start = to_le(static_cast<std::uint32_t>(block));
                extent.ee_start_hi = to_le(narrow<std::uint16_t>(block >> 32));
                put(out, sizeof(ext3_extent_header) + (index - first) * sizeof(ext3_extent),
                    extent);
              });
}

}  // namespace

/// Entries for the nodes [first, last) of `level`, behind the header, in one walk over the extents.
void BlockMapper::put_index(const ExtentTree& tree, const InodeBlocks& blocks, std::size_t level,
                            std::uint64_t first, std::uint64_t last,
                            std::span<std::byte> out) const {
  const SpaceNo level_start = blocks.start + tree.level_start(level);
  std::uint64_t node = first;
  for_extents(layout_, blocks.runs(), blocks.data_start(), tree.first_extent(level, first),
              tree.first_extent(level, last - 1) + 1,
              [&](std::uint64_t index, std::uint64_t logical, auto, auto) {
                if (index != tree.first_extent(level, node)) return;
                const std::uint64_t block = layout_.block_at(level_start + node).value();
                ext3_extent_idx entry{};
                entry.ei_block = to_le(narrow<std::uint32_t>(logical));
                entry.ei_leaf = to_le(static_cast<std::uint32_t>(block));
                entry.ei_leaf_hi = to_le(narrow<std::uint16_t>(block >> 32));
                put(out, sizeof(ext3_extent_header) + (node - first) * sizeof entry, entry);
                ++node;
              });
}

void BlockMapper::write_extent_root(const InodeBlocks& blocks, std::span<std::byte, 60> out) const {
  const ExtentTree tree(*this, blocks);
  const std::size_t depth = tree.levels.count;
  if (depth == 0) {
    put(out, 0, header(tree.extents, kRootExtents, 0));
    put_extents(layout_, blocks, 0, tree.extents, out);
  } else {
    const std::uint64_t children = tree.levels.nodes[depth - 1];
    put(out, 0, header(children, kRootExtents, depth));
    put_index(tree, blocks, depth - 1, 0, children, out);
  }
}

void BlockMapper::write_extent_block(const InodeBlocks& blocks, std::uint64_t index,
                                     std::uint32_t inode_seed, std::span<std::byte> out) const {
  const ExtentTree tree(*this, blocks);
  std::size_t level = 0;
  while (index >= tree.levels.nodes[level]) index -= tree.levels.nodes[level++];
  const std::uint64_t children = level == 0 ? tree.extents : tree.levels.nodes[level - 1];
  const auto [first, last] = share(children, tree.levels.nodes[level], index);
  put(out, 0, header(last - first, tree.capacity, level));
  if (level == 0) {
    put_extents(layout_, blocks, first, last, out);
  } else {
    put_index(tree, blocks, level - 1, first, last, out);
  }
  if (parameters_.metadata_csum) {
    const std::size_t tail = sizeof(ext3_extent_header) + tree.capacity * sizeof(ext3_extent);
    store_le(out, tail, crc32c(inode_seed, out.first(tail)));
  }
}

void BlockMapper::write_indirect_root(const InodeBlocks& blocks,
                                      std::span<std::byte, 60> out) const {
  const auto point = [&](std::size_t slot, SpaceNo at) {
    store_le(out, 4 * slot, narrow<std::uint32_t>(layout_.block_at(at).value()));
  };
  for_members(blocks.runs(), 0, kDirectBlocks, [&](std::uint64_t logical, std::uint64_t rank) {
    point(static_cast<std::size_t>(logical), blocks.data_start() + rank);
  });
  if (blocks.mapping_blocks == 0) return;
  const IndirectTree tree(parameters_, blocks.runs());
  SpaceNo level_start = blocks.start;
  std::size_t slot = EXT2_IND_BLOCK;
  for (const auto* level : {&tree.level1, &tree.level2, &tree.level3}) {
    if (!level->empty() && level->front().logical == 0) point(slot, level_start);
    level_start += size_of(*level);
    ++slot;
  }
}

void BlockMapper::write_indirect_block(const InodeBlocks& blocks, std::uint64_t index,
                                       std::span<std::byte> out) const {
  const IndirectTree tree(parameters_, blocks.runs());
  // `children` hang below the block with that number of its level: from first_child + number *
  // per_block on.
  const auto fill = [&](std::span<const BlockRun> children, std::uint64_t first_child,
                        std::uint64_t number, SpaceNo children_start) {
    const std::uint64_t from = first_child + number * tree.per_block;
    for_members(children, from, from + tree.per_block,
                [&](std::uint64_t child, std::uint64_t rank) {
                  store_le(out, 4 * static_cast<std::size_t>(child - from),
                           narrow<std::uint32_t>(layout_.block_at(children_start + rank).value()));
                });
  };
  const std::uint64_t first_of_2 = size_of(tree.level1);
  const std::uint64_t first_of_3 = first_of_2 + size_of(tree.level2);
  if (index < first_of_2) {
    fill(blocks.runs(), kDirectBlocks, nth(tree.level1, index), blocks.data_start());
  } else if (index < first_of_3) {
    fill(tree.level1, 1, nth(tree.level2, index - first_of_2), blocks.start);
  } else {
    fill(tree.level2, 1, nth(tree.level3, index - first_of_3), blocks.start + first_of_2);
  }
}

}  // namespace mkvirtfs::ext2
