// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/server/allocation_depth.h"

#include <catch2/catch.hpp>
#include <cstddef>
#include <memory>
#include <vector>

#include "block/overlay/overlay.h"
#include "block/testing/memory_device.h"

namespace mkvirtfs::nbd {

TEST_CASE("qemu:allocation-depth reports which layer holds what") {
  constexpr std::uint64_t kBytes = 64 << 10;
  auto store = OverlayStore::in_memory(kBytes);
  REQUIRE(store);
  Overlay overlay(std::make_shared<testing::MemoryDevice>(testing::pattern_bytes(kBytes)),
                  *std::move(store), Overlay::Options());
  REQUIRE(overlay.write(4096, std::vector<std::byte>(8192)));
  std::vector<StatusRun> runs;
  const auto context = make_allocation_depth();
  context->append_status(overlay, {0, kBytes}, {100, 100}, runs);
  CHECK(runs ==
        std::vector<StatusRun>{{{0, 4096}, 2}, {{4096, 8192}, 1}, {{12'288, kBytes - 12'288}, 2}});
  runs.clear();
  context->append_status(overlay, {0, kBytes}, {2, 100}, runs);
  CHECK(runs == std::vector<StatusRun>{{{0, 4096}, 2}, {{4096, 8192}, 1}});
  runs.clear();
  context->append_status(overlay, {5000, 100}, {100, 1}, runs);
  CHECK(runs == std::vector<StatusRun>{{{5000, 100}, 1}});
}

}  // namespace mkvirtfs::nbd
