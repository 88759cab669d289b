// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/ext2/plan.h"

#include <catch2/catch.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "fsgen/ext2/testing/judge.h"
#include "fsgen/tree/tree_builder.h"
#include "support/arithmetic.h"
#include "support/sha256.h"
#include "support/testing/bytes.h"
#include "tests/support/foreign_tools.h"
#include "tests/support/hinted_text.h"
#include "tests/support/no_threads.h"
#include "tests/support/temp_dir.h"

using namespace mkvirtfs;
using ext2::Options;
using ext2::Variant;

namespace {

std::shared_ptr<const Image> require_clean(const BuiltTree& built, const Options& options) {
  auto image = ext2::plan(built.tree, options);
  if (!image) FAIL(image.error().what);
  CHECK(ext2::testing::objections(*image, built) == "");
  return *image;
}

std::uint64_t fact(const Image& image, std::string_view name) {
  for (const ImageFact& each : image.facts()) {
    if (each.name == name) return std::get<std::uint64_t>(each.value);
  }
  FAIL("no fact " << name);
  return 0;
}

struct Shape {
  Variant variant;
  std::uint32_t block_bytes;
  std::uint32_t inode_bytes;
};
const std::vector<Shape> kShapes = {
    {Variant::ext2, 1024, 128}, {Variant::ext2, 2048, 256}, {Variant::ext2, 4096, 128},
    {Variant::ext2, 4096, 256}, {Variant::ext3, 1024, 256}, {Variant::ext3, 2048, 128},
    {Variant::ext3, 4096, 256}, {Variant::ext4, 1024, 256}, {Variant::ext4, 2048, 256},
    {Variant::ext4, 4096, 128}, {Variant::ext4, 4096, 256},
};

Options options_of(const Shape& shape) {
  Options options;
  options.variant = shape.variant;
  options.block_bytes = shape.block_bytes;
  options.inode_bytes = shape.inode_bytes;
  return options;
}

std::array<std::byte, 32> digest_of(const BuiltTree& built, const Options& options) {
  const auto image = ext2::plan(built.tree, options);
  REQUIRE(image);
  ImageDevice device(*image, built.store);
  Sha256 sum;
  std::vector<std::byte> bytes(1 << 20);
  for (std::uint64_t at = 0; at < device.geometry().size_bytes; at += bytes.size()) {
    bytes.resize(std::min<std::uint64_t>(1 << 20, device.geometry().size_bytes - at));
    REQUIRE(device.read(at, bytes));
    sum.update(bytes);
  }
  return sum.finish();
}

}  // namespace

TEST_CASE("an empty directory becomes a clean file system in every shape") {
  for (const Shape& shape : kShapes) {
    CAPTURE(static_cast<int>(shape.variant), shape.block_bytes, shape.inode_bytes);
    require_clean(TreeBuilder{}.build(), options_of(shape));
  }
}

TEST_CASE("every kind of node is accepted in every shape", "[one-thread]") {
  TreeBuilder builder;
  builder.file("etc/hostname", "box\n").mode(0600).owner(70000, 80000);
  builder.file("empty", "");
  builder.symlink("fast", std::string(59, 'f')).symlink("slow", std::string(60, 's'));
  builder.hard_link("etc/again", "etc/hostname");
  builder.device("dev/small", 'c', {4, 64}).device("dev/large", 'b', {259, 100000});
  builder.fifo("run/fifo").socket("run/socket");
  builder.file("labelled", "x")
      .xattr("user.comment", "hello")
      .xattr("security.selinux", std::string(36, 'l'));
  builder.file("heavy", "x").xattr("user.big", std::string(600, 'b'));
  builder.patterned_file("large", 20u << 20);
  builder.sparse_file("sparse", std::uint64_t{3} << 30,
                      {{0, 4096}, {1 << 20, 8192}, {std::uint64_t{2} << 30, 5000}});
  builder.sparse_file("hole", 1u << 30, {});
  for (const Shape& shape : kShapes) {
    CAPTURE(static_cast<int>(shape.variant), shape.block_bytes, shape.inode_bytes);
    require_clean(builder.build(), options_of(shape));
  }
}

TEST_CASE("directories of thousands of names are clean in every shape", "[one-thread]") {
  TreeBuilder builder;
  for (int i = 0; i < 6000; ++i)
    builder.file(fmt::format("many/file-with-a-longer-name-{}", i), "");
  for (int i = 0; i < 300; ++i) builder.directory(fmt::format("dirs/{}", i));
  for (const Shape& shape : kShapes) {
    CAPTURE(static_cast<int>(shape.variant), shape.block_bytes, shape.inode_bytes);
    require_clean(builder.build(), options_of(shape));
  }
}

TEST_CASE("the default leaves the larger of 10 % and 64 MiB free") {
  const auto image = require_clean(TreeBuilder{}.file("a", "b").build(), {});
  CHECK(fact(*image, "free_block_count") * 4096 >= 64u << 20);
  CHECK(fact(*image, "free_block_count") * 4096 < 66u << 20);
  CHECK(image->size_bytes() % (1 << 20) == 0);
}

TEST_CASE("ext4 has a journal by default, which gives way") {
  const BuiltTree built = TreeBuilder{}.patterned_file("a", 30u << 20).build();
  Options options;
  options.variant = Variant::ext4;
  CHECK(fact(*require_clean(built, options), "journal_blocks") == 1024);
  options.defaults = Defaults::v0_1;
  CHECK(fact(*require_clean(built, options), "journal_blocks") == 0);
  options.defaults = Defaults::current;
  options.journal = false;
  CHECK(fact(*require_clean(built, options), "journal_blocks") == 0);
  options.journal.reset();
  options.features = {"^has_journal"};
  CHECK(fact(*require_clean(built, options), "journal_blocks") == 0);
  options.features.clear();
  // No room for 4 MiB of journal: the size is taken all the same, and the inodes are there again.
  options.size_bytes = 32u << 20;
  options.block_bytes = 4096;
  const auto image = ext2::plan(built.tree, options);
  if (!image) FAIL(image.error().what);
  CHECK((*image)->gave_way() == "a journal");
  CHECK(fact(**image, "journal_blocks") == 0);
  CHECK(fact(**image, "inode_count") >= 2048);
  CHECK(ext2::testing::objections(*image, built) == "");
  options.journal = true;
  const auto refused = ext2::plan(built.tree, options);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == Errc::does_not_fit);
  CHECK_THAT(refused.error().what,
             Catch::EndsWith("; of what was asked for, the journal takes 4194304 bytes"));
  // Below 2048 blocks there is none, and nothing is said of it.
  options.journal.reset();
  options.size_bytes = 4u << 20;
  const auto small = ext2::plan(TreeBuilder{}.build().tree, options);
  REQUIRE(small);
  CHECK(fact(**small, "journal_blocks") == 0);
  CHECK((*small)->gave_way().empty());
}

TEST_CASE("reserved descriptors are as many as mke2fs has, and never without sparse_super") {
  const BuiltTree built = TreeBuilder{}.file("a", "b").build();
  const auto reserved = [&](const Options& options) {
    const auto image = ext2::plan(built.tree, options);
    if (!image) FAIL(image.error().what);
    const std::vector<Range> blocks = (*image)->structure("reserved_group_descriptors", 0);
    return blocks.empty() ? 0 : blocks.front().length / (*image)->block_bytes();
  };
  Options options;
  options.variant = Variant::ext4;
  options.block_bytes = 4096;
  for (const auto& [size_bytes, blocks] :
       {std::pair{std::uint64_t{64} << 20, 7u}, std::pair{std::uint64_t{1} << 30, 127u},
        std::pair{std::uint64_t{20} << 30, 1024u}, std::pair{std::uint64_t{17} << 40, 0u}}) {
    options.size_bytes = size_bytes;
    CHECK(reserved(options) == blocks);
  }
  options.size_bytes = std::uint64_t{1} << 30;
  require_clean(built, options);
  options.features = {"^resize_inode"};
  CHECK(reserved(options) == 0);
  options.features = {"^sparse_super"};
  CHECK(reserved(options) == 0);
  require_clean(built, options);
  options.features = {"^sparse_super", "resize_inode"};
  CHECK_FALSE(ext2::plan(built.tree, options));
  options.features = {};
  options.defaults = Defaults::v0_1;
  CHECK(reserved(options) == 0);
  for (const Shape& shape : kShapes) {
    CAPTURE(static_cast<int>(shape.variant), shape.block_bytes, shape.inode_bytes);
    Options crossing = options_of(shape);
    crossing.size_bytes = std::uint64_t{300} << 20;
    require_clean(built, crossing);
  }
}

TEST_CASE("inodes follow the size of the file system") {
  const BuiltTree built = TreeBuilder{}.file("a", "b").build();
  struct Row {
    std::uint64_t size_bytes;
    std::uint64_t bytes_per_inode;
  };
  // mke2fs's default, big and huge.
  for (const Row& row : {Row{std::uint64_t{1} << 30, 16384}, Row{std::uint64_t{20} << 30, 16384},
                         Row{std::uint64_t{4} << 40, 32768}, Row{std::uint64_t{16} << 40, 65536}}) {
    CAPTURE(row.size_bytes);
    Options options;
    options.variant = Variant::ext4;
    options.size_bytes = row.size_bytes;
    const auto image = ext2::plan(built.tree, options);
    REQUIRE(image);
    const std::uint64_t wanted = row.size_bytes / row.bytes_per_inode;
    CHECK(fact(**image, "inode_count") >= wanted);
    CHECK(fact(**image, "inode_count") < wanted + wanted / 100);
    CHECK((*image)->gave_way().empty());
  }
  // Size and inodes settle together.
  Options options;
  options.variant = Variant::ext4;
  options.free = FreeBytes{std::uint64_t{20} << 30};
  const auto image = require_clean(built, options);
  CHECK(fact(*image, "inode_count") >= image->size_bytes() / 16384);
  CHECK(fact(*image, "free_block_count") >= (std::uint64_t{20} << 30) / 4096);
  // 20 GiB, their tables, which take a sixty-fourth, and a hundredth for all else.
  CHECK(image->size_bytes() < (std::uint64_t{20} << 30) / 100 * 103);
  std::uint64_t stored = 0;
  for_each_extent(*image, {0, image->size_bytes()}, [&](const Extent& extent) {
    if (extent.kind != ExtentKind::hole) stored += extent.length;
    return true;
  });
  CHECK(stored < 8u << 20);
}

TEST_CASE("inodes that were asked for are there, and those of 0.1 do not follow the size") {
  const BuiltTree built = TreeBuilder{}.file("a", "b").build();
  Options options;
  options.size_bytes = 256 << 20;
  options.bytes_per_inode = 4096;
  CHECK(fact(*require_clean(built, options), "inode_count") == 65536);
  options.bytes_per_inode = 1 << 20;
  CHECK(fact(*require_clean(built, options), "inode_count") < 2000);
  options.bytes_per_inode.reset();
  options.inodes = 60'000;
  CHECK(fact(*require_clean(built, options), "inode_count") >= 60'000);
  options.inodes.reset();
  options.defaults = Defaults::v0_1;
  CHECK(fact(*require_clean(built, options), "inode_count") < 2000);
  options = {};
  options.bytes_per_inode = 2048;
  const auto refused = ext2::plan(built.tree, options);
  REQUIRE_FALSE(refused);
  CHECK_THAT(hinted_text(refused.error()), Catch::StartsWith("bytes-per-inode=2048: a group has"));
}

TEST_CASE("a size that has no room for its inodes has fewer, and says so") {
  const BuiltTree built = TreeBuilder{}.patterned_file("a", 30u << 20).build();
  Options options;
  options.variant = Variant::ext4;
  options.journal = false;
  options.block_bytes = 4096;
  options.size_bytes = (30u << 20) + (400u << 10);
  const auto image = ext2::plan(built.tree, options);
  if (!image) FAIL(image.error().what);
  CHECK_THAT((*image)->gave_way(), Catch::Contains("inodes"));
  CHECK(fact(**image, "free_inode_count") >= 1024);
  CHECK(ext2::testing::objections(*image, built) == "");
  // Not even for the spare ones of 0.1.0, which refused it.
  options.size_bytes = (30u << 20) + (100u << 10);
  require_clean(built, options);
  options.defaults = Defaults::v0_1;
  CHECK_FALSE(ext2::plan(built.tree, options));
}

TEST_CASE("a size that is too small names the smallest that fits, and that one fits",
          "[one-thread]") {
  TreeBuilder builder;
  for (int i = 0; i < 100; ++i) builder.patterned_file(fmt::format("f{}", i), 100'000);
  for (const Shape& shape : kShapes) {
    CAPTURE(static_cast<int>(shape.variant), shape.block_bytes, shape.inode_bytes);
    Options options = options_of(shape);
    options.size_bytes = 1 << 20;
    const auto refused = ext2::plan(builder.build().tree, options);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == Errc::does_not_fit);
    const std::string what = refused.error().what;
    CAPTURE(what);
    const std::string_view before = "the smallest size that fits is ";
    const std::size_t at = what.find(before);
    REQUIRE(at != std::string::npos);
    options.size_bytes = std::stoull(what.substr(at + before.size()));
    const auto image = require_clean(builder.build(), options);
    CHECK(image->size_bytes() == *options.size_bytes);
    options.size_bytes = *options.size_bytes - shape.block_bytes;
    CHECK_FALSE(ext2::plan(builder.build().tree, options));
  }
}

TEST_CASE("an image beyond 16 TiB is clean, and huge only in name", "[one-thread]") {
  Options options;
  options.variant = Variant::ext4;
  options.size_bytes = std::uint64_t{20} << 40;
  const BuiltTree built = TreeBuilder{}.file("a", "b").build();
  const auto image = ext2::plan(built.tree, options);
  REQUIRE(image);
  std::uint64_t stored = 0;
  for_each_extent(**image, {0, (*image)->size_bytes()}, [&](const Extent& extent) {
    if (extent.kind != ExtentKind::hole) stored += extent.length;
    return true;
  });
  CHECK(stored < std::uint64_t{512} << 20);
  require_clean(built, options);
}

TEST_CASE("the judge sees a wrong byte, attribute, name and hole") {
  const BuiltTree source =
      TreeBuilder{}.file("a", "right").sparse_file("s", 1 << 20, {{0, 4096}}).build();
  const auto image = ext2::plan(source.tree, {});
  REQUIRE(image);
  const TempDir directory;
  ImageDevice device(*image, source.store);
  write_image(device, directory / "image");
  const auto seen = [&](const TreeBuilder& other) {
    return ext2::testing::differences(directory / "image", other.build()) != "";
  };
  CHECK_FALSE(seen(TreeBuilder{}.file("a", "right").sparse_file("s", 1 << 20, {{0, 4096}})));
  CHECK(seen(TreeBuilder{}.file("a", "wrong").sparse_file("s", 1 << 20, {{0, 4096}})));
  CHECK(seen(TreeBuilder{}.file("a", "right").mode(0600).sparse_file("s", 1 << 20, {{0, 4096}})));
  CHECK(seen(TreeBuilder{}.file("b", "right").sparse_file("s", 1 << 20, {{0, 4096}})));
  CHECK(seen(TreeBuilder{}.file("a", "right").sparse_file("s", 1 << 20, {{4096, 4096}})));
}

TEST_CASE("hash trees of three levels, with and without large_dir", "[one-thread]") {
  // With 1 KiB blocks and names of 250 bytes a leaf holds three names, an index block 126 leaves.
  TreeBuilder builder;
  for (int i = 0; i < 60'000; ++i) builder.file(fmt::format("deep/{:0250}", i), "");
  for (int i = 0; i < 2'000; ++i) builder.file(fmt::format("two/{:0250}", i), "");
  const BuiltTree built = builder.build();
  Options options;
  options.block_bytes = 1024;
  options.variant = Variant::ext4;
  const auto image = require_clean(built, options);
  CHECK(std::get<std::string>(image->facts()[4].value).find("large_dir") != std::string::npos);
  // ext3 has no large_dir: the directory stays without an index, and right.
  options.variant = Variant::ext3;
  require_clean(built, options);
}

TEST_CASE("a directory with many extents, and one beyond 65000 subdirectories", "[one-thread]") {
  // 8 MiB groups without flex_bg: a directory of 40 MiB crosses several, so it needs more than 4
  // extents.
  TreeBuilder builder;
  for (int i = 0; i < 140'000; ++i) builder.file(fmt::format("big/{:0250}", i), "");
  const BuiltTree big = builder.build();
  Options options;
  options.block_bytes = 1024;
  for (const Variant variant : {Variant::ext2, Variant::ext4}) {
    options.variant = variant;
    require_clean(big, options);
  }
  TreeBuilder parents;
  for (int i = 0; i < 65'100; ++i) parents.directory(fmt::format("d{}", i));
  options = {};
  options.variant = Variant::ext4;
  require_clean(parents.build(), options);
  options.variant = Variant::ext3;
  const auto refused = ext2::plan(parents.build().tree, options);
  REQUIRE_FALSE(refused);
  CHECK(hinted_text(refused.error()) ==
        "the source's root has 65100 subdirectories; ext2 and ext3 end at 31997 [fs=ext4]");
}

TEST_CASE("files with thousands of holes, deep extent trees and triple indirect blocks",
          "[one-thread]") {
  std::vector<Range> runs;
  for (std::uint64_t i = 0; i < 20'000; ++i) runs.push_back({i * 16384, 4096});
  std::vector<Range> far;  // reaches every level of indirect blocks at each block size
  for (const std::uint64_t at :
       {0ull, 40'000ull, 300'000ull, 5'000'000ull, 70'000'000ull, 4'400'000'000ull}) {
    far.push_back({round_down<std::uint64_t>(at, 4096), 9000});
  }
  TreeBuilder builder;
  builder.sparse_file("holes", std::uint64_t{20'000} * 16384, runs);
  builder.sparse_file("far", std::uint64_t{6} << 30, far);
  builder.sparse_file("last", std::uint64_t{15} << 30, {{(std::uint64_t{15} << 30) - 4096, 4096}});
  builder.patterned_file("odd", 1'000'001);
  for (const Shape& shape : kShapes) {
    CAPTURE(static_cast<int>(shape.variant), shape.block_bytes, shape.inode_bytes);
    require_clean(builder.build(), options_of(shape));
  }
}

TEST_CASE("a large file crosses groups and copies of the superblock", "[one-thread]") {
  // Groups are 8 MiB with 1 KiB blocks and 128 MiB with 4 KiB blocks.
  const BuiltTree small =
      TreeBuilder{}.patterned_file("a", 70u << 20).patterned_file("b", 5).build();
  const BuiltTree large =
      TreeBuilder{}.patterned_file("a", 150u << 20).patterned_file("b", 5).build();
  for (const Variant variant : {Variant::ext2, Variant::ext3, Variant::ext4}) {
    Options options;
    options.variant = variant;
    require_clean(large, options);
    options.block_bytes = 1024;
    require_clean(small, options);
    options.features = {"^sparse_super"};
    require_clean(small, options);
  }
}

TEST_CASE("more than 1024 inodes share an attribute set over several blocks", "[one-thread]") {
  TreeBuilder builder;
  for (int i = 0; i < 2500; ++i) {
    builder.file(fmt::format("f{}", i), "x").xattr("security.selinux", std::string(120, 'l'));
  }
  for (const Shape& shape : kShapes) {
    CAPTURE(static_cast<int>(shape.variant), shape.block_bytes, shape.inode_bytes);
    require_clean(builder.build(), options_of(shape));
  }
}

TEST_CASE("POSIX ACLs come back as they were") {
  // Version 2, then entries of tag, permissions and id: user::rw-, user:1000:r--, group::r--,
  // mask::r--, other::---.
  const std::string acl(
      "\2\0\0\0"
      "\1\0\6\0\xff\xff\xff\xff"
      "\2\0\4\0\xe8\3\0\0"
      "\4\0\4\0\xff\xff\xff\xff"
      "\x10\0\4\0\xff\xff\xff\xff"
      "\x20\0\0\0\xff\xff\xff\xff",
      44);
  TreeBuilder builder;
  builder.file("f", "x").mode(0640).xattr("system.posix_acl_access", acl);
  builder.directory("d").xattr("system.posix_acl_default", acl);
  for (const Shape& shape : kShapes) require_clean(builder.build(), options_of(shape));
  const auto refused = ext2::plan(
      TreeBuilder{}.file("bad", "x").xattr("system.posix_acl_access", "nonsense").build().tree, {});
  REQUIRE_FALSE(refused);
  CHECK(hinted_text(refused.error()) ==
        "bad: system.posix_acl_access is not a POSIX ACL of version 2 [no-xattrs]");
}

TEST_CASE("attributes too big for one place are split over inode and block, or refused") {
  TreeBuilder builder;
  builder.file("split", "x")
      .xattr("user.a", std::string(3990, 'a'))
      .xattr("user.b", std::string(40, 'b'));
  Options options;
  options.variant = Variant::ext4;
  require_clean(builder.build(), options);
  options.block_bytes = 1024;
  options.features = {"^ea_inode"};
  const auto refused = ext2::plan(builder.build().tree, options);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == Errc::does_not_fit);
  CHECK_THAT(hinted_text(refused.error()),
             Catch::Contains("split: ") && Catch::EndsWith(" [block-size=4096]"));
}

TEST_CASE("values of attributes that have no room otherwise are files in ext4") {
  TreeBuilder builder;
  const std::string shared(9000, 's');
  builder.file("b/many", "x").owner(7, 8);
  for (std::size_t i = 0; i < 30; ++i) {
    builder.xattr(fmt::format("user.{}", i), std::string(3000 + i, 'v'));
  }
  builder.file("a", "x").xattr("user.first", shared).xattr("user.small", "s");
  builder.file("c", "x").xattr("user.other", shared).xattr("user.empty", "");
  builder.directory("d").xattr("trusted.d", std::string(65536, 'd'));
  // More users than a block may have; the set has a small part in a block, too.
  for (int i = 0; i < 1100; ++i) {
    builder.file(fmt::format("e/{}", i), "")
        .xattr("user.large", std::string(4100, 'l'))
        .xattr("user.middle", std::string(600, 'm'));
  }
  const BuiltTree built = builder.build();
  Options options;
  options.variant = Variant::ext4;
  for (const std::uint32_t block_bytes : {1024u, 4096u}) {
    CAPTURE(block_bytes);
    options.block_bytes = block_bytes;
    options.inode_bytes = 256;
    options.features = {"quota"};
    require_clean(built, options);
    options.inode_bytes = 128;
    options.features = {"^metadata_csum", "ea_inode"};
    require_clean(built, options);
  }
  options = {};
  options.variant = Variant::ext4;
  const auto image = ext2::plan(built.tree, options);
  REQUIRE(image);
  CHECK((*image)->switched_on() ==
        "ea_inode is on, because the extended attributes of a need more than a block; GRUB cannot "
        "read such a volume");
  options.features = {"ea_inode"};
  const auto asked = ext2::plan(built.tree, options);
  REQUIRE(asked);
  CHECK((*asked)->switched_on().empty());
  for (const Variant variant : {Variant::ext2, Variant::ext3}) {
    options = {};
    options.variant = variant;
    const auto refused = ext2::plan(built.tree, options);
    REQUIRE_FALSE(refused);
    CHECK_THAT(hinted_text(refused.error()), Catch::EndsWith(" [fs=ext4]"));
  }
}

TEST_CASE("features of ext4 that can be switched are clean, together and alone") {
  TreeBuilder builder;
  builder.file("a", "x").owner(1000, 100);
  builder.patterned_file("large", 12u << 20).owner(70000, 65536);
  builder.sparse_file("sparse", std::uint64_t{3} << 30, {{0, 4096}, {1 << 30, 8192}});
  builder.symlink("slow", std::string(200, 's')).owner(1, 2);
  builder.file("labelled", "x").xattr("user.a", std::string(500, 'a'));
  // More ids than a block of a quota file has, and some that differ in each byte.
  for (std::uint32_t i = 0; i < 40; ++i) {
    builder.file(fmt::format("of/{}", i), "x").owner(i * 3, i * 0x01010101);
  }
  const BuiltTree built = builder.build();
  const std::vector<std::vector<std::string>> all = {
      {"^flex_bg"},
      {"^extent", "^64bit"},
      {"^extent", "^64bit", "^flex_bg", "^metadata_csum"},
      {"metadata_csum_seed"},
      {"orphan_file"},
      {"orphan_file", "^metadata_csum"},
      {"quota"},
      {"project"},
      {"quota", "project"},
      {"quota", "project", "orphan_file", "ea_inode", "metadata_csum_seed", "^flex_bg"},
      {"quota", "project", "orphan_file", "^extent", "^64bit"},
      {"filetype", "extra_isize", "^bigalloc", "^inline_data"},
  };
  for (const std::vector<std::string>& features : all) {
    for (const std::uint32_t block_bytes : {1024u, 4096u}) {
      CAPTURE(features, block_bytes);
      Options options;
      options.variant = Variant::ext4;
      options.block_bytes = block_bytes;
      options.features = features;
      options.lost_found = block_bytes == 4096;
      const auto image = require_clean(built, options);
      const auto facts = image->facts();
      const auto words = std::ranges::find(facts, "features", &ImageFact::name);
      REQUIRE(words != facts.end());
      const std::string text = " " + std::get<std::string>(words->value) + " ";
      for (const std::string& word : features) {
        const bool off = word.starts_with('^');
        CAPTURE(word, text);
        CHECK(text.contains(" " + word.substr(off ? 1 : 0) + " ") != off);
      }
    }
  }
}

TEST_CASE("a tree needs no lost+found") {
  const BuiltTree built = TreeBuilder{}.file("a", "x").build();
  for (const Shape& shape : kShapes) {
    Options options = options_of(shape);
    options.lost_found = false;
    require_clean(built, options);
    const auto image = ext2::plan(built.tree, options);
    REQUIRE(image);
    CHECK((*image)->data_at("lost+found").kind == DataPlacement::Kind::absent);
    CHECK(fact(**image, "directory_count") == 1);
  }
  // That of the source stays.
  Options options;
  options.lost_found = false;
  require_clean(TreeBuilder{}.directory("lost+found").build(), options);
}

TEST_CASE("the smallest size is the one that a refusal names, and has no default in it") {
  const BuiltTree built = TreeBuilder{}.patterned_file("a", 20u << 20).build();
  for (const Shape& shape : kShapes) {
    CAPTURE(static_cast<int>(shape.variant), shape.block_bytes, shape.inode_bytes);
    Options options = options_of(shape);
    options.smallest = true;
    const auto image = require_clean(built, options);
    CHECK(fact(*image, "free_inode_count") < 4096 / shape.inode_bytes * 8);
    if (shape.variant == Variant::ext4) CHECK(fact(*image, "journal_blocks") == 0);
    options.smallest = false;
    options.size_bytes = image->size_bytes() - shape.block_bytes;
    const auto refused = ext2::plan(built.tree, options);
    REQUIRE_FALSE(refused);
    CHECK_THAT(
        refused.error().what,
        Catch::Contains(fmt::format("the smallest size that fits is {}", image->size_bytes())));
  }
  Options options;
  options.smallest = true;
  CHECK(require_clean(TreeBuilder{}.file("a", "x").build(), options)->size_bytes() < 64u << 10);
  options.variant = Variant::ext4;
  options.journal = true;
  CHECK(fact(*require_clean(built, options), "journal_blocks") == 1024);
}

TEST_CASE("what mke2fs takes as extended options stands in the superblock") {
  Options options;
  options.variant = Variant::ext4;
  options.hash_seed = parse_uuid("d3b07384-d9a0-4c9b-8f6e-1a2b3c4d5e6f");
  options.stride_blocks = 16;
  options.stripe_width_blocks = 48;
  options.on_errors = ext2::OnErrors::remount_read_only;
  TreeBuilder builder;
  for (int i = 0; i < 1000; ++i) builder.file(fmt::format("many/{}", i), "");
  const BuiltTree built = builder.build();
  const auto image = require_clean(built, options);
  const TempDir dir;
  ImageDevice device(image, built.store);
  write_image(device, dir / "image");
  const Ran ran = run_tool({"dumpe2fs", "-h", (dir / "image").string()});
  CHECK_THAT(ran.output, Catch::Contains("d3b07384-d9a0-4c9b-8f6e-1a2b3c4d5e6f"));
  CHECK_THAT(ran.output, Catch::Matches("[^]*RAID stride: +16\n[^]*"));
  CHECK_THAT(ran.output, Catch::Matches("[^]*RAID stripe width: +48\n[^]*"));
  CHECK_THAT(ran.output, Catch::Matches("[^]*Errors behavior: +Remount read-only\n[^]*"));
}

TEST_CASE("times from 1901 to 2446 are kept, others clamped") {
  TreeBuilder builder;
  builder.root().mtime({1'700'000'000, 123'456'789});
  for (const std::int64_t second :
       {-3'000'000'000ll, -2'147'483'648ll, -315'619'200ll, -1ll, 0ll, 2'147'483'647ll,
        2'147'483'648ll, 4'102'444'800ll, 10'737'418'239ll, 10'737'418'240ll, 12'884'901'887ll,
        12'884'901'888ll, 15'000'000'000ll, 20'000'000'000ll}) {
    builder.file(fmt::format("at{}", second), "x").mtime({second, 999'999'999});
  }
  for (const Shape& shape : kShapes) require_clean(builder.build(), options_of(shape));
}

TEST_CASE("a lost+found of the source is used, one that is no directory refused") {
  const BuiltTree built = TreeBuilder{}.file("lost+found/kept", "x").build();
  for (const Shape& shape : kShapes) require_clean(built, options_of(shape));
  const auto refused = ext2::plan(TreeBuilder{}.file("lost+found", "x").build().tree, {});
  REQUIRE_FALSE(refused);
  CHECK_THAT(hinted_text(refused.error()), Catch::Contains("lost+found is not a directory"));
}

TEST_CASE("journals are clean and of the size mke2fs would choose", "[one-thread]") {
  const BuiltTree built = TreeBuilder{}.patterned_file("a", 40u << 20).build();
  for (const Shape& shape : kShapes) {
    if (shape.variant == Variant::ext2) continue;
    CAPTURE(static_cast<int>(shape.variant), shape.block_bytes, shape.inode_bytes);
    Options options = options_of(shape);
    options.journal = true;
    const auto image = require_clean(built, options);
    CHECK(fact(*image, "journal_blocks") >= 1024);
  }
}

TEST_CASE("what the format cannot hold is refused with the path, the limit and the way out") {
  const auto refusal = [](const TreeBuilder& builder, const Options& options) {
    const auto image = ext2::plan(builder.build().tree, options);
    REQUIRE_FALSE(image);
    return hinted_text(image.error());
  };
  Options ext2_1k;
  ext2_1k.block_bytes = 1024;
  CHECK(refusal(TreeBuilder{}.sparse_file("vm/disk.img", std::uint64_t{20} << 30, {}), ext2_1k) ==
        "vm/disk.img is 21474836480 bytes; with 1024-byte blocks files of this variant end at "
        "17247252480 [block-size=4096]");
  CHECK_THAT(refusal(TreeBuilder{}.symlink("l", std::string(1024, 'x')), ext2_1k),
             Catch::Contains("l is a symlink to 1024 bytes"));
  TreeBuilder linked;
  linked.file("a", "x");
  for (int i = 0; i < 65'000; ++i) linked.hard_link(fmt::format("l{}", i), "a");
  CHECK_THAT(refusal(linked, {}),
             Catch::Contains("a has 65001 hard links; ext files end at 65000"));
}

TEST_CASE("a sparse file ends where Linux ends it: what ext2 and ext3 cannot count names ext4") {
  // ext4_max_bitmap_size(), ext2_max_size() and ext4_max_size() of Linux 6.1, in bytes.
  struct Limit {
    Variant variant;
    std::uint32_t block_bytes;
    std::uint64_t most_bytes;
    std::string way;
  };
  const Limit limits[] = {
      {Variant::ext2, 1024, 17'247'252'480, "[block-size=4096]"},
      {Variant::ext3, 2048, 275'415'851'008, "[block-size=4096]"},
      {Variant::ext2, 4096, 2'196'873'666'560, "[fs=ext4]"},
      {Variant::ext3, 4096, 2'196'873'666'560, "[fs=ext4]"},
      {Variant::ext4, 4096, 17'592'186'040'320, "end at 17592186040320"},
      {Variant::ext4, 1024, 4'398'046'510'080, "[block-size=4096]"},
  };
  for (const Limit& limit : limits) {
    CAPTURE(static_cast<int>(limit.variant), limit.block_bytes);
    Options options;
    options.variant = limit.variant;
    options.block_bytes = limit.block_bytes;
    const auto planned = [&](std::uint64_t size_bytes) {
      return ext2::plan(TreeBuilder{}.sparse_file("vm/disk.img", size_bytes, {}).build().tree,
                        options);
    };
    const auto largest = planned(limit.most_bytes);
    if (!largest) FAIL(largest.error().what);
    const auto refused = planned(limit.most_bytes + 1);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == Errc::does_not_fit);
    CHECK_THAT(
        hinted_text(refused.error()),
        Catch::StartsWith(fmt::format("vm/disk.img is {} bytes; with {}-byte blocks files "
                                      "of this variant end at {}",
                                      limit.most_bytes + 1, limit.block_bytes, limit.most_bytes)) &&
            Catch::Contains(limit.way));
  }
}

TEST_CASE("contradictory options are named") {
  const auto refusal = [](const Options& options) {
    const auto image = ext2::plan(TreeBuilder{}.build().tree, options);
    REQUIRE_FALSE(image);
    CHECK(image.error().code == Errc::usage);
    return hinted_text(image.error());
  };
  Options options;
  options.journal = true;
  CHECK_THAT(refusal(options), Catch::Contains("journal: ext2 has no journal [fs=ext3] [fs=ext4]"));
  options = {};
  options.size_bytes = 1 << 20;
  options.free = FreeBytes{1};
  CHECK_THAT(refusal(options), Catch::StartsWith("free: an image of a given size"));
  options = {};
  options.features = {"metadata_csum"};
  CHECK_THAT(refusal(options),
             Catch::Contains("features=metadata_csum: ext2 does not have it [fs=ext4]"));
  options = {};
  options.features = {"encrypt"};
  CHECK_THAT(refusal(options), Catch::Contains("not a feature that can be chosen"));
  options = {};
  options.features = {"huge_file"};
  CHECK(refusal(options) == "features=huge_file: ext2 does not have it [fs=ext4]");
  options.features = {"^filetype"};
  CHECK(refusal(options) == "features=^filetype: ext2 always has it");
  options.variant = Variant::ext4;
  options.features = {"^extent"};
  CHECK(refusal(options) == "features=^extent: 64bit needs extent [features=^extent,^64bit]");
  options.features = {"^metadata_csum", "metadata_csum_seed"};
  CHECK(refusal(options) == "features=metadata_csum_seed: it needs metadata_csum");
  options.features = {"orphan_file"};
  options.journal = false;
  CHECK(refusal(options) == "features=orphan_file: it needs has_journal");
  options = {};
  options.variant = Variant::ext4;
  options.inode_bytes = 128;
  options.features = {"project"};
  CHECK(refusal(options) ==
        "features=project: inodes of 128 bytes have no room for it [inode-size=256]");
  options = {};
  options.smallest = true;
  options.free = FreeBytes{1};
  CHECK_THAT(refusal(options), Catch::StartsWith("free: an image of a given size"));
  options = {};
  options.label = "longer than sixteen";
  CHECK_THAT(refusal(options), Catch::Contains("up to 16 bytes"));
}

TEST_CASE("the same tree and options give the same bytes and identifiers, others do not") {
  const auto digest = [](const TreeBuilder& builder, const Options& options) {
    return digest_of(builder.build(), options);
  };
  TreeBuilder one;
  one.file("a", "1").file("b/c", "2").directory("d");
  TreeBuilder other;
  other.directory("d").file("b/c", "2").file("a", "1");
  Options options;
  options.variant = Variant::ext4;
  const auto same = digest(one, options);
  CHECK(digest(other, options) == same);
  options.label = "x";
  CHECK(digest(one, options) != same);
  options.label = "";
  CHECK(digest(one.file("e", ""), options) != same);
}

TEST_CASE("1 or 2 or 16 threads plan the same image, and so does the caller's alone") {
  // 50,000 names in a batch of directories are worth a thread: here three beside the caller's.
  TreeBuilder builder;
  for (int directory = 0; directory < 16; ++directory) {
    for (int name = 0; name < 10'000; ++name) {
      builder.file(fmt::format("directory-{}/name-{}", directory, name), "");
    }
  }
  const BuiltTree built = builder.build();
  Options options;
  options.inode_bytes = 128;
  options.free = FreeBytes{0};
  options.threads = 1;
  const auto alone = digest_of(built, options);
  for (const unsigned threads : {2U, 16U}) {
    options.threads = threads;
    CHECK(digest_of(built, options) == alone);
  }
  const testing::NoThreads no_threads;
  CHECK(digest_of(built, options) == alone);
}

TEST_CASE("reads of any range equal the whole, and the map says where each byte is",
          "[one-thread]") {
  TreeBuilder builder;
  for (int i = 0; i < 300; ++i)
    builder.patterned_file(fmt::format("d/f{}", i), static_cast<std::uint64_t>(i) * 37);
  builder.sparse_file("s", 1 << 20, {{8192, 100}, {500'000, 5000}});
  const BuiltTree built = builder.build();
  for (const Shape& shape : kShapes) {
    Options options = options_of(shape);
    options.free = FreeBytes{1 << 20};
    const auto image = ext2::plan(built.tree, options);
    REQUIRE(image);
    ImageDevice device(*image, built.store);
    const std::uint64_t size = device.geometry().size_bytes;
    std::vector<std::byte> whole(size);
    REQUIRE(device.read(0, whole));
    std::uint64_t random = 88172645463325252;
    const auto next = [&](std::uint64_t below) {
      random ^= random << 13;
      random ^= random >> 7;
      random ^= random << 17;
      return random % below;
    };
    for (int i = 0; i < 2000; ++i) {
      const std::uint64_t offset = next(size);
      std::vector<std::byte> part(1 + next(std::min<std::uint64_t>(20'000, size - offset)));
      REQUIRE(device.read(offset, part));
      REQUIRE(testing::same_bytes(part, std::span(whole).subspan(offset, part.size())));
      std::uint64_t at = offset;
      for_each_extent(device, {offset, part.size()}, [&](const Extent& extent) {
        REQUIRE(extent.offset == at);
        REQUIRE(extent.length > 0);
        at = extent.end();
        if (extent.kind == ExtentKind::hole) {
          const auto bytes = std::span(whole).subspan(extent.offset, extent.length);
          REQUIRE(testing::all_zero(bytes));
        }
        return true;
      });
      REQUIRE(at == offset + part.size());
    }
  }
}

TEST_CASE("what the source has and no image shows is listed, and the image's bytes stay") {
  const BuiltTree plain = TreeBuilder{}.file("a", "1").build();
  const BuiltTree built = TreeBuilder{}
                              .file("a", "1")
                              .unshown(unshown::kImmutable)
                              .lost_xattrs("system.nfs4_acl")
                              .build();
  const auto image = ext2::plan(built.tree, {});
  const auto without = ext2::plan(plain.tree, {});
  REQUIRE(image);
  REQUIRE(without);
  CHECK((*image)->remark() ==
        "dropped: chattr flags of 1 entry, extended attributes that Linux has no name for, of 1 "
        "entry");
  CHECK((*without)->remark().empty());
  struct Lines final : DifferenceSink {
    bool difference(const Difference& difference) override {
      text += difference.path + " " + difference.what + "\n";
      return true;
    }
    std::string text;
  };
  Lines lines;
  (*image)->differences(lines);
  CHECK(lines.text ==
        "a loses its chattr flags: immutable (i)\n"
        "a loses its extended attributes: system.nfs4_acl\n");
  const auto bytes_of = [](const std::shared_ptr<const Image>& of, const BuiltTree& tree) {
    std::vector<std::byte> bytes(std::min<std::uint64_t>(of->size_bytes(), 1 << 20));
    REQUIRE(ImageDevice(of, tree.store).read(0, bytes));
    return bytes;
  };
  CHECK((*image)->volume_id() == (*without)->volume_id());
  CHECK(bytes_of(*image, built) == bytes_of(*without, plain));
}
