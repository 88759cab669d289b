// SPDX-License-Identifier: BSD-3-Clause
// Images of ours, and of mkfs.fat and mtools, give their trees back.
#include <catch2/catch.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "block/image.h"
#include "fsgen/disk/testing/format_views.h"
#include "fsgen/disk/testing/tree_view.h"
#include "fsgen/fat32/plan.h"
#include "support/byte_order.h"
#include "tests/support/foreign_tools.h"
#include "tests/support/property.h"
#include "tests/support/random_tree.h"
#include "tests/support/temp_dir.h"

using namespace mkvirtfs;
using namespace mkvirtfs::disk::testing;

namespace {

std::string round_trip(const BuiltTree& source, const fat32::Options& options) {
  const auto image = fat32::plan(source.tree, options);
  if (!image) return image.error().what;
  ImageDevice device(*image, source.store);
  const TempDir place(fast_place());
  write_image(device, place / "image");
  const ReadBack back = read_back(place / "image");
  return back.log + differences(back, source, expected_fat_view, fat_view,
                                [](const std::string&) { return false; });
}

}  // namespace

TEST_CASE("random trees come back from every width of FAT") {
  mkvirtfs::testing::RandomTreeOptions trees;
  trees.most_in_a_crowd = 500;
  trees.most_file_bytes = 1 << 18;
  trees.most_sparse_bytes = 1 << 20;
  trees.most_path_bytes = 400;
  trees.xattrs = false;
  int compared = 0;
  mkvirtfs::testing::check_property(60, [&] {
    const mkvirtfs::testing::RandomTree tree = *mkvirtfs::testing::random_tree(trees);
    fat32::Options options;
    const int width = *rc::gen::element(0, 12, 16, 32).as("width");
    if (width == 12) options.width = fat32::Width::fat12;
    if (width == 16) options.width = fat32::Width::fat16;
    if (width == 32) options.width = fat32::Width::fat32;
    options.sector_bytes = *rc::gen::element(512u, 4096u).as("sector size");
    options.free = FreeBytes{1 << 20};
    options.label = "random";
    const BuiltTree built = tree.build();
    // Names that differ in case alone, and too much for FAT12.
    if (!fat32::plan(built.tree, options)) return;
    ++compared;
    const std::string found = round_trip(built, options);
    if (!found.empty()) RC_FAIL(found);
  });
  CHECK(compared >= 20);
}

TEST_CASE("names of all kinds come back from FAT") {
  TreeBuilder builder;
  builder.directory("empty").file("README.TXT", "1").file("readme2.txt", "2");
  builder.file("Mixed.Case", "3").file("no_extension", "4").file(".hidden", "5");
  builder.file("a b", "6").file("trailing.", "7").file("what?", "8").file("\xff\xfe", "9");
  builder.file("gr\xc3\xbc\xc3\x9f", "10").file("\xf0\x9f\x90\xa7", "11");
  builder.file(std::string(255, 'l'), "12").file("thirteen.char", "13");
  builder.file("locked", "14").mode(0444);
  for (int i = 0; i < 700; ++i) builder.file(fmt::format("many/entry number {}", i), "x");
  const BuiltTree source = builder.build();
  for (const auto width : {fat32::Width::fat12, fat32::Width::fat16, fat32::Width::fat32}) {
    fat32::Options options;
    options.width = width;
    CHECK(round_trip(source, options) == "");
  }
}

TEST_CASE("a disk of mkfs.fat that mtools filled in pieces is read whole") {
  const TempDir place(fast_place());
  const std::string disk = (place / "disk").string();
  for (const std::string width : {"12", "16", "32"}) {
    INFO("FAT" << width);
    const std::string size = width == "12" ? "2048" : width == "16" ? "16384" : "66000";
    must_run({"mkfs.fat", "-C", "-F", width, "-s", "1", disk, size});
    for (int i = 0; i < 6; ++i) {
      const std::string name = fmt::format("part {}", i);
      write_file(place / name, std::string(30000, static_cast<char>('a' + i)));
      must_run({"mcopy", "-i", disk, (place / name).string(), "::" + name});
    }
    must_run({"mdel", "-i", disk, "::part 1", "::part 3"});
    std::string big;
    for (int i = 0; i < 20000; ++i) big += std::to_string(i);
    write_file(place / "big", big);
    must_run({"mcopy", "-i", disk, (place / "big").string(), "::Big File.data"});
    const ReadBack back = read_back(disk);
    CHECK(back.log == "");
    CHECK(back.disk.format == "FAT" + width);
    CHECK(back.disk.problem_count == 0);
    CHECK(back.layer.tree->node_count() == 6);
    CHECK(bytes_of(back, "Big File.data") == big);
    CHECK(bytes_of(back, "part 4") == std::string(30000, 'e'));
    std::filesystem::remove(disk);
  }
}

TEST_CASE("hidden and system attributes are left out, and counted") {
  const TempDir place(fast_place());
  const std::string disk = (place / "disk").string();
  must_run({"mkfs.fat", "-C", "-F", "16", "-s", "1", disk, "16384"});
  for (const std::string name : {"plain", "hidden", "system"}) {
    write_file(place / name, name);
    must_run({"mcopy", "-i", disk, (place / name).string(), "::" + name});
  }
  CHECK(read_back(disk).log == "");
  must_run({"mattrib", "-i", disk, "+h", "::hidden"});
  must_run({"mattrib", "-i", disk, "+s", "::system"});
  const ReadBack back = read_back(disk);
  CHECK_THAT(back.log, Catch::Contains("hidden and system attributes of 2 entries are left out"));
  CHECK(back.disk.problem_count == 0);
  CHECK(bytes_of(back, "hidden") == "hidden");
}

TEST_CASE("crossed chains make files unreadable, lost ones are a remark") {
  const TempDir place(fast_place());
  const std::string disk = (place / "disk").string();
  must_run({"mkfs.fat", "-C", "-F", "16", "-s", "1", disk, "16384"});
  for (const std::string name : {"one", "two", "three"}) {
    write_file(place / name, std::string(2048, name[0]));
    must_run({"mcopy", "-i", disk, (place / name).string(), "::" + name});
  }
  // "one" has the clusters 2 to 5, "two" those from 6 on: 3 leads to 7.
  std::string bytes = read_file(disk);
  const std::size_t reserved = load_le<std::uint16_t>(std::as_bytes(std::span(bytes)), 14);
  const std::size_t fat = reserved * 512;
  REQUIRE(bytes.substr(fat + 6, 2) == std::string("\x04\x00", 2));
  bytes.replace(fat + 6, 2, std::string("\x07\x00", 2));
  write_file(disk, bytes);
  const ReadBack back = read_back(disk);
  CHECK(back.disk.problem_count == 2);
  CHECK_THAT(back.disk.first_problem, Catch::Contains("its chain of clusters crosses another"));
  CHECK_THAT(back.log, Catch::Contains("clusters are in several chains"));
  CHECK_THAT(back.log, Catch::Contains("2 clusters are in use and in no file"));
  CHECK(bytes_of(back, "three") == std::string(2048, 't'));
  const Node* one = back.layer.tree->find_path("one");
  REQUIRE(one != nullptr);
  CHECK(one->size_bytes == 2048);
  std::string byte(1, '\0');
  CHECK_FALSE(back.layer.contents->read(content_no(back.layer.tree->number_of(*one)), 0,
                                        std::as_writable_bytes(std::span(byte))));
}
