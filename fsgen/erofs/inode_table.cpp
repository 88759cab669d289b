// SPDX-License-Identifier: BSD-3-Clause
//
// Inodes are of different lengths, and what is as long as a block at most must stand in one. So
// blocks end with gaps, and each inode goes to the smallest gap that has room for it, or else to a
// new block. Gaps are kept by their length, which is counted in slots: there are a few hundred
// lengths, whatever the number of blocks.
#include "fsgen/erofs/inode_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <numeric>
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
  table.slots_.reserve(tree.node_count());
  Gaps gaps(slots_a_block);
  std::uint64_t end_slot = first_byte / kSlotBytes;  // of all blocks
  for (NodeNo no; no < tree.node_count(); ++no) {
    const std::uint64_t slots = ceil_div<std::uint64_t>(bytes_of(no), kSlotBytes);
    if (slots <= slots_a_block) {
      if (const std::optional<std::uint64_t> slot = gaps.take(slots)) {
        table.slots_.push_back(static_cast<std::uint32_t>(*slot));
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
  }
  table.end_bytes_ = end_slot * kSlotBytes;
  table.order_.reserve(tree.node_count());
  for (NodeNo no; no < tree.node_count(); ++no) table.order_.push_back(no);
  const auto slot = [&](NodeNo no) { return table.slots_[no]; };
  if (!std::ranges::is_sorted(table.order_, {}, slot)) std::ranges::sort(table.order_, {}, slot);
  return table;
}

std::span<const NodeNo> InodeTable::nodes_in(Range range) const noexcept {
  const auto offset = [&](NodeNo no) { return offset_of(no); };
  auto first = std::ranges::upper_bound(order_, range.offset, {}, offset);
  if (first != order_.begin()) --first;
  const auto last = std::ranges::lower_bound(order_, range.end(), {}, offset);
  return first < last ? std::span(first, last) : std::span<const NodeNo>();
}

}  // namespace mkvirtfs::erofs
