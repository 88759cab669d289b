// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "fsgen/ext2/numbers.h"
#include "fsgen/tree/source_tree.h"

namespace mkvirtfs::ext2 {

inline constexpr InodeNo kRootInode{2};
inline constexpr InodeNo kResizeInode{7};
inline constexpr InodeNo kJournalInode{8};
inline constexpr InodeNo kFirstInode{11};  // the first that is not reserved
inline constexpr std::string_view kLostFoundName = "lost+found";

/// Which inode a node of the tree becomes. A tree without a lost+found gets one of ours as inode
/// 11; the tree's nodes follow in their own order.
class InodeNumbers {
 public:
  explicit InodeNumbers(const SourceTree& tree)
      : node_count_(tree.node_count()),
        adds_lost_found_(tree.find(tree.directories()[0], kLostFoundName) == nullptr),
        first_(kFirstInode + (adds_lost_found_ ? 1u : 0u)) {}

  bool adds_lost_found() const noexcept { return adds_lost_found_; }
  InodeNo of(NodeNo node) const noexcept {
    return node == kRootNode ? kRootInode : first_ + (node.value() - 1);
  }
  /// Inodes 1 .. last() are in use or reserved, all others are free.
  InodeNo last() const noexcept { return first_ + node_count_ - 2; }
  /// The node of the tree that has this inode, if one has.
  std::optional<NodeNo> node_of(InodeNo inode) const noexcept {
    if (inode == kRootInode) return kRootNode;
    if (inode < first_ || inode > last()) return std::nullopt;
    return NodeNo{inode - first_ + 1};
  }

 private:
  std::uint32_t node_count_;
  bool adds_lost_found_;
  InodeNo first_;
};

}  // namespace mkvirtfs::ext2
