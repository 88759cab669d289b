// SPDX-License-Identifier: BSD-3-Clause
#include "block/overlay/block_states.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdint>
#include <random>
#include <vector>

namespace mkvirtfs {
namespace {

/// The same by a plain vector.
class Model {
 public:
  explicit Model(std::size_t blocks) : states_(blocks) {}

  std::uint64_t set(std::uint64_t first, std::uint64_t count, BlockState state) {
    const std::uint64_t here = count_here(first, count);
    std::fill_n(states_.begin() + static_cast<std::ptrdiff_t>(first), count, state);
    return here;
  }
  std::uint64_t count_here(std::uint64_t first, std::uint64_t count) const {
    const auto from = states_.begin() + static_cast<std::ptrdiff_t>(first);
    return static_cast<std::uint64_t>(
        std::count(from, from + static_cast<std::ptrdiff_t>(count), BlockState::here));
  }
  std::uint64_t run_length(std::uint64_t first, std::uint64_t most) const {
    std::uint64_t count = 1;
    while (count < most && states_[first + count] == states_[first]) ++count;
    return count;
  }
  BlockState at(std::uint64_t block) const { return states_[block]; }

 private:
  std::vector<BlockState> states_;
};

}  // namespace

TEST_CASE("block states are what was set, whatever the lengths") {
  const auto seed = std::random_device()();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  const auto below = [&](std::uint64_t limit) { return random() % limit; };
  for (int round = 0; round < 20; ++round) {
    const std::uint64_t blocks = 1 + below(5000);
    BlockStates states(blocks);
    Model model(blocks);
    for (int step = 0; step < 200; ++step) {
      const std::uint64_t first = below(blocks);
      const std::uint64_t most = blocks - first;
      // Short ones, long ones, and whole groups.
      const std::uint64_t count =
          1 + below(below(2) == 0 ? most : std::min<std::uint64_t>(most, 40));
      if (below(3) > 0) {
        const auto state = static_cast<BlockState>(below(3));
        REQUIRE(states.set({first, count}, state) == model.set(first, count, state));
      } else {
        const BlockStates::Run run = states.run_at({first, count});
        REQUIRE(run.blocks.first == first);
        REQUIRE(run.state == model.at(first));
        REQUIRE(run.blocks.count == model.run_length(first, count));
        REQUIRE(states.count_here({first, count}) == model.count_here(first, count));
      }
    }
  }
}

TEST_CASE("block states take hardly more memory than what was touched") {
  constexpr std::uint64_t kBlocksOf16TiB = (std::uint64_t{16} << 40) / 4096;
  BlockStates states(kBlocksOf16TiB);
  CHECK(states.memory_bytes() < (256U << 10));
  const std::uint64_t untouched = states.memory_bytes();

  SECTION("a long run of blocks takes two bits for each 64 KiB") {
    constexpr std::uint64_t kBlocksOf16GiB = (std::uint64_t{16} << 30) / 4096;
    for (std::uint64_t block = 0; block < kBlocksOf16GiB; block += 8) {
      states.set({block, 8}, BlockState::here);
    }
    CHECK(states.memory_bytes() - untouched <= kBlocksOf16GiB / 16 * 2 / 8);
  }
  SECTION("going back to what it was takes nothing more") {
    states.set({1000, 1}, BlockState::zero);
    const std::uint64_t touched = states.memory_bytes();
    states.set({1000, 1}, BlockState::below);
    CHECK(states.memory_bytes() < touched);
    CHECK(states.run_at({0, kBlocksOf16TiB}).blocks.count == kBlocksOf16TiB);
  }
}

TEST_CASE("setting blocks below where nothing is known costs nothing") {
  BlockStates states(1'000'000);
  const std::uint64_t before = states.memory_bytes();
  CHECK(states.set({0, 1'000'000}, BlockState::below) == 0);
  CHECK(states.memory_bytes() == before);
}

}  // namespace mkvirtfs
