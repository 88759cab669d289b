// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/image/patched_image.h"

#include <catch2/catch.hpp>

#include <algorithm>
#include <string>
#include <vector>

#include "fsgen/image/testing/strip_image.h"

using namespace mkvirtfs;
using testing::StripImage;

namespace {

std::vector<std::byte> bytes(std::size_t size, int value) {
  return std::vector<std::byte>(size, static_cast<std::byte>(value));
}

struct Fixture {
  Fixture() {
    auto strip = std::make_shared<StripImage>(built.tree);
    strip->add(2, {.kind = Region::Kind::computed, .data_bytes = 1024})
        .add(2,
             {.kind = Region::Kind::file, .data_bytes = 700, .file = NodeNo{1}, .has_holes = true})
        .add(1, {});
    image = strip;
  }
  BuiltTree built = TreeBuilder{}.file("a", std::string(700, 'a')).build();
  std::shared_ptr<const PlannedImage> image;
};

std::vector<std::byte> read_all(const std::shared_ptr<const Image>& image, const BuiltTree& built) {
  ImageDevice device(image, built.store);
  std::vector<std::byte> out(image->size_bytes());
  REQUIRE(device.read(0, out));
  return out;
}

std::string error_of(const std::shared_ptr<const PlannedImage>& image, std::vector<Patch> patches) {
  const auto done = patched(image, std::move(patches));
  REQUIRE_FALSE(done);
  CHECK(done.error().code == Errc::usage);
  return done.error().what;
}

}  // namespace

TEST_CASE("patches lie over computed blocks, files and holes, and are shown as memory") {
  const Fixture fixture;
  const auto before = read_all(fixture.image, fixture.built);
  // Unsorted; two touch, and one lies over a border of regions.
  const auto image = patched(fixture.image, {{1000, bytes(100, 7), "over the border"},
                                             {0, bytes(10, 1), "first"},
                                             {10, bytes(1, 2), ""},
                                             {2559, bytes(1, 3), "last"},
                                             {50, {}, "nothing"}});
  REQUIRE(image);
  auto want = before;
  std::fill_n(want.begin(), 10, std::byte{1});
  want[10] = std::byte{2};
  std::fill_n(want.begin() + 1000, 100, std::byte{7});
  want[2559] = std::byte{3};
  CHECK(read_all(*image, fixture.built) == want);

  const std::uint64_t size = want.size();
  std::uint64_t memory_bytes = 0;
  for (std::uint64_t from = 0; from < size; from += 13) {
    for (std::uint64_t to = from; to <= size; to += 97) {
      std::uint64_t at = from;
      for_each_extent(**image, {from, to - from}, [&](const Extent& extent) {
        CHECK(extent.offset == at);
        CHECK(extent.length != 0);
        at = extent.end();
        if (extent.kind != ExtentKind::memory) return true;
        REQUIRE(std::equal(extent.memory, extent.memory + extent.length,
                           want.begin() + static_cast<std::ptrdiff_t>(extent.offset)));
        if (from == 0 && to == 2522) memory_bytes += extent.length;
        return true;
      });
      REQUIRE(at == to);
    }
  }
  CHECK(memory_bytes == 111);

  ImageDevice device(*image, fixture.built.store);
  std::vector<std::byte> part;
  for (std::uint64_t from = 0; from < size; from += 31) {
    part.resize(std::min<std::uint64_t>(333, size - from));
    REQUIRE(device.read(from, part));
    REQUIRE(std::equal(part.begin(), part.end(), want.begin() + static_cast<std::ptrdiff_t>(from)));
  }
}

TEST_CASE("a walk over a patched map ends when its reader wants it to") {
  const Fixture fixture;
  const auto image = patched(fixture.image, {{100, bytes(10, 1), ""}, {1500, bytes(10, 2), ""}});
  REQUIRE(image);
  for (int most = 1; most < 7; ++most) {
    int calls = 0;
    for_each_extent(**image, {0, 2560}, [&](const Extent&) { return ++calls < most; });
    CHECK(calls == most);
  }
}

TEST_CASE("patches are described and counted, and what is not patched is the image's own") {
  const Fixture fixture;
  const auto image = patched(fixture.image, {{100, bytes(10, 1), "boot code"}});
  REQUIRE(image);
  const PlannedImage& seen = **image;
  CHECK(seen.describe(99) == "region at 0");
  CHECK(seen.described_end(99) == 100);
  CHECK(seen.describe(100) == "patch: boot code, at 0");
  CHECK(seen.describe(109) == "patch: boot code, at 9");
  CHECK(seen.described_end(100) == 110);
  CHECK(seen.describe(110) == "region at 0");
  CHECK(seen.described_end(110) == 1024);
  CHECK(seen.volume_id() == "strip");
  CHECK(seen.structure(structures::kVolume) == std::vector<Range>{{0, 2560}});
  CHECK(&seen.tree() == fixture.built.tree.get());

  const auto twice = patched(*image, {{105, bytes(1, 2), ""}, {2000, bytes(1, 2), ""}});
  REQUIRE(twice);
  CHECK((*twice)->describe(105) == "patch, at 0");
  CHECK((*twice)->describe(106) == "patch: boot code, at 6");
  const auto facts = (*twice)->facts();
  const auto count = std::ranges::find(facts, "patch_count", &ImageFact::name);
  REQUIRE(count != facts.end());
  CHECK(std::get<std::uint64_t>(count->value) == 3);
}

TEST_CASE("patches that overlap or leave the image are refused") {
  const Fixture fixture;
  CHECK_THAT(error_of(fixture.image, {{0, bytes(2, 0), ""}, {1, bytes(1, 0), ""}}),
             Catch::Contains("a patch of 1 bytes at 1 lies over another one"));
  CHECK_THAT(error_of(fixture.image, {{2550, bytes(11, 0), ""}}),
             Catch::Contains("behind the image's end at 2560"));
  CHECK_THAT(error_of(fixture.image, {{~std::uint64_t{0}, bytes(11, 0), ""}}),
             Catch::Contains("behind the image's end at 2560"));
  CHECK(patched(fixture.image, {{2550, bytes(10, 0), ""}}));
  CHECK(patched(fixture.image, {}));
}
