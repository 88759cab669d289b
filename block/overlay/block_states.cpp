// SPDX-License-Identifier: BSD-3-Clause
#include "block/overlay/block_states.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <memory>
#include <utility>

#include "support/arithmetic.h"

namespace mkvirtfs {
namespace {

constexpr std::uint64_t kHereBits = 0x5555555555555555U;
constexpr std::uint64_t kZeroBits = 0xaaaaaaaaaaaaaaaaU;

/// 32 blocks of one state.
constexpr std::uint64_t word_of(BlockState state) noexcept {
  return state == BlockState::here ? kHereBits : state == BlockState::zero ? kZeroBits : 0;
}

/// The bits of `count` blocks from `first` in a word; both inside, count is not 0.
constexpr std::uint64_t mask_of(std::uint64_t first, std::uint64_t count) noexcept {
  return (~std::uint64_t{0} >> (64 - 2 * count)) << (2 * first);
}

}  // namespace

BlockStates::Node::~Node() {
  for (Words* const group : groups) {
    if (!is_uniform(group)) delete group;
  }
}

BlockStates::Group BlockStates::all(BlockState state) noexcept {
  static Words here{};
  static Words zero{};
  return state == BlockState::here ? &here : state == BlockState::zero ? &zero : nullptr;
}

bool BlockStates::is_uniform(const Words* group) noexcept {
  return group == nullptr || group == all(BlockState::here) || group == all(BlockState::zero);
}

BlockState BlockStates::uniform_state(const Words* group) noexcept {
  return group == nullptr                 ? BlockState::below
         : group == all(BlockState::here) ? BlockState::here
                                          : BlockState::zero;
}

BlockStates::BlockStates(std::uint64_t blocks)
    : blocks_(blocks), nodes_(ceil_div(blocks, kGroupBlocks * kGroupsPerNode)) {
  memory_bytes_ = sizeof *this + nodes_.size() * sizeof nodes_[0];
}

BlockStates::~BlockStates() {
  for (const std::atomic<Node*>& node : nodes_) delete node.load(std::memory_order_relaxed);
}

BlockStates::Node& BlockStates::make_node(std::uint64_t group) {
  std::atomic<Node*>& place = nodes_[group / kGroupsPerNode];
  Node* there = place.load(std::memory_order_acquire);
  if (there != nullptr) return *there;
  auto made = std::make_unique<Node>();
  if (place.compare_exchange_strong(there, made.get(), std::memory_order_acq_rel)) {
    memory_bytes_ += sizeof(Node);
    return *made.release();
  }
  return *there;
}

BlockStates::Run BlockStates::run_at(OverlayBlocks blocks) const {
  assert(blocks.first < blocks_ && blocks.count > 0 && blocks.count <= blocks_ - blocks.first);
  Run run{{blocks.first, 0}, BlockState::below};
  const std::uint64_t end = blocks.end();
  bool known = false;
  /// False when the run ends here.
  const auto add = [&](BlockState state, std::uint64_t count) {
    if (known && state != run.state) return false;
    known = true;
    run.state = state;
    run.blocks.count += count;
    return true;
  };
  for (std::uint64_t at = blocks.first; at < end;) {
    const std::uint64_t number = at / kGroupBlocks;
    const Node* node = node_of(number);
    if (node == nullptr) {
      const std::uint64_t node_end = round_down(number, kGroupsPerNode) + kGroupsPerNode;
      const std::uint64_t next = std::min(end, node_end * kGroupBlocks);
      if (!add(BlockState::below, next - at)) return run;
      at = next;
      continue;
    }
    const std::uint64_t group_end = std::min(end, (number + 1) * kGroupBlocks);
    const MutexLock lock(lock_of(number));
    const Words* const group = node->groups[number % kGroupsPerNode];
    if (is_uniform(group)) {
      if (!add(uniform_state(group), group_end - at)) return run;
      at = group_end;
      continue;
    }
    while (at < group_end) {
      const std::uint64_t place = at % kGroupBlocks;
      const std::uint64_t in_word = place % kBlocksPerWord;
      const std::uint64_t word = (*group)[place / kBlocksPerWord] >> (2 * in_word);
      const auto state = static_cast<BlockState>(word & 3);
      // How many blocks from here on have the same two bits.
      const auto same_bits = static_cast<std::uint64_t>(std::countr_zero(word ^ word_of(state)));
      const std::uint64_t count =
          std::min({same_bits / 2, kBlocksPerWord - in_word, group_end - at});
      if (!add(state, count)) return run;
      at += count;
    }
  }
  return run;
}

std::uint64_t BlockStates::set(OverlayBlocks blocks, BlockState state) {
  assert(blocks.first <= blocks_ && blocks.count <= blocks_ - blocks.first);
  std::uint64_t were_here = 0;
  for (std::uint64_t first = blocks.first; first < blocks.end();) {
    const std::uint64_t group = first / kGroupBlocks;
    const std::uint64_t part = std::min(blocks.end(), (group + 1) * kGroupBlocks) - first;
    were_here += set_in_group(group, first % kGroupBlocks, part, state);
    first += part;
  }
  return were_here;
}

std::uint64_t BlockStates::write_words(Words& words, std::uint64_t first, std::uint64_t count,
                                       BlockState state) noexcept {
  std::uint64_t were_here = 0;
  for (const std::uint64_t end = first + count; first < end;) {
    const std::uint64_t in_word = first % kBlocksPerWord;
    const std::uint64_t part = std::min(end - first, kBlocksPerWord - in_word);
    const std::uint64_t mask = mask_of(in_word, part);
    std::uint64_t& word = words[first / kBlocksPerWord];
    were_here += static_cast<std::uint64_t>(std::popcount(word & mask & kHereBits));
    word = (word & ~mask) | (word_of(state) & mask);
    first += part;
  }
  return were_here;
}

std::uint64_t BlockStates::set_in_group(std::uint64_t group, std::uint64_t first,
                                        std::uint64_t count, BlockState state) {
  if (state == BlockState::below && node_of(group) == nullptr) return 0;
  Group& place = make_node(group).groups[group % kGroupsPerNode];
  const std::uint64_t group_blocks = std::min(kGroupBlocks, blocks_ - group * kGroupBlocks);
  const MutexLock lock(lock_of(group));
  if (is_uniform(place)) {
    const BlockState before = uniform_state(place);
    const std::uint64_t were_here = before == BlockState::here ? count : 0;
    if (before == state) return were_here;
    if (count == group_blocks) {
      place = all(state);
      return were_here;
    }
    auto words = std::make_unique<Words>();
    words->fill(word_of(before));
    place = words.release();
    memory_bytes_ += sizeof(Words);
  }
  Words& words = *place;
  const std::uint64_t were_here = write_words(words, first, count, state);
  // A group that became uniform gives its words back. Bits behind the last block do not count.
  const std::uint64_t full_words = group_blocks / kBlocksPerWord;
  const std::uint64_t rest = group_blocks % kBlocksPerWord;
  const auto is_alike = [&](std::uint64_t word, std::uint64_t mask) {
    return ((word ^ word_of(state)) & mask) == 0;
  };
  if (std::all_of(words.begin(), words.begin() + static_cast<std::ptrdiff_t>(full_words),
                  [&](std::uint64_t word) { return is_alike(word, ~std::uint64_t{0}); }) &&
      (rest == 0 || is_alike(words[full_words], mask_of(0, rest)))) {
    delete std::exchange(place, all(state));
    memory_bytes_ -= sizeof(Words);
  }
  return were_here;
}

std::uint64_t BlockStates::count_here(OverlayBlocks blocks) const {
  std::uint64_t here = 0;
  for (std::uint64_t first = blocks.first; first < blocks.end();) {
    const Run run = run_at({first, blocks.end() - first});
    if (run.state == BlockState::here) here += run.blocks.count;
    first += run.blocks.count;
  }
  return here;
}

}  // namespace mkvirtfs
