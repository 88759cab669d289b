// SPDX-License-Identifier: BSD-3-Clause
#include "exports/overlay_shelf.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "block/testing/computed_extent.h"
#include "block/testing/memory_device.h"
#include "exports/export_tree.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs {
namespace {

/// A device of zeroes that are computed, which counts its reads and calls a function before each.
class HookedDevice final : public BlockDevice {
 public:
  HookedDevice() { geometry_.size_bytes = 64 << 10; }
  const Geometry& geometry() const noexcept override { return geometry_; }
  Result<void> read(std::uint64_t, std::span<std::byte> out) override {
    ++reads;
    if (before_read) before_read();
    std::ranges::fill(out, std::byte{0});
    return {};
  }
  void map(Range range, ExtentSink& sink) const override { testing::map_computed(range, sink); }
  std::function<void()> before_read;
  int reads = 0;

 private:
  Geometry geometry_;
};

}  // namespace

TEST_CASE("to open an overlay does not wait for the id of another's image", "[point5]") {
  const TempDir dir;
  const auto slow = std::make_shared<HookedDevice>();
  const auto other = std::make_shared<HookedDevice>();
  const auto below = make_fixed_exports({{"slow", "", slow}, {"other", "", other}});
  REQUIRE(below);
  OverlayExports::Options options;
  options.is_clone = [](std::string_view name) { return name.starts_with("job-"); };
  REQUIRE(keep_on_disk(options, {.path = (dir / "overlays").string()}));
  OverlayExports exports(*below, std::move(options));
  // On one thread: what waited for the id of the slow one would not come back.
  bool opened = false;
  slow->before_read = [&] { opened = opened || exports.open("other").has_value(); };
  REQUIRE(exports.open("slow").has_value());
  CHECK(opened);
  CHECK(other->reads == 1);
  // Clones of one image make its id once.
  const int reads = slow->reads;
  CHECK(exports.open("job-1").has_value());
  CHECK(exports.open("job-2").has_value());
  CHECK(slow->reads == reads);
}

namespace {

using Bytes = std::vector<std::byte>;

std::shared_ptr<ExportTree> two_disks() {
  const auto disk = [] {
    return std::make_shared<testing::MemoryDevice>(testing::pattern_bytes(64 << 10));
  };
  auto tree = make_fixed_exports({{"one", "", disk()}, {"two", "", disk()}});
  REQUIRE(tree);
  return *std::move(tree);
}

std::byte first_byte(OverlayExports& exports, std::string_view name) {
  const auto opened = exports.open(name);
  REQUIRE(opened);
  Bytes got(1);
  REQUIRE(opened->device->read(0, got));
  return got[0];
}

}  // namespace

TEST_CASE("what is written to a shelf on a disk is there for the next tree, and can be forgotten") {
  const TempDir dir;
  const auto make = [&] {
    OverlayExports::Options options;
    REQUIRE(keep_on_disk(options, {.path = (dir / "overlays").string()}));
    return std::make_unique<OverlayExports>(two_disks(), std::move(options));
  };
  {
    const auto exports = make();
    const auto one = exports->open("one");
    REQUIRE(one);
    REQUIRE(one->device->write(0, Bytes(4096, std::byte{9})));
    REQUIRE(exports->snapshot("one", "then"));
    REQUIRE(one->device->write(0, Bytes(4096, std::byte{8})));
  }
  CHECK(std::filesystem::exists(dir / "overlays/one.overlay"));
  CHECK(std::filesystem::exists(dir / "overlays/then.overlay"));
  const auto exports = make();
  CHECK(exports->written_names() == std::vector<std::string>{"one", "then"});
  CHECK(first_byte(*exports, "one") == std::byte{8});
  CHECK(first_byte(*exports, "then") == std::byte{9});
  REQUIRE(exports->discard("then"));
  CHECK_FALSE(std::filesystem::exists(dir / "overlays/then.overlay"));
}

TEST_CASE("a shelf over any image is only read, and may check which image there is") {
  const TempDir dir;
  const std::string path = (dir / "one").string();
  const auto make = [&](DiskShelf shelf) {
    shelf.place = DiskShelf::Place::file;
    shelf.path = path;
    shelf.main_export = "one";
    OverlayExports::Options options;
    const Result<void> kept = keep_on_disk(options, std::move(shelf));
    REQUIRE(kept);
    return std::make_unique<OverlayExports>(two_disks(), std::move(options));
  };
  {
    const auto exports = make({});
    REQUIRE(exports->open("one")->device->write(0, Bytes(4096, std::byte{9})));
  }
  {
    const auto exports = make({.base = DiskShelf::Base::any});
    CHECK(first_byte(*exports, "one") == std::byte{9});
    CHECK_FALSE(exports->open("one")->device->geometry().writable);
    const Result<void> discarded = exports->discard("one");
    REQUIRE_FALSE(discarded);
    CHECK(discarded.error().code == Errc::unsupported);
  }
  std::string asked;
  DiskShelf shelf;
  shelf.make_base_check = [&](const std::string& of, const std::shared_ptr<BlockDevice>&,
                              const ImageId&) -> OverlayFile::BaseCheck {
    asked = of;
    return [](const OverlayHeader* found) -> Result<void> {
      return found != nullptr ? fail(Errc::usage, "not over this") : Result<void>();
    };
  };
  const auto refused = make(std::move(shelf))->open("one");
  REQUIRE_FALSE(refused);
  CHECK(refused.error().what == "not over this");
  CHECK(asked == path);
}

TEST_CASE("a temporary shelf is in memory or in files without names") {
  const TempDir dir;
  for (const auto place : {TemporaryShelf::Place::memory, TemporaryShelf::Place::directory}) {
    OverlayExports::Options options;
    keep_temporary(options, {.place = place, .directory = dir.path().string()});
    OverlayExports exports(two_disks(), std::move(options));
    REQUIRE(exports.open("one")->device->write(0, Bytes(4096, std::byte{9})));
    REQUIRE(exports.snapshot("one", "then"));
    CHECK(first_byte(exports, "then") == std::byte{9});
    CHECK(std::filesystem::is_empty(dir.path()));
  }
}

}  // namespace mkvirtfs
