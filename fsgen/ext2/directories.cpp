// SPDX-License-Identifier: BSD-3-Clause
//
// A short directory lists its names in byte order. A longer one sorts them by hash, fills leaves to
// a part of their size, and spreads the leaves evenly over index nodes, so that the entries of any
// block follow from its number. Names with equal hashes may stand in two leaves: the second leaf's
// hash in the index then has its lowest bit set. Kept are the order by hash and the first name of
// each leaf; a block is made when it is read.
#include "fsgen/ext2/directories.h"

#include <ext2fs/ext2_fs.h>
#include <ext2fs/ext2fs.h>

#include <algorithm>
#include <cassert>
#include <cstdint>
#include <cstring>
#include <vector>

#include "fsgen/image/crc32c.h"
#include "support/arithmetic.h"
#include "support/byte_order.h"
#include "support/parallel.h"

namespace mkvirtfs::ext2 {
namespace {

constexpr std::uint32_t kEntryHeaderBytes = 8;  // struct ext2_dir_entry_2 without its name
constexpr std::uint32_t kDotBytes = 12;         // "." and ".." with their padding
constexpr std::size_t kRootInfoAt = 24;         // behind both
constexpr std::uint32_t kIndexEntryBytes = 8;   // struct ext2_dx_entry
constexpr std::uint32_t kIndexRootAt =
    2 * kDotBytes + 8;  // first index entry behind ".", ".." and root info
constexpr std::uint32_t kIndexNodeAt =
    kEntryHeaderBytes;  // behind the empty entry that hides a node from linear readers
constexpr std::uint32_t kIndexTailBytes = 8;         // struct ext2_dx_tail
constexpr std::uint32_t kLevelsWithoutLargeDir = 2;  // root and one level of nodes
constexpr std::uint32_t kLevelsWithLargeDir = 3;
// Leaves are filled to this much, so that a writable copy does not split one at each new name.
constexpr std::uint32_t kLeafFillPercent = 85;

constexpr std::uint32_t entry_bytes(std::size_t name_length) noexcept {
  return static_cast<std::uint32_t>((kEntryHeaderBytes + name_length + 3) & ~std::size_t{3});
}

std::uint8_t file_type_of(const Node& node) noexcept {
  switch (node.mode & S_IFMT) {
    case S_IFREG:
      return EXT2_FT_REG_FILE;
    case S_IFDIR:
      return EXT2_FT_DIR;
    case S_IFCHR:
      return EXT2_FT_CHRDEV;
    case S_IFBLK:
      return EXT2_FT_BLKDEV;
    case S_IFIFO:
      return EXT2_FT_FIFO;
    case S_IFSOCK:
      return EXT2_FT_SOCK;
    case S_IFLNK:
      return EXT2_FT_SYMLINK;
    default:
      return EXT2_FT_UNKNOWN;
  }
}

void put_entry(std::span<std::byte> out, std::size_t at, InodeNo inode, std::uint32_t record_bytes,
               std::string_view name, std::uint8_t file_type) noexcept {
  store_le(out, at, inode.value());
  store_le(out, at + 4, static_cast<std::uint16_t>(record_bytes));
  out[at + 6] = static_cast<std::byte>(name.size());
  out[at + 7] = static_cast<std::byte>(file_type);
  std::ranges::copy(std::as_bytes(std::span(name)),
                    out.begin() + static_cast<std::ptrdiff_t>(at + kEntryHeaderBytes));
}

/// The n-th of `parts` even shares of `count`.
std::uint32_t share_start(std::uint32_t count, std::uint32_t parts, std::uint32_t n) noexcept {
  return static_cast<std::uint32_t>(static_cast<std::uint64_t>(count) * n / parts);
}

}  // namespace

Directories::Directories(const SourceTree& tree, const Parameters& parameters,
                         const InodeNumbers& numbers)
    : tree_(tree), parameters_(parameters), numbers_(numbers) {
  const auto tree_directories = static_cast<std::uint32_t>(tree.directories().size());
  plans_.resize(tree_directories + (numbers.adds_lost_found() ? 1 : 0));
}

Result<void> Directories::plan(unsigned threads) {
  // Directories are planned in batches: in a batch by all threads, into the common arrays by one,
  // in order.
  constexpr std::uint32_t kBatch = 512;
  constexpr std::uint32_t kWorthAThread = 50'000;  // items
  std::vector<Draft> drafts(std::min<std::size_t>(kBatch, plans_.size()));
  for (std::uint32_t start = 0; start < plans_.size(); start += kBatch) {
    const auto batch =
        static_cast<std::uint32_t>(std::min<std::size_t>(kBatch, plans_.size() - start));
    std::uint32_t items = 0;
    for (std::uint32_t i = 0; i < batch; ++i) items += item_count(DirectoryNo{start + i});
    const Result<void> drafted =
        parallel_for(batch,
                     {.threads = thread_count(threads, 1 + items / kWorthAThread),
                      .doing = "plan the directories"},
                     [&](std::size_t i) -> Result<void> {
                       drafts[i] = draft(DirectoryNo{start + static_cast<std::uint32_t>(i)});
                       return {};
                     });
    if (!drafted) return drafted;
    for (std::uint32_t i = 0; i < batch; ++i) adopt(DirectoryNo{start + i}, std::move(drafts[i]));
  }
  leaves_.shrink_to_fit();
  order_.shrink_to_fit();
  return {};
}

void Directories::adopt(DirectoryNo directory, Draft&& draft) {
  draft.plan.first_leaf = narrow<std::uint32_t>(leaves_.size());
  draft.plan.first_order = narrow<std::uint32_t>(order_.size());
  leaves_.insert(leaves_.end(), draft.leaves.begin(), draft.leaves.end());
  order_.insert(order_.end(), draft.order.begin(), draft.order.end());
  if (draft.plan.index_levels > kLevelsWithoutLargeDir) needs_large_dir_ = true;
  plans_[directory.value()] = draft.plan;
}

std::uint32_t Directories::item_count(DirectoryNo directory) const noexcept {
  if (!is_of_tree(directory)) return 0;
  return tree_.directories()[directory.value()].entry_count +
         (directory.value() == 0 && numbers_.adds_lost_found() ? 1 : 0);
}

Directories::Item Directories::item(DirectoryNo directory, std::uint32_t index) const noexcept {
  const Directory& holder = tree_.directories()[directory.value()];
  if (index == holder.entry_count) return {kLostFoundName, kFirstInode, EXT2_FT_DIR};
  const Entry entry = tree_.entries(holder)[index];
  return {tree_.name(holder, entry), numbers_.of(entry.node), file_type_of(tree_.node(entry.node))};
}

InodeNo Directories::inode_of(DirectoryNo directory) const noexcept {
  if (!is_of_tree(directory)) return kFirstInode;
  return numbers_.of(tree_.directories()[directory.value()].node);
}

InodeNo Directories::parent_inode_of(DirectoryNo directory) const noexcept {
  if (!is_of_tree(directory)) return kRootInode;
  return numbers_.of(tree_.parent_of(tree_.directories()[directory.value()].node).node);
}

Directories::Draft Directories::draft(DirectoryNo directory) const {
  Draft draft;
  const std::uint32_t items = item_count(directory);
  std::uint64_t bytes = std::uint64_t{2} * kDotBytes;
  for (std::uint32_t i = 0; i < items; ++i) {
    const Item each = item(directory, i);
    bytes += entry_bytes(each.name.size());
    if (each.file_type == EXT2_FT_DIR) ++draft.plan.subdirectories;
  }
  if (bytes <= parameters_.leaf_bytes()) return draft;
  if (!parameters_.dir_index || !draft_index(directory, draft)) draft_linear(directory, draft);
  return draft;
}

void Directories::draft_linear(DirectoryNo directory, Draft& draft) const {
  draft.leaves = {{0, 0}};
  draft.order.clear();
  std::uint32_t used = 2 * kDotBytes;
  for (std::uint32_t i = 0; i < item_count(directory); ++i) {
    const std::uint32_t needed = entry_bytes(item(directory, i).name.size());
    if (used + needed > parameters_.leaf_bytes()) {
      draft.leaves.push_back({i, 0});
      used = 0;
    }
    used += needed;
  }
  draft.plan.index_levels = 0;
  draft.plan.leaf_count = static_cast<std::uint32_t>(draft.leaves.size());
  draft.plan.block_count = draft.plan.leaf_count;
}

/// False when the tree would be too deep for this variant; the directory then stays linear, which
/// every reader accepts.
bool Directories::draft_index(DirectoryNo directory, Draft& draft) const {
  struct Hashed {
    std::uint32_t hash;
    std::uint32_t minor;
    std::uint32_t item;
  };
  std::vector<Hashed> hashed(item_count(directory));
  for (std::uint32_t i = 0; i < hashed.size(); ++i) {
    const std::string_view name = item(directory, i).name;
    hashed[i].item = i;
    [[maybe_unused]] const auto status = ext2fs_dirhash2(
        EXT2_HASH_HALF_MD4_UNSIGNED, name.data(), static_cast<int>(name.size()), nullptr, 0,
        parameters_.hash_seed.data(), &hashed[i].hash, &hashed[i].minor);
    assert(status == 0);
  }
  std::ranges::sort(hashed, [&](const Hashed& a, const Hashed& b) {
    if (a.hash != b.hash) return a.hash < b.hash;
    if (a.minor != b.minor) return a.minor < b.minor;
    return item(directory, a.item).name < item(directory, b.item).name;
  });

  const std::uint32_t fill = parameters_.leaf_bytes() * kLeafFillPercent / 100;
  draft.order.reserve(hashed.size());
  std::uint32_t used = parameters_.leaf_bytes();  // so that the first name opens a leaf
  std::uint32_t last_hash = 0;
  for (std::uint32_t i = 0; i < hashed.size(); ++i) {
    const std::uint32_t needed = entry_bytes(item(directory, hashed[i].item).name.size());
    if (used + needed > parameters_.leaf_bytes() || used + needed > std::max(fill, needed)) {
      // The lowest bit says that names with the same hash end in the leaf before.
      const bool continues = !draft.leaves.empty() && hashed[i].hash == last_hash;
      draft.leaves.push_back({i, hashed[i].hash | (continues ? 1u : 0u)});
      used = 0;
    }
    used += needed;
    last_hash = hashed[i].hash;
    draft.order.push_back(hashed[i].item);
  }
  draft.plan.leaf_count = static_cast<std::uint32_t>(draft.leaves.size());
  const IndexShape shape = index_shape(draft.plan.leaf_count);
  const std::uint32_t levels = shape.levels + 1;
  const bool deep_is_allowed = parameters_.large_dir || parameters_.variant == Variant::ext4;
  if (levels > (deep_is_allowed ? kLevelsWithLargeDir : kLevelsWithoutLargeDir)) return false;
  draft.plan.index_levels = static_cast<std::uint8_t>(levels);
  draft.plan.block_count = 1 + draft.plan.leaf_count;
  for (std::uint32_t level = 0; level < shape.levels; ++level)
    draft.plan.block_count += shape.nodes[level];
  return true;
}

std::uint32_t Directories::root_limit() const noexcept {
  return (parameters_.block_bytes - kIndexRootAt -
          (parameters_.metadata_csum ? kIndexTailBytes : 0)) /
         kIndexEntryBytes;
}

std::uint32_t Directories::node_limit() const noexcept {
  return (parameters_.block_bytes - kIndexNodeAt -
          (parameters_.metadata_csum ? kIndexTailBytes : 0)) /
         kIndexEntryBytes;
}

Directories::IndexShape Directories::index_shape(std::uint32_t leaf_count) const noexcept {
  IndexShape shape;
  std::uint32_t below = leaf_count;
  while (below > root_limit()) {
    if (shape.levels == std::size(shape.nodes))
      break;  // deeper than any variant allows: the caller refuses
    below = ceil_div(below, node_limit());
    shape.nodes[shape.levels++] = below;
  }
  return shape;
}

void Directories::write_block(DirectoryNo directory, std::uint32_t block, std::uint32_t inode_seed,
                              std::span<std::byte> out) const {
  assert(out.size() == parameters_.block_bytes && block < block_count(directory));
  std::ranges::fill(out, std::byte{0});
  const Plan& plan = plan_of(directory);
  if (plan.index_levels == 0) {
    write_leaf(directory, block, inode_seed, out);
  } else if (block == 0) {
    write_index_root(directory, inode_seed, out);
  } else if (block <= plan.leaf_count) {
    write_leaf(directory, block - 1, inode_seed, out);
  } else {
    write_index_node(directory, block - 1 - plan.leaf_count, inode_seed, out);
  }
}

void Directories::write_leaf(DirectoryNo directory, std::uint32_t leaf, std::uint32_t inode_seed,
                             std::span<std::byte> out) const {
  const Plan& plan = plan_of(directory);
  const bool indexed = plan.index_levels != 0;
  std::uint32_t first = 0;
  std::uint32_t last = item_count(directory);
  if (plan.leaf_count > 1 || indexed) {
    first = leaves_[plan.first_leaf + leaf].first_item;
    if (leaf + 1 < plan.leaf_count) last = leaves_[plan.first_leaf + leaf + 1].first_item;
  }
  const std::uint32_t end = parameters_.leaf_bytes();
  std::uint32_t at = 0;
  std::uint32_t previous = 0;  // the last entry is stretched to the end of the block
  const auto append = [&](InodeNo inode, std::string_view name, std::uint8_t file_type) {
    put_entry(out, at, inode, entry_bytes(name.size()), name, file_type);
    previous = at;
    at += entry_bytes(name.size());
  };
  if (leaf == 0 && !indexed) {
    append(inode_of(directory), ".", EXT2_FT_DIR);
    append(parent_inode_of(directory), "..", EXT2_FT_DIR);
  }
  for (std::uint32_t i = first; i < last; ++i) {
    const Item each = item(directory, indexed ? order_[plan.first_order + i] : i);
    append(each.inode, each.name, each.file_type);
  }
  assert(at <= end);
  store_le(out, previous + 4, static_cast<std::uint16_t>(end - previous));
  if (parameters_.metadata_csum) {
    store_le(out, end + 4, std::uint16_t{12});  // a fake entry: no inode, 12 bytes, no name
    out[end + 7] = static_cast<std::byte>(EXT2_DIR_NAME_LEN_CSUM >> 8);
    store_le(out, end + 8, crc32c(inode_seed, out.first(end)));
  }
}

void Directories::write_index_root(DirectoryNo directory, std::uint32_t inode_seed,
                                   std::span<std::byte> out) const {
  const Plan& plan = plan_of(directory);
  put_entry(out, 0, inode_of(directory), kDotBytes, ".", EXT2_FT_DIR);
  put_entry(out, kDotBytes, parent_inode_of(directory), parameters_.block_bytes - kDotBytes, "..",
            EXT2_FT_DIR);
  ext2_dx_root_info info{};
  info.hash_version = EXT2_HASH_HALF_MD4;  // the superblock's flag makes it the unsigned one
  info.info_length = sizeof info;
  info.indirect_levels = static_cast<std::uint8_t>(plan.index_levels - 1);
  std::memcpy(out.data() + kRootInfoAt, &info, sizeof info);
  const IndexShape shape = index_shape(plan.leaf_count);
  const std::uint32_t children =
      shape.levels == 0 ? plan.leaf_count : shape.nodes[shape.levels - 1];
  write_index_entries(directory, {shape.levels, 0, children}, kIndexRootAt, root_limit(),
                      inode_seed, out);
}

void Directories::write_index_node(DirectoryNo directory, std::uint32_t node,
                                   std::uint32_t inode_seed, std::span<std::byte> out) const {
  const Plan& plan = plan_of(directory);
  const IndexShape shape = index_shape(plan.leaf_count);
  std::uint32_t level = 0;
  while (node >= shape.nodes[level]) node -= shape.nodes[level++];
  const std::uint32_t children = level == 0 ? plan.leaf_count : shape.nodes[level - 1];
  put_entry(out, 0, {}, parameters_.block_bytes, {}, 0);
  write_index_entries(directory,
                      {level, share_start(children, shape.nodes[level], node),
                       share_start(children, shape.nodes[level], node + 1)},
                      kIndexNodeAt, node_limit(), inode_seed, out);
}

/// Entries from `at` on, behind a head with their limit and count.
void Directories::write_index_entries(DirectoryNo directory, const IndexChildren& children,
                                      std::size_t at, std::uint32_t limit, std::uint32_t inode_seed,
                                      std::span<std::byte> out) const {
  const auto [level, first, last] = children;
  const Plan& plan = plan_of(directory);
  const IndexShape shape = index_shape(plan.leaf_count);
  std::uint32_t first_block = 1;  // of the children's level
  if (level > 0) first_block += plan.leaf_count;
  for (std::uint32_t below = 0; below + 1 < level; ++below) first_block += shape.nodes[below];
  const auto first_leaf_of = [&](std::uint32_t child) {
    for (std::uint32_t below = children.level; below > 0; --below) {
      const std::uint32_t grandchildren = below == 1 ? plan.leaf_count : shape.nodes[below - 2];
      child = share_start(grandchildren, shape.nodes[below - 1], child);
    }
    return child;
  };
  const std::uint32_t count = last - first;
  assert(count > 0 && count <= limit);
  for (std::uint32_t child = first; child < last; ++child) {
    const std::size_t entry = at + static_cast<std::size_t>(child - first) * kIndexEntryBytes;
    // The first entry has no hash: limit and count stand in its place.
    if (child > first) store_le(out, entry, leaves_[plan.first_leaf + first_leaf_of(child)].hash);
    store_le(out, entry + 4, first_block + child);
  }
  store_le(out, at, static_cast<std::uint16_t>(limit));
  store_le(out, at + 2, static_cast<std::uint16_t>(count));
  if (parameters_.metadata_csum) {
    // Over the entries in use, then the tail with a checksum of zero.
    const std::size_t tail = at + static_cast<std::size_t>(limit) * kIndexEntryBytes;
    std::uint32_t checksum =
        crc32c(inode_seed, out.first(at + static_cast<std::size_t>(count) * kIndexEntryBytes));
    checksum = crc32c(checksum, out.subspan(tail, kIndexTailBytes));
    store_le(out, tail + 4, checksum);
  }
}

}  // namespace mkvirtfs::ext2
