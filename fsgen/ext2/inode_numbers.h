// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "fsgen/ext2/numbers.h"
#include "fsgen/tree/source_tree.h"

namespace mkvirtfs::ext2 {

inline constexpr InodeNo kRootInode{2};
inline constexpr InodeNo kUserQuotaInode{3};
inline constexpr InodeNo kGroupQuotaInode{4};
inline constexpr InodeNo kResizeInode{7};
inline constexpr InodeNo kJournalInode{8};
inline constexpr InodeNo kFirstInode{11};  // the first that is not reserved
inline constexpr std::string_view kLostFoundName = "lost+found";

/// Which inode a node of the tree becomes. Behind the reserved ones come those of ours: lost+found,
/// as inode 11, where the tree has none and one is wanted, then those of features. The tree's nodes
/// follow in their own order, and behind them the values of extended attributes that are files.
class InodeNumbers {
 public:
  struct Wanted {
    bool lost_found = true;
    bool project_quota = false;
    bool orphan_file = false;
  };

  InodeNumbers(const SourceTree& tree, const Wanted& wanted)
      : node_count_(tree.node_count()),
        adds_lost_found_(wanted.lost_found &&
                         tree.find(tree.directories()[0], kLostFoundName) == nullptr),
        project_quota_(kFirstInode + (adds_lost_found_ ? 1u : 0u)),
        orphan_file_(project_quota_ + (wanted.project_quota ? 1u : 0u)),
        first_(orphan_file_ + (wanted.orphan_file ? 1u : 0u)) {}

  bool adds_lost_found() const noexcept { return adds_lost_found_; }
  /// Only where they are wanted.
  InodeNo project_quota() const noexcept { return project_quota_; }
  InodeNo orphan_file() const noexcept { return orphan_file_; }
  InodeNo of(NodeNo node) const noexcept {
    return node == kRootNode ? kRootInode : first_ + (node.value() - 1);
  }
  /// The inode of such a value; counted from 0.
  InodeNo of_value(std::uint32_t value) const noexcept { return last_of_tree() + 1 + value; }
  /// How many values there are; none before this is said.
  void set_value_count(std::uint32_t count) noexcept { value_count_ = count; }
  /// Inodes 1 .. last() are in use or reserved, all others are free.
  InodeNo last() const noexcept { return last_of_tree() + value_count_; }
  /// The node of the tree that has this inode, if one has.
  std::optional<NodeNo> node_of(InodeNo inode) const noexcept {
    if (inode == kRootInode) return kRootNode;
    if (inode < first_ || inode > last_of_tree()) return std::nullopt;
    return NodeNo{inode - first_ + 1};
  }

 private:
  InodeNo last_of_tree() const noexcept { return first_ + node_count_ - 2; }

  std::uint32_t node_count_;
  std::uint32_t value_count_ = 0;
  bool adds_lost_found_;
  InodeNo project_quota_;
  InodeNo orphan_file_;
  InodeNo first_;
};

}  // namespace mkvirtfs::ext2
