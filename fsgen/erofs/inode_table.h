// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "block/extent.h"
#include "fsgen/erofs/numbers.h"
#include "fsgen/tree/source_tree.h"
#include "support/error.h"

namespace mkvirtfs::erofs {

/// Where each inode stands with what follows it: extended attributes, a map of chunks, bytes of its
/// file. Keeps 4 bytes a node, 4 a block, and 4 for each node that stands in an earlier block than
/// the node before it. Immutable.
class InodeTable {
 public:
  /// None.
  InodeTable() = default;
  /// The first inode, the root's, begins at `first_byte`, a multiple of the block size;
  /// `bytes_of` says how many bytes a node takes. What fits a block stands in one; anything else
  /// begins with a block. Errors: Errc::does_not_fit with the node that slots are too few for.
  static Result<InodeTable> make(const SourceTree& tree, std::uint64_t first_byte,
                                 std::uint32_t block_bytes,
                                 const std::function<std::uint64_t(NodeNo)>& bytes_of);

  SlotNo slot_of(NodeNo no) const noexcept { return SlotNo{slots_[no]}; }
  /// Of the inode, in the image.
  std::uint64_t offset_of(NodeNo no) const noexcept {
    return std::uint64_t{slots_[no]} * kSlotBytes;
  }
  /// The nodes whose inodes, with what follows them, may stand in `range` of the image, as they
  /// stand: those of all blocks of which it has a part.
  std::vector<NodeNo> nodes_in(Range range) const;

  std::uint64_t begin_bytes() const noexcept { return begin_bytes_; }
  /// A multiple of the block size.
  std::uint64_t end_bytes() const noexcept { return end_bytes_; }

 private:
  std::vector<std::uint32_t> slots_;  // by node
  std::vector<NodeNo> first_;         // by block: the node for which it was taken
  std::vector<NodeNo> in_gaps_;       // nodes that went to blocks before the last, sorted by slot
  std::uint32_t block_bytes_ = 0;
  std::uint64_t begin_bytes_ = 0;
  std::uint64_t end_bytes_ = 0;
};

}  // namespace mkvirtfs::erofs
