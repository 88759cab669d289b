// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "block/extent.h"
#include "fsgen/erofs/numbers.h"
#include "fsgen/tree/source_tree.h"
#include "support/error.h"

namespace mkvirtfs::erofs {

/// Where each inode stands with what follows it: extended attributes, a map of chunks, bytes of its
/// file. Keeps 8 bytes a node. Immutable.
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
  /// The nodes whose inodes stand in `range` of the image, as they stand; the first may begin, and
  /// end, before it.
  std::span<const NodeNo> nodes_in(Range range) const noexcept;

  std::uint64_t begin_bytes() const noexcept { return begin_bytes_; }
  /// A multiple of the block size.
  std::uint64_t end_bytes() const noexcept { return end_bytes_; }

 private:
  std::vector<std::uint32_t> slots_;  // by node
  std::vector<NodeNo> order_;         // sorted by slot
  std::uint64_t begin_bytes_ = 0;
  std::uint64_t end_bytes_ = 0;
};

}  // namespace mkvirtfs::erofs
