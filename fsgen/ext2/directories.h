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

/// The contents of all directories: how many blocks each has, and any one of these on demand. They
/// have the tree's numbers; a lost+found that mkvirtfs adds comes behind them.
///
/// A directory of one block, or without dir_index, lists its names in byte order. A longer one is a
/// hash tree (htree): block 0 is the root, then the leaves in hash order, then the levels of index
/// nodes between the two. Only where each leaf starts is kept, and for hash trees the order of the
/// entries.
class Directories {
 public:
  /// The one that mkvirtfs adds, if it does.
  DirectoryNo lost_found() const noexcept { return DirectoryNo{count() - 1}; }

  /// plan() must follow.
  Directories(const SourceTree& tree, const Parameters& parameters, const InodeNumbers& numbers);

  /// Says how many blocks each directory has, and what begins where. At most `threads` threads at
  /// once; 0: one a processor. Errors: Errc::io for a lack of memory.
  Result<void> plan(unsigned threads);

  /// The tree's directories, and lost+found if we add it.
  std::uint32_t count() const noexcept { return static_cast<std::uint32_t>(plans_.size()); }
  std::uint32_t block_count(DirectoryNo directory) const noexcept {
    return plan_of(directory).block_count;
  }
  std::uint32_t subdirectory_count(DirectoryNo directory) const noexcept {
    return plan_of(directory).subdirectories;
  }
  bool is_indexed(DirectoryNo directory) const noexcept {
    return plan_of(directory).index_levels != 0;
  }
  InodeNo inode_of(DirectoryNo directory) const noexcept;
  /// Whether some hash tree is so deep that the file system needs the large_dir feature.
  bool needs_large_dir() const noexcept { return needs_large_dir_; }

  /// Fills block `block` of the directory; `inode_seed` starts its checksum.
  void write_block(DirectoryNo directory, std::uint32_t block, std::uint32_t inode_seed,
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

  /// Children [first, last) of an index block of `level`; level 0's children are leaves.
  struct IndexChildren {
    std::uint32_t level = 0;
    std::uint32_t first = 0;
    std::uint32_t last = 0;
  };

  const Plan& plan_of(DirectoryNo directory) const noexcept { return plans_[directory.value()]; }
  bool is_of_tree(DirectoryNo directory) const noexcept {
    return directory.value() < tree_.directories().size();
  }
  std::uint32_t item_count(DirectoryNo directory) const noexcept;
  Item item(DirectoryNo directory, std::uint32_t index) const noexcept;
  InodeNo parent_inode_of(DirectoryNo directory) const noexcept;

  Draft draft(DirectoryNo directory) const;
  bool draft_index(DirectoryNo directory, Draft& draft) const;
  void draft_linear(DirectoryNo directory, Draft& draft) const;
  void adopt(DirectoryNo directory, Draft&& draft);

  std::uint32_t root_limit() const noexcept;
  std::uint32_t node_limit() const noexcept;
  IndexShape index_shape(std::uint32_t leaf_count) const noexcept;

  void write_leaf(DirectoryNo directory, std::uint32_t leaf, std::uint32_t inode_seed,
                  std::span<std::byte> out) const;
  void write_index_root(DirectoryNo directory, std::uint32_t inode_seed,
                        std::span<std::byte> out) const;
  void write_index_node(DirectoryNo directory, std::uint32_t node, std::uint32_t inode_seed,
                        std::span<std::byte> out) const;
  void write_index_entries(DirectoryNo directory, const IndexChildren& children, std::size_t at,
                           std::uint32_t limit, std::uint32_t inode_seed,
                           std::span<std::byte> out) const;

  const SourceTree& tree_;
  const Parameters& parameters_;
  const InodeNumbers& numbers_;
  std::vector<Plan> plans_;  // by DirectoryNo
  std::vector<Leaf> leaves_;
  std::vector<std::uint32_t> order_;
  bool needs_large_dir_ = false;
};

}  // namespace mkvirtfs::ext2
