// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "support/mutex.h"

namespace mkvirtfs {

/// What an overlay has of a block.
enum class BlockState : std::uint8_t {
  below = 0,  ///< nothing: the device below has it
  here = 1,   ///< its bytes
  zero = 2,   ///< the knowledge that it is zeroes
};

/// Neighbouring blocks of an overlay, by their numbers.
struct OverlayBlocks {
  std::uint64_t first = 0;
  std::uint64_t count = 0;

  std::uint64_t end() const noexcept { return first + count; }
  friend bool operator==(const OverlayBlocks&, const OverlayBlocks&) = default;
};

/// The states of all blocks of an overlay, two bits each, and hardly more memory than what was
/// touched: a tree of three levels, in which 512 blocks that are alike (2 MiB, when blocks have
/// 4 KiB) take one pointer and others 128 bytes; 16 TiB with nothing written take 128 KiB.
///
/// Every method may run on several threads at once. Each group of 512 blocks is guarded by one of
/// 64 locks, held for a few instructions; no two are ever held together.
class BlockStates {
 public:
  explicit BlockStates(std::uint64_t blocks);
  BlockStates(const BlockStates&) = delete;
  BlockStates& operator=(const BlockStates&) = delete;
  ~BlockStates();

  std::uint64_t blocks() const noexcept { return blocks_; }

  /// Neighbours that are alike.
  struct Run {
    OverlayBlocks blocks;
    BlockState state = BlockState::below;
  };
  /// The run that the front of these blocks, which are not none, begins.
  Run run_at(OverlayBlocks blocks) const;
  BlockState state_at(std::uint64_t block) const { return run_at({block, 1}).state; }

  /// Returns how many of them were `here` before.
  std::uint64_t set(OverlayBlocks blocks, BlockState state);

  /// How many of them are `here`.
  std::uint64_t count_here(OverlayBlocks blocks) const;

  /// What the tree takes now.
  std::uint64_t memory_bytes() const noexcept {
    return memory_bytes_.load(std::memory_order_relaxed);
  }

  static constexpr std::uint64_t kGroupBlocks = 512;

 private:
  static constexpr std::uint64_t kGroupsPerNode = 512;
  static constexpr std::size_t kBlocksPerWord = 32;
  static constexpr std::size_t kLocks = 64;

  /// The states of a group, block n in bits 2n and 2n + 1.
  using Words = std::array<std::uint64_t, kGroupBlocks / kBlocksPerWord>;
  /// Null: all below; kAllHere or kAllZero; or Words of its own. Guarded by the group's lock.
  using Group = Words*;
  struct Node {
    std::array<Group, kGroupsPerNode> groups{};
    ~Node();
  };

  static Group all(BlockState state) noexcept;
  static bool is_uniform(const Words* group) noexcept;
  static BlockState uniform_state(const Words* group) noexcept;

  Node* node_of(std::uint64_t group) const noexcept {
    return nodes_[group / kGroupsPerNode].load(std::memory_order_acquire);
  }
  Node& make_node(std::uint64_t group);
  Mutex& lock_of(std::uint64_t group) const noexcept { return locks_[group % kLocks]; }
  std::uint64_t set_in_group(std::uint64_t group, std::uint64_t first, std::uint64_t count,
                             BlockState state);
  static std::uint64_t write_words(Words& words, std::uint64_t first, std::uint64_t count,
                                   BlockState state) noexcept;

  const std::uint64_t blocks_;
  std::vector<std::atomic<Node*>> nodes_;  // once there, a node stays
  mutable std::array<Mutex, kLocks> locks_;
  std::atomic<std::uint64_t> memory_bytes_ = 0;
};

}  // namespace mkvirtfs
