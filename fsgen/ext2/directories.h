// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "fsgen/ext2/inode_numbers.h"
#include "fsgen/ext2/parameters.h"
#include "fsgen/tree/source_tree.h"
#include "support/error.h"

namespace mkvirtfs::ext2 {

/// The contents of all directories: how many blocks each has, and any one of these on demand.
///
/// A directory of one block, or without dir_index, lists its names in byte order. A longer one is a
/// hash tree (htree): block 0 is the root, then the leaves in hash order, then the levels of index
/// nodes between the two. Only where each leaf starts is kept, and for hash trees the order of the
/// entries.
class Directories {
 public:
  /// Number of the lost+found that mkvirtfs adds: one past the tree's directories.
  std::uint32_t lost_found_index() const noexcept {
    return static_cast<std::uint32_t>(plans_.size()) - 1;
  }

  /// plan() must follow.
  Directories(const SourceTree& tree, const Parameters& parameters, const InodeNumbers& numbers);

  /// Says how many blocks each directory has, and what begins where. At most `threads` threads at
  /// once; 0: one a processor. Errors: Errc::io for a lack of memory.
  Result<void> plan(unsigned threads);

  /// The tree's directories, and lost+found if we add it.
  std::uint32_t count() const noexcept { return static_cast<std::uint32_t>(plans_.size()); }
  std::uint32_t block_count(std::uint32_t directory) const noexcept {
    return plans_[directory].block_count;
  }
  std::uint32_t subdirectory_count(std::uint32_t directory) const noexcept {
    return plans_[directory].subdirectories;
  }
  bool is_indexed(std::uint32_t directory) const noexcept {
    return plans_[directory].index_levels != 0;
  }
  /// Whether some hash tree is so deep that the file system needs the large_dir feature.
  bool needs_large_dir() const noexcept { return needs_large_dir_; }

  /// Fills block `block` of the directory; `inode_seed` starts its checksum.
  void write_block(std::uint32_t directory, std::uint32_t block, std::uint32_t inode_seed,
                   std::span<std::byte> out) const;

 private:
  struct Plan {
    std::uint32_t block_count = 1;
    std::uint32_t subdirectories = 0;
    std::uint32_t first_leaf = 0;   // in leaves_; only when there are several
    std::uint32_t leaf_count = 1;   // blocks that hold names
    std::uint32_t first_order = 0;  // in order_; only when indexed
    std::uint8_t index_levels = 0;  // 0: not indexed; 1: the root alone points to leaves; ...
  };
  struct Leaf {
    std::uint32_t first_item = 0;
    std::uint32_t hash = 0;  // indexed only
  };
  /// One name of a directory.
  struct Item {
    std::string_view name;
    InodeNo inode;
    std::uint8_t file_type;
  };
  /// What planning one directory yields before it joins the common arrays.
  struct Draft {
    Plan plan;
    std::vector<Leaf> leaves;
    std::vector<std::uint32_t> order;
  };
  /// Index nodes of each level; level 0 stands right above the leaves.
  struct IndexShape {
    std::uint32_t nodes[3] = {};
    std::uint32_t levels = 0;  // without the root
  };

  std::uint32_t item_count(std::uint32_t directory) const noexcept;
  Item item(std::uint32_t directory, std::uint32_t index) const noexcept;
  InodeNo inode_of(std::uint32_t directory) const noexcept;
  InodeNo parent_inode_of(std::uint32_t directory) const noexcept;

  Draft draft(std::uint32_t directory) const;
  bool draft_index(std::uint32_t directory, Draft& draft) const;
  void draft_linear(std::uint32_t directory, Draft& draft) const;
  void adopt(std::uint32_t directory, Draft&& draft);

  std::uint32_t root_limit() const noexcept;
  std::uint32_t node_limit() const noexcept;
  IndexShape index_shape(std::uint32_t leaf_count) const noexcept;

  void write_leaf(std::uint32_t directory, std::uint32_t leaf, std::uint32_t inode_seed,
                  std::span<std::byte> out) const;
  void write_index_root(std::uint32_t directory, std::uint32_t inode_seed,
                        std::span<std::byte> out) const;
  void write_index_node(std::uint32_t directory, std::uint32_t node, std::uint32_t inode_seed,
                        std::span<std::byte> out) const;
  void write_index_entries(std::uint32_t directory, std::uint32_t level, std::uint32_t first,
                           std::uint32_t last, std::size_t at, std::uint32_t limit,
                           std::uint32_t inode_seed, std::span<std::byte> out) const;

  const SourceTree& tree_;
  const Parameters& parameters_;
  const InodeNumbers& numbers_;
  std::vector<Plan> plans_;
  std::vector<Leaf> leaves_;
  std::vector<std::uint32_t> order_;
  bool needs_large_dir_ = false;
};

}  // namespace mkvirtfs::ext2
