// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/server/allocation.h"

#include <catch2/catch.hpp>
#include <random>

#include "block/testing/extent_device.h"

namespace mkvirtfs::nbd {
namespace {

using testing::ExtentDevice;

constexpr std::uint32_t kData = 0;
constexpr std::uint32_t kHole = kStateHole | kStateZero;

std::vector<StatusRun> allocation(const BlockDevice& device, Range range,
                                  std::size_t most_runs = 1000, std::size_t most_extents = 1000) {
  std::vector<StatusRun> runs;
  append_allocation(device, range, {most_runs, most_extents}, runs);
  return runs;
}

}  // namespace

TEST_CASE("blocks are reported as their device prefers them, within reason", "[allocation]") {
  const auto blocks = [](std::uint32_t preferred) {
    return allocation_block_bytes({1 << 20, preferred, false});
  };
  CHECK(blocks(4096) == 4096);
  CHECK(blocks(1024) == 1024);
  CHECK(blocks(0) == 512);
  CHECK(blocks(100) == 512);
  CHECK(blocks(5000) == 4096);
  CHECK(blocks(1 << 30) == 65536);
}

TEST_CASE("holes and data are reported by whole blocks", "[allocation]") {
  ExtentDevice device;
  SECTION("a file's tail does not make a hole") {
    device.computed(100).hole(3996).computed(4096);
    CHECK(allocation(device, {0, 8192}) == std::vector<StatusRun>{{{0, 8192}, kData}});
  }
  SECTION("the whole blocks of an unaligned hole do") {
    device.computed(100).hole(3996 + 8192 + 50).computed(4046).hole(4096);
    CHECK(allocation(device, {0, 20480}) == std::vector<StatusRun>{{{0, 4096}, kData},
                                                                   {{4096, 8192}, kHole},
                                                                   {{12288, 4096}, kData},
                                                                   {{16384, 4096}, kHole}});
  }
  SECTION("neighbouring extents of one kind are one run") {
    device.computed(4096).memory(std::vector<std::byte>(4096)).hole(2048).hole(2048).hole(4096);
    CHECK(allocation(device, {0, 16384}) ==
          std::vector<StatusRun>{{{0, 8192}, kData}, {{8192, 8192}, kHole}});
  }
  SECTION("the end of the device may lie inside a block") {
    device.computed(4096).hole(100);
    CHECK(allocation(device, {0, 4196}) ==
          std::vector<StatusRun>{{{0, 4096}, kData}, {{4096, 100}, kHole}});
  }
  SECTION("a request inside a hole is all hole, aligned or not") {
    device.hole(1 << 20);
    CHECK(allocation(device, {1000, 3}) == std::vector<StatusRun>{{{1000, 3}, kHole}});
  }
  SECTION("smaller blocks tell more") {
    device.block_bytes(512).computed(100).hole(3996).computed(4096);
    CHECK(allocation(device, {0, 8192}) ==
          std::vector<StatusRun>{{{0, 512}, kData}, {{512, 3584}, kHole}, {{4096, 4096}, kData}});
  }
}

TEST_CASE("an answer can be cut short, but never empty or wrong", "[allocation]") {
  ExtentDevice device;
  for (int i = 0; i < 100; ++i) device.computed(4096).hole(4096);
  CHECK(allocation(device, {0, 819200}).size() == 200);
  CHECK(allocation(device, {0, 819200}, 3) ==
        std::vector<StatusRun>{{{0, 4096}, kData}, {{4096, 4096}, kHole}, {{8192, 4096}, kData}});
  CHECK(allocation(device, {0, 819200}, 1) == std::vector<StatusRun>{{{0, 4096}, kData}});
  CHECK(allocation(device, {4096, 8192}, 1) == std::vector<StatusRun>{{{4096, 4096}, kHole}});
  CHECK(allocation(device, {0, 819200}, 1000, 1) == std::vector<StatusRun>{{{0, 4096}, kData}});
  CHECK(allocation(device, {0, 819200}, 1000, 2).size() == 2);
  // Stopped inside a block: what was seen is reported, as data when it is not a whole block of
  // hole.
  ExtentDevice slivers;
  for (int i = 0; i < 100; ++i) slivers.computed(10).hole(10);
  CHECK(allocation(slivers, {0, 2000}, 1000, 4) == std::vector<StatusRun>{{{0, 40}, kData}});
}

TEST_CASE("runs agree with the map on random devices", "[allocation]") {
  std::mt19937 random(7);
  for (int round = 0; round < 300; ++round) {
    ExtentDevice device;
    const std::uint32_t block = 512U << (random() % 4);
    device.block_bytes(block);
    std::vector<bool> is_hole;
    while (is_hole.size() < 60'000) {
      const bool hole = random() % 2 == 0;
      const std::uint64_t length =
          random() % 3 == 0 ? random() % 20'000 + 1 : 512 * (random() % 20 + 1);
      hole ? device.hole(length) : device.computed(length);
      is_hole.insert(is_hole.end(), length, hole);
    }
    const std::uint64_t from = random() % 30'000;
    const Range range{from, random() % (is_hole.size() - from) + 1};
    std::uint64_t at = range.offset;
    const auto runs = allocation(device, range);
    for (std::size_t i = 0; i < runs.size(); ++i) {
      REQUIRE(runs[i].range.offset == at);
      REQUIRE(runs[i].range.length > 0);
      if (i > 0) REQUIRE(runs[i].flags != runs[i - 1].flags);
      at = runs[i].range.end();
      if (at != range.end()) REQUIRE(at % block == 0);
      for (std::uint64_t b = runs[i].range.offset; b < at; b += block - b % block) {
        // A block of a data run has data in it; a block of a hole run has none.
        const std::uint64_t end = std::min(at, b + block - b % block);
        const bool all_hole = std::all_of(is_hole.begin() + static_cast<std::ptrdiff_t>(b),
                                          is_hole.begin() + static_cast<std::ptrdiff_t>(end),
                                          [](bool hole) { return hole; });
        REQUIRE(runs[i].flags == (all_hole ? kHole : kData));
      }
    }
    REQUIRE(at == range.end());
  }
}

}  // namespace mkvirtfs::nbd
