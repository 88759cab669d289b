// SPDX-License-Identifier: BSD-3-Clause
//
// Inodes are of different lengths, and what is as long as a block at most must stand in one. So
// blocks end with gaps, and each inode goes to the smallest gap that has room for it, or else to a
// new block. Gaps are kept by their length, which is counted in slots: there are a few hundred
// lengths, whatever the number of blocks.
//
// Most nodes stand in the block that was taken last. So the node for which each block was taken
// leads to those that may stand in it, and only the others are kept.
#include "fsgen/erofs/inode_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <set>

#include "support/arithmetic.h"

namespace mkvirtfs::erofs {
namespace {

constexpr std::uint64_t kMostSlots = 0xFFFFFFFF;

/// The slots that are left at the ends of blocks.
class Gaps {
 public:
  explicit Gaps(std::uint32_t slots_a_block)
      : slots_a_block_(slots_a_block), by_length_(slots_a_block + 1) {}

  void add(std::uint64_t first_slot) {
    const auto length =
        static_cast<std::uint32_t>((slots_a_block_ - first_slot % slots_a_block_) % slots_a_block_);
    if (length == 0) return;
    if (by_length_[length].empty()) lengths_.insert(length);
    by_length_[length].push_back(static_cast<std::uint32_t>(first_slot));
  }

  /// Takes the start of the smallest gap of `slots` or more.
  std::optional<std::uint64_t> take(std::uint64_t slots) {
    const auto at = lengths_.lower_bound(static_cast<std::uint32_t>(slots));
    if (at == lengths_.end()) return std::nullopt;
    std::vector<std::uint32_t>& gaps = by_length_[*at];
    const std::uint64_t slot = gaps.back();
    gaps.pop_back();
    if (gaps.empty()) lengths_.erase(at);
    add(slot + slots);
    return slot;
  }

 private:
  std::uint32_t slots_a_block_;
  std::vector<std::vector<std::uint32_t>> by_length_;
  std::set<std::uint32_t> lengths_;  // those of which there are gaps
};

}  // namespace

Result<InodeTable> InodeTable::make(const SourceTree& tree, std::uint64_t first_byte,
                                    std::uint32_t block_bytes,
                                    const std::function<std::uint64_t(NodeNo)>& bytes_of) {
  const std::uint32_t slots_a_block = block_bytes / kSlotBytes;
  InodeTable table;
  table.begin_bytes_ = first_byte;
  table.block_bytes_ = block_bytes;
  table.slots_.reserve(tree.node_count());
  Gaps gaps(slots_a_block);
  std::uint64_t end_slot = first_byte / kSlotBytes;  // of all blocks
  for (NodeNo no; no < tree.node_count(); ++no) {
    const std::uint64_t slots = ceil_div<std::uint64_t>(bytes_of(no), kSlotBytes);
    if (slots <= slots_a_block) {
      if (const std::optional<std::uint64_t> slot = gaps.take(slots)) {
        table.slots_.push_back(static_cast<std::uint32_t>(*slot));
        if (*slot + slots_a_block < end_slot) table.in_gaps_.push_back(no);
        continue;
      }
    }
    if (slots > kMostSlots || end_slot + slots > kMostSlots - slots_a_block) {
      return fail(Errc::does_not_fit,
                  fmt::format("{}: there is no room for its inode, which EROFS has in the first "
                              "128 GiB",
                              tree.path(no)),
                  {{"fs", "ext4"}});
    }
    table.slots_.push_back(static_cast<std::uint32_t>(end_slot));
    gaps.add(end_slot + slots);
    end_slot = round_up<std::uint64_t>(end_slot + slots, slots_a_block);
    table.first_.resize((end_slot * kSlotBytes - first_byte) / block_bytes, no);
  }
  table.end_bytes_ = end_slot * kSlotBytes;
  table.first_.shrink_to_fit();
  table.in_gaps_.shrink_to_fit();
  std::ranges::sort(table.in_gaps_, {}, [&](NodeNo no) { return table.slots_[no]; });
  return table;
}

std::vector<NodeNo> InodeTable::nodes_in(Range range) const {
  const auto offset = [&](NodeNo no) { return offset_of(no); };
  std::vector<NodeNo> nodes;
  const std::uint64_t first_block = (range.offset - begin_bytes_) / block_bytes_;
  const std::uint64_t end_block = ceil_div<std::uint64_t>(range.end() - begin_bytes_, block_bytes_);
  for (std::uint64_t block = first_block; block < end_block; ++block) {
    const std::uint64_t begin = begin_bytes_ + block * block_bytes_;
    const std::size_t before = nodes.size();
    // The first one may have begun in an earlier block, and is known from there then.
    NodeNo no = first_[block];
    if (nodes.empty() || nodes.back() != no) nodes.push_back(no);
    const NodeNo next = block + 1 < first_.size()
                            ? first_[block + 1]
                            : NodeNo{static_cast<std::uint32_t>(slots_.size())};
    for (++no; no < next; ++no) {
      if (offset(no) >= begin && offset(no) < begin + block_bytes_) nodes.push_back(no);
    }
    auto in_gap = std::ranges::lower_bound(in_gaps_, begin, {}, offset);
    for (; in_gap != in_gaps_.end() && offset(*in_gap) < begin + block_bytes_; ++in_gap) {
      nodes.push_back(*in_gap);
    }
    std::ranges::sort(nodes.begin() + static_cast<std::ptrdiff_t>(before), nodes.end(), {}, offset);
  }
  return nodes;
}

}  // namespace mkvirtfs::erofs
