// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/erofs/plan.h"

#include <catch2/catch.hpp>

#include <fmt/format.h>

#include <initializer_list>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "block/image.h"
#include "fsgen/erofs/testing/judges.h"
#include "fsgen/erofs/testing/read_back.h"
#include "fsgen/image/testing/planned.h"
#include "fsgen/tree/tree_builder.h"
#include "support/byte_order.h"
#include "tests/support/hinted_text.h"

using namespace mkvirtfs;
using erofs::InodeTimes;
using erofs::Options;

namespace {

using mkvirtfs::testing::facts_of;
using mkvirtfs::testing::read;

constexpr std::uint64_t kBlock = 4096;

std::shared_ptr<const PlannedImage> planned(const BuiltTree& built, const Options& options = {}) {
  auto image = erofs::plan(built.tree, options);
  if (!image) FAIL(image.error().what);
  return *image;
}

std::string error_of(const BuiltTree& built, const Options& options = {}) {
  const auto image = erofs::plan(built.tree, options);
  if (image) FAIL("a plan was made");
  return hinted_text(image.error());
}

/// By our reader, and by fsck.erofs where it knows the blocks.
std::string objections(const std::shared_ptr<const PlannedImage>& image, const BuiltTree& built,
                       const Options& options = {}) {
  ImageDevice device(image, built.store);
  const bool kept = options.inode_times == InodeTimes::keep;
  std::string found = erofs::testing::differences(
      device, built, kept ? erofs::testing::TimesAre::kept : erofs::testing::TimesAre::the_volumes);
  if (options.block_bytes == kBlock && kept) {
    found += erofs::testing::objections_of_fsck(image, built);
  }
  return found;
}

}  // namespace

TEST_CASE("the superblock has the volume's label, UUID and time") {
  const BuiltTree built = TreeBuilder{}.file("a", "1").mtime({1'700'000'000, 5}).build();
  Options options;
  options.label = "fifteen letters";
  options.uuid = parse_uuid("d3b07384-d9a0-4c9b-8f6e-1a2b3c4d5e6f");
  const auto image = planned(built, options);
  const auto super = read(image, built, 1024, 128);
  CHECK(load_le<std::uint64_t>(super, 24) == 1'700'000'000);
  CHECK(load_le<std::uint32_t>(super, 32) == 5);
  CHECK(std::string(reinterpret_cast<const char*>(super.data()) + 64) == "fifteen letters");
  CHECK(super[48] == std::byte{0xd3});
  CHECK(load_le<std::uint32_t>(super, 80) == 0);
  CHECK(image->volume_id() == "d3b07384-d9a0-4c9b-8f6e-1a2b3c4d5e6f");
  CHECK(objections(image, built, options) == "");

  options.label += "x";
  CHECK_THAT(error_of(built, options),
             Catch::Contains("EROFS labels are up to 15 bytes, this one is 16"));
  options.label.clear();
  options.block_bytes = 3000;
  CHECK_THAT(error_of(built, options),
             Catch::Contains("blocks of EROFS are powers of two from 512 to 65536 bytes"));
}

TEST_CASE("an inode is short where it has the volume's time and narrow numbers") {
  const Timestamp time{1'700'000'000, 123'456'789};
  TreeBuilder builder;
  builder.root().mtime(time);
  builder.file("short", "x").mtime(time).owner(65535, 65535);
  builder.file("old", "x").mtime({-5, 1});
  builder.file("uid", "x").mtime(time).owner(65536, 0);
  builder.file("gid", "x").mtime(time).owner(0, 65536);
  builder.sparse_file("large", std::uint64_t{1} << 32, {}).mtime(time);
  const BuiltTree built = builder.build();
  const auto image = planned(built);
  CHECK(facts_of(*image)["compact_inode_count"] == "2");
  CHECK(objections(image, built) == "");

  Options options;
  options.inode_times = InodeTimes::build;
  const auto of_build = planned(built, options);
  CHECK(facts_of(*of_build)["compact_inode_count"] == "3");
  CHECK(objections(of_build, built, options) == "");
}

TEST_CASE("dots stand among the names, in the order of the bytes") {
  TreeBuilder builder;
  for (const char* name : {"!", "-", ".!", ".-", "...", "..!", ". ", "/0", "0", "\xff", "\x01"}) {
    if (*name != '/') builder.file(std::string("directory/") + name, name);
  }
  builder.directory("empty");
  const BuiltTree built = builder.build();
  CHECK(objections(planned(built), built) == "");
}

TEST_CASE("a directory of 200,000 names and one of the longest names are found again") {
  TreeBuilder builder;
  for (int i = 0; i < 200'000; ++i) builder.file(fmt::format("wide/{:06}", i), "");
  for (int i = 0; i < 40; ++i) {
    builder.symlink(fmt::format("long/{:02}{}", i, std::string(253, 'n')), std::string(4095, 't'));
  }
  const BuiltTree built = builder.build();
  Options options;
  for (const std::uint32_t block_bytes : {512u, 4096u, 65536u}) {
    options.block_bytes = block_bytes;
    ImageDevice device(planned(built, options), built.store);
    CHECK(erofs::testing::differences(device, built) == "");
  }
}

TEST_CASE("holes of a file are holes, in chunks of its own size") {
  constexpr std::uint64_t kGi = std::uint64_t{1} << 30;
  TreeBuilder builder;
  builder.sparse_file("ends", 10 * kGi + 5, {{0, 4096}, {10 * kGi, 5}});
  builder.sparse_file("odd", 100'000, {{4096, 100}, {50'000, 10}, {99'999, 1}});
  builder.sparse_file("hole", 16 * 1024 * kGi, {});
  builder.sparse_file("no block of it", 8192, {{10, 10}, {5000, 1}});
  const BuiltTree built = builder.build();
  const auto image = planned(built);
  CHECK(facts_of(*image)["chunked_file_count"] == "3");
  CHECK(facts_of(*image)["oldest_linux"] == "5.15");
  CHECK(image->switched_on() ==
        "3 files with holes are stored in chunks, which Linux reads since 5.15");
  CHECK(image->data_at("hole").kind == DataPlacement::Kind::hole);
  CHECK(image->data_at("odd").runs.size() == 3);
  CHECK(load_le<std::uint32_t>(read(image, built, 1024 + 80, 4)) == 4);
  ImageDevice device(image, built.store);
  CHECK(erofs::testing::differences(device, built) == "");

  const BuiltTree dense =
      TreeBuilder{}.sparse_file("no block of it", 8192, {{10, 10}, {5000, 1}}).build();
  CHECK(planned(dense)->switched_on().empty());
  CHECK(facts_of(*planned(dense))["oldest_linux"] == "5.4");
  CHECK(objections(planned(dense), dense) == "");
}

TEST_CASE("attributes that repeat are shared, and others stand in the inode") {
  TreeBuilder builder;
  const std::string label(60, 'l');
  const std::string acl(
      "\2\0\0\0\1\0\6\0\xff\xff\xff\xff\4\0\4\0\xff\xff\xff\xff\x20\0\4\0\xff\xff\xff\xff", 28);
  for (int i = 0; i < 100; ++i) {
    builder.file(fmt::format("labelled {}", i), "x").xattr("security.selinux", label);
  }
  builder.file("own", "x").xattr("user.own", "value").xattr("trusted.t", std::string(65535, 'v'));
  builder.file("acl", "x").xattr("system.posix_acl_access", acl);
  builder.directory("d").xattr("system.posix_acl_default", acl).xattr("user.empty", "");
  for (int i = 0; i < 300; ++i) builder.xattr(fmt::format("user.many{}", i), "1");
  builder.directory("large");
  for (int i = 0; i < 6; ++i) {
    builder.xattr(fmt::format("user.large{}", i), std::string(60'000, static_cast<char>('a' + i)));
  }
  const BuiltTree built = builder.build();
  Options options;
  for (const std::uint32_t block_bytes : {512u, 4096u, 65536u}) {
    options.block_bytes = block_bytes;
    const auto image = planned(built, options);
    CHECK(facts_of(*image)["shared_xattr_count"] == "3");
    CHECK(objections(image, built, options) == "");
  }
}

TEST_CASE("attributes that EROFS has no room for are refused") {
  CHECK_THAT(
      error_of(TreeBuilder{}.file("f", "").xattr("user.big", std::string(65536, 'x')).build()),
      Catch::Contains("f: the attribute user.big is 65536 bytes; those of EROFS end at 65535"));
  CHECK_THAT(error_of(TreeBuilder{}.file("f", "").xattr("system.data", "x").build()),
             Catch::Contains("f: EROFS has no place for the attribute system.data"));
}

TEST_CASE("ends of files are packed behind their inodes, where they fit") {
  TreeBuilder builder;
  for (const std::uint64_t size : std::initializer_list<std::uint64_t>{0, 1, 100, 4000, 4064, 4065,
                                                                       4095, 4096, 4097, 12'000}) {
    builder.patterned_file(fmt::format("{}", size), size);
  }
  builder.sparse_file("sparse", 9000, {{0, 10}, {8500, 20}});
  builder.sparse_file("chunks", 90'000, {{0, 10}});
  const BuiltTree built = builder.build();
  Options options;
  options.tail_packing = true;
  const auto image = planned(built, options);
  CHECK(image->has_derived());
  CHECK(facts_of(*image)["packed_tail_count"] == "6");
  CHECK(image->size_bytes() < planned(built)->size_bytes());
  CHECK(image->data_at("4064").kind == DataPlacement::Kind::embedded);
  CHECK(image->data_at("4065").kind == DataPlacement::Kind::stored);
  CHECK(image->data_at("4097").runs.size() == 2);
  CHECK(objections(image, built, options) == "");
  // The superblock is made of no file.
  for_each_extent(*image, {0, kBlock}, [](const Extent& extent) {
    CHECK(extent.kind != ExtentKind::derived);
    return true;
  });
  for (const std::uint32_t block_bytes : {512u, 65536u}) {
    options.block_bytes = block_bytes;
    CHECK(objections(planned(built, options), built, options) == "");
  }
}

TEST_CASE("equal files share their blocks") {
  TreeBuilder builder;
  const std::string bytes(10'000, 'b');
  builder.file("a", bytes).file("b", bytes).file("c", std::string(10'000, 'c'));
  builder.file("d", bytes).xattr("user.x", std::string(3000, 'x'));
  const BuiltTree built = builder.build();
  for (const bool tails : {false, true}) {
    Options options;
    options.tail_packing = tails;
    auto duplicates = find_duplicates(*built.tree, *built.store);
    REQUIRE(duplicates);
    options.duplicates = std::move(*duplicates);
    const auto image = planned(built, options);
    CHECK(image->data_at("b").runs.front() == image->data_at("a").runs.front());
    CHECK(image->data_at("c").runs.front() != image->data_at("a").runs.front());
    // With its attributes, the last one has no room for its end.
    CHECK(facts_of(*image)["duplicate_file_count"] == (tails ? "1" : "2"));
    CHECK(objections(image, built, options) == "");
  }
}

TEST_CASE("a file that no volume of EROFS has room for is refused") {
  const BuiltTree built = TreeBuilder{}.patterned_file("large", std::uint64_t{1} << 44).build();
  CHECK_THAT(error_of(built),
             Catch::Contains("large would end behind 16.0 TiB, where volumes of EROFS with blocks "
                             "of 4096 end"));
}
