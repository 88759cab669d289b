// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/image/region_image.h"

#include <catch2/catch.hpp>

#include <string>
#include <vector>

#include "fsgen/image/testing/strip_image.h"

using namespace mkvirtfs;
using testing::StripImage;

namespace {

constexpr std::uint64_t kBlock = StripImage::kBlock;

/// "0 512 computed", "512 100 content 3 at 0": what a map says, one string an extent.
std::vector<std::string> map_of(const Image& image, Range range) {
  std::vector<std::string> rows;
  std::uint64_t at = range.offset;
  for_each_extent(image, range, [&](const Extent& extent) {
    CHECK(extent.offset == at);
    CHECK(extent.length != 0);
    at = extent.end();
    std::string row = std::to_string(extent.offset) + " " + std::to_string(extent.length);
    if (extent.kind == ExtentKind::hole) row += " hole";
    if (extent.kind == ExtentKind::computed) row += " computed";
    if (extent.kind == ExtentKind::content) {
      row += " content " + std::to_string(node_no(extent.content)) + " at " +
             std::to_string(extent.content_offset);
    }
    rows.push_back(std::move(row));
    return true;
  });
  CHECK(at == range.end());
  return rows;
}

using Rows = std::vector<std::string>;

}  // namespace

TEST_CASE("regions become extents: neighbours of one kind are joined, files are not") {
  const BuiltTree built = TreeBuilder{}.file("a", std::string(700, 'a')).file("b", "b").build();
  StripImage image(built.tree);
  image.add(1, {.kind = Region::Kind::computed, .data_bytes = kBlock})
      .add(2, {.kind = Region::Kind::computed, .data_bytes = kBlock})
      .add(1, {})
      .add(2, {.kind = Region::Kind::file, .data_bytes = 700, .file = NodeNo{1}, .has_holes = true})
      .add(1, {.kind = Region::Kind::file, .data_bytes = 1, .file = NodeNo{2}, .has_holes = true})
      .add(1, {});
  CHECK(map_of(image, {0, image.size_bytes()}) == Rows{"0 1024 computed", "1024 1024 hole",
                                                       "2048 700 content 1 at 0", "2748 324 hole",
                                                       "3072 1 content 2 at 0", "3073 1023 hole"});
  CHECK(map_of(image, {1000, 1100}) ==
        Rows{"1000 24 computed", "1024 1024 hole", "2048 52 content 1 at 0"});
  CHECK(map_of(image, {2700, 60}) == Rows{"2700 48 content 1 at 652", "2748 12 hole"});
  CHECK(image.described_end(513) == 3 * kBlock);
  CHECK(image.described_end(2048) == 6 * kBlock);
}

TEST_CASE("a region is looked up once for each extent, however long it is") {
  const BuiltTree built = TreeBuilder{}.file("a", "a").build();
  StripImage image(built.tree);
  image.add(100000, {.kind = Region::Kind::computed, .data_bytes = 100000 * kBlock}).add(7, {});
  map_of(image, {0, image.size_bytes()});
  CHECK(image.lookups == 2);
}

TEST_CASE("holes of a file are cut out where the planner left them in, and only there") {
  const BuiltTree built =
      TreeBuilder{}.sparse_file("s", 6000, {{100, 400}, {2000, 48}, {5000, 1000}}).build();
  const auto with = [&](bool has_holes, std::uint64_t file_offset, std::uint64_t data_bytes) {
    StripImage image(built.tree);
    image.add(1, {}).add(12, {.kind = Region::Kind::file,
                              .data_bytes = data_bytes,
                              .file = NodeNo{1},
                              .file_offset = file_offset,
                              .has_holes = has_holes});
    return map_of(image, {0, image.size_bytes()});
  };
  CHECK(with(true, 0, 6000) == Rows{"0 612 hole", "612 400 content 1 at 100", "1012 1500 hole",
                                    "2512 48 content 1 at 2000", "2560 2952 hole",
                                    "5512 1000 content 1 at 5000", "6512 144 hole"});
  CHECK(with(false, 0, 6000) == Rows{"0 512 hole", "512 6000 content 1 at 0", "6512 144 hole"});
  // From the middle of one run to the middle of another.
  CHECK(with(true, 300, 5000) == Rows{"0 512 hole", "512 200 content 1 at 300", "712 1500 hole",
                                      "2212 48 content 1 at 2000", "2260 2952 hole",
                                      "5212 300 content 1 at 5000", "5512 1144 hole"});
}

TEST_CASE("a part of a computed block is a part of the whole block") {
  const BuiltTree built = TreeBuilder{}.build();
  StripImage image(built.tree);
  image.add(4, {.kind = Region::Kind::computed, .data_bytes = 4 * kBlock});
  for (const auto& [from, to] : std::vector<std::pair<std::uint64_t, std::uint64_t>>{
           {0, 2048}, {1, 2}, {511, 513}, {500, 1700}, {512, 1024}, {2047, 2048}, {7, 7}}) {
    std::vector<std::byte> out(to - from);
    REQUIRE(image.compute(from, out, *built.store));
    for (std::uint64_t at = from; at < to; ++at) {
      REQUIRE(std::to_integer<std::uint64_t>(out[at - from]) == at / kBlock + 1);
    }
  }
}

TEST_CASE("where one byte of a placed file stands") {
  const DataPlacement placed{
      DataPlacement::Kind::stored, 9000, {{0, {40960, 4096}}, {8192, {45056, 808}}}};
  CHECK(placed.find(0) == 40960);
  CHECK(placed.find(4095) == 45055);
  CHECK_FALSE(placed.find(4096));
  CHECK_FALSE(placed.find(8191));
  CHECK(placed.find(8192) == 45056);
  CHECK(placed.find(8999) == 45863);
  CHECK_FALSE(placed.find(9000));
  CHECK_FALSE(DataPlacement().find(0));
}
