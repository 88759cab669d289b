// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/fat32/plan.h"

#include <catch2/catch.hpp>

#include <fmt/format.h>
#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "fsgen/fat32/fat_image.h"
#include "fsgen/fat32/testing/read_back.h"
#include "fsgen/image/testing/planned.h"
#include "fsgen/tree/tree_builder.h"
#include "support/byte_order.h"
#include "tests/support/hinted_text.h"

using namespace mkvirtfs;
using fat32::Options;
using fat32::Width;

namespace {

using mkvirtfs::testing::facts_of;

constexpr std::uint64_t kMi = 1 << 20;

/// Plans, and has the judges look.
std::map<std::string, std::string> judged(const BuiltTree& built, const Options& options) {
  const auto image = fat32::plan(built.tree, options);
  if (!image) FAIL(image.error().what);
  CHECK(fat32::testing::remarks_of_fsck(*image, built) == "");
  CHECK(fat32::testing::differences(*image, built) == "");
  return facts_of(**image);
}

std::string error_of(const BuiltTree& built, const Options& options) {
  const auto image = fat32::plan(built.tree, options);
  if (image) FAIL("a plan was made");
  return hinted_text(image.error());
}

struct Differences final : DifferenceSink {
  bool difference(const Difference& difference) override {
    text += fmt::format("{} {} {}\n", difference.kind, difference.path, difference.what);
    return true;
  }
  std::string text;
};
std::string differences_of(const Image& image) {
  Differences sink;
  image.differences(sink);
  return sink.text;
}

}  // namespace

TEST_CASE("the width follows from the size") {
  const BuiltTree built = TreeBuilder{}.file("a", "1").build();
  const auto format = [&](std::uint64_t size_bytes) {
    Options options;
    options.size_bytes = size_bytes;
    return judged(built, options)["format"];
  };
  CHECK(format(64 << 10) == "fat12");
  CHECK(format(16 * kMi - 1) == "fat12");
  CHECK(format(16 * kMi) == "fat16");
  CHECK(format(512 * kMi - 1) == "fat16");
  CHECK(format(512 * kMi) == "fat32");
}

TEST_CASE("exactly at the boundaries of the widths") {
  const BuiltTree built = TreeBuilder{}.patterned_file("file", 5000).directory("d").build();
  struct Boundary {
    std::uint32_t clusters;
    Width width;
  };
  for (const auto& [clusters, width] :
       {Boundary{4084, Width::fat12}, Boundary{4085, Width::fat16}, Boundary{65524, Width::fat16},
        Boundary{65525, Width::fat32}}) {
    const fat32::Shape shape{width, 512, 512, width == Width::fat32 ? 0u : 512u};
    const fat32::Layout layout = fat32::layout_of_clusters(shape, clusters);
    Options options;
    options.width = width;
    options.cluster_bytes = 512;
    options.size_bytes = layout.size_bytes();
    auto facts = judged(built, options);
    CHECK(facts["cluster_count"] == fmt::format("{}", clusters));
    CHECK(facts["format"] == fat32::name_of(width));
    CHECK(facts["size_bytes"] == fmt::format("{}", *options.size_bytes));
    // One cluster on the wrong side of it.
    if (width == Width::fat12 || clusters == 65524) {
      *options.size_bytes += 4096;
    } else {
      *options.size_bytes -= 4096;
    }
    CHECK_THAT(error_of(built, options), Catch::Contains("these sizes can"));
  }
}

TEST_CASE("a width that a size cannot have is refused with the sizes that can") {
  const BuiltTree built = TreeBuilder{}.file("a", "1").build();
  Options options;
  options.width = Width::fat32;
  options.size_bytes = 16 * kMi;
  const std::string small = error_of(built, options);
  CHECK_THAT(small, Catch::StartsWith("size=16777216: cannot be FAT32") &&
                        Catch::Contains("from 34089472 "));
  options.width = Width::fat16;
  options.size_bytes = 8192 * kMi;
  CHECK_THAT(error_of(built, options), Catch::Contains("to 21") && Catch::Contains("FAT16"));
  options.cluster_bytes = 65536;
  CHECK_THAT(error_of(built, options), Catch::Contains("clusters of 65536 bytes"));
}

TEST_CASE("without a size there is room to spare") {
  const BuiltTree built = TreeBuilder{}.patterned_file("a", 3 * kMi).build();
  Options options;
  CHECK(judged(built, options)["format"] == "fat16");
  options.width = Width::fat32;
  CHECK(judged(built, options)["size_bytes"] == fmt::format("{}", 69 * kMi));
  options.free = FreeBytes{0};
  // A legal FAT32 has 65,525 clusters: the rest is room, which costs nothing.
  CHECK(judged(built, options)["cluster_count"] >= "65525");
  options.width.reset();
  CHECK(judged(built, options)["format"] == "fat12");
  options.free = FreePercent{1000};
  auto facts = judged(built, options);
  CHECK(std::stoull(facts["size_bytes"]) > 33 * kMi);
  options.free = FreeBytes{1024 * kMi};
  facts = judged(built, options);
  CHECK(facts["format"] == "fat32");
  CHECK(facts["cluster_bytes"] == "4096");
}

TEST_CASE("every sector and cluster size") {
  TreeBuilder builder;
  for (int i = 0; i < 200; ++i) {
    builder.patterned_file(fmt::format("d{}/a file with a long name {}", i % 3, i),
                           static_cast<std::uint64_t>(i) * 37);
  }
  const BuiltTree built = builder.build();
  for (const Width width : {Width::fat12, Width::fat16, Width::fat32}) {
    for (std::uint32_t sector = 512; sector <= 4096; sector *= 2) {
      for (const std::uint32_t cluster : {sector, 4096u, 65536u}) {
        if (sector != 512 && cluster != sector) continue;
        Options options;
        options.width = width;
        options.sector_bytes = sector;
        options.cluster_bytes = cluster;
        options.free = FreeBytes{0};
        CAPTURE(static_cast<int>(width), sector, cluster);
        auto facts = judged(built, options);
        CHECK(facts["cluster_bytes"] == fmt::format("{}", cluster));
      }
    }
  }
}

TEST_CASE("label, volume id and hidden sectors stand where they belong") {
  const BuiltTree built = TreeBuilder{}.file("a", "1").build();
  Options options;
  options.label = "boot disk";
  options.volume_id = fat32::parse_volume_id("1234-abcd");
  options.hidden_sectors = 2048;
  options.size_bytes = 40 * kMi;
  for (const Width width : {Width::fat16, Width::fat32}) {
    options.width = width;
    auto facts = judged(built, options);
    CHECK(facts["label"] == "BOOT DISK");
    CHECK(facts["volume_id"] == "1234-ABCD");
    const auto image = fat32::plan(built.tree, options);
    ImageDevice device(*image, built.store);
    std::vector<std::byte> boot(512);
    REQUIRE(device.read(0, boot));
    const std::size_t at = width == Width::fat32 ? 0x40 : 0x24;
    CHECK(load_le<std::uint32_t>(boot, 0x1C) == 2048);
    CHECK(load_le<std::uint32_t>(boot, at + 3) == 0x1234ABCD);
    CHECK(std::string(reinterpret_cast<const char*>(boot.data() + at + 7), 11) == "BOOT DISK  ");
  }
  for (const char* bad : {"twelve chars", "a/b", "caf\xc3\xa9", " x", "a.b"}) {
    options.label = bad;
    CHECK_THAT(error_of(built, options), Catch::StartsWith("label="));
  }
  CHECK(fat32::volume_id_text(0x00C0FFEE) == "00C0-FFEE");
  CHECK(fat32::parse_volume_id("00c0FFEE") == 0x00C0FFEE);
  for (const char* bad : {"", "1234", "1234-567", "1234+5678", "12345-678", "0x123456"}) {
    CHECK_FALSE(fat32::parse_volume_id(bad));
  }
}

TEST_CASE("patterns make entries hidden, system and read-only, as mtools sees them") {
  const BuiltTree built = TreeBuilder{}
                              .file("IO.SYS", "1")
                              .file("a long name.sys", "2")
                              .file("dos/io.sys", "3")
                              .directory("dos/hidden")
                              .file("dos/hidden/x", "4")
                              .file("locked", "5")
                              .mode(0444)
                              .build();
  Options options;
  const auto plain_id = facts_of(**fat32::plan(built.tree, options))["volume_id"];
  options.hidden = {"*.sys", "/IO.SYS", "dos/hidden/", "x/"};
  options.system = {"/IO.SYS", "none", "none"};
  options.read_only = {"/dos/*"};
  const auto image = fat32::plan(built.tree, options);
  REQUIRE(image);
  CHECK(fat32::testing::remarks_of_fsck(*image, built) == "");
  CHECK(facts_of(**image)["volume_id"] != plain_id);
  std::string unmatched;
  for (const Setting& each : (*image)->unmatched()) {
    unmatched += each.option + "=" + each.value + " ";
  }
  CHECK(unmatched == "fat-hidden=x/ fat-system=none ");
  const auto attributes = fat32::testing::attributes_by_mtools(*image, built);
  CHECK(attributes == std::map<std::string, std::string>{{"IO.SYS", "ASH"},
                                                         {"a long name.sys", "AH"},
                                                         {"dos", ""},
                                                         {"dos/io.sys", "AHR"},
                                                         {"dos/hidden", "HR"},
                                                         {"dos/hidden/x", "A"},
                                                         {"locked", "AR"}});
  options.hidden = {"/"};
  CHECK(error_of(built, options) == "fat-hidden: the pattern \"/\" names nothing");
}

TEST_CASE("what FAT has no word for is left out, counted and listed") {
  const BuiltTree built = TreeBuilder{}
                              .file("file", "1")
                              .symlink("link", "file")
                              .fifo("pipe")
                              .socket("socket")
                              .device("dev/null", 'c', {1, 3})
                              .device("dev/sda", 'b', {8, 0})
                              .file("a:b", "2")
                              .build();
  const auto image = fat32::plan(built.tree, {});
  REQUIRE(image);
  CHECK(fat32::testing::differences(*image, built) == "");
  CHECK((*image)->remark() ==
        "left out: 1 symlink, 2 devices, 2 FIFOs and sockets; 1 name was mapped");
  CHECK(differences_of(**image) ==
        "skipped link is a symlink\n"
        "skipped pipe is a FIFO\n"
        "skipped socket is a socket\n"
        "skipped dev/null is a character device\n"
        "skipped dev/sda is a block device\n"
        "mapped a:b is named a<U+F03A>b\n");
  Options strict;
  strict.symlinks = fat32::Symlinks::error;
  CHECK(error_of(built, strict) ==
        "link is a symlink; FAT has none [symlinks=skip] [symlinks=follow]");
}

TEST_CASE("symlinks are followed inside the source") {
  TreeBuilder builder;
  builder.file("real/file", "bytes").file("real/deep/er", "more").mtime({1'000'000'000, 0});
  builder.symlink("to-file", "real/file").symlink("to-dir", "real").symlink("abs", "/real/file");
  builder.symlink("chain", "to-dir/deep/../file").symlink("real/up", "../other/x");
  builder.file("other/x", "x");
  Options options;
  options.symlinks = fat32::Symlinks::follow;
  const BuiltTree built = builder.build();
  const auto image = fat32::plan(built.tree, options);
  REQUIRE(image);
  // The same tree with copies instead.
  TreeBuilder copies;
  for (const char* place : {"real", "to-dir"}) {
    const std::string at = place;
    copies.file(at + "/file", "bytes").file(at + "/deep/er", "more").mtime({1'000'000'000, 0});
    copies.file(at + "/up", "x");
  }
  copies.file("to-file", "bytes").file("abs", "bytes").file("chain", "bytes");
  copies.file("other/x", "x");
  const BuiltTree expected = copies.build();
  const auto facts = facts_of(**image);
  CHECK(facts.at("followed_symlink_count") == "6");
  CHECK(facts.at("file_count") == "10");
  CHECK(facts.at("directory_count") == "6");
  CHECK(fat32::testing::remarks_of_fsck(*image, built) == "");
  CHECK_THAT(differences_of(**image), Catch::Contains("followed to-dir is a copy of /real\n") &&
                                          Catch::Contains("followed to-dir/up is a copy of "
                                                          "/other/x\n"));
  // Node numbers differ, so the bytes are looked up by what they say.
  std::map<std::string, std::string> files;
  ImageDevice device(*image, built.store);
  for_each_extent(device, {0, device.geometry().size_bytes}, [&](const Extent& extent) {
    if (extent.kind == ExtentKind::content) {
      std::string bytes(extent.length, '\0');
      REQUIRE(device.read(extent.offset, std::as_writable_bytes(std::span(bytes))));
      files[(*image)->describe(extent.offset)] = bytes;
    }
    return true;
  });
  CHECK(files.at("file /to-dir/deep/er at 0") == "more");
  CHECK(files.at("file /to-dir/up at 0") == "x");
  CHECK(files.at("file /chain at 0") == "bytes");
  CHECK(files.size() == 10);
}

TEST_CASE("symlinks that cannot be followed do not fit") {
  const auto follow = [](const char* path, const char* target, bool skip) {
    Options options;
    options.symlinks = fat32::Symlinks::follow;
    options.skip_unfit = skip;
    const BuiltTree built =
        TreeBuilder{}.file("d/f", "1").symlink("d/self", "self").symlink(path, target).build();
    if (skip) {
      const auto image = fat32::plan(built.tree, options);
      REQUIRE(image);
      return differences_of(**image);
    }
    // Without the loop that is always there.
    const BuiltTree alone = TreeBuilder{}.file("d/f", "1").symlink(path, target).build();
    return error_of(alone, options);
  };
  CHECK(follow("l", "nowhere", false) ==
        "l is a symlink to what is not in the source: nowhere [symlinks=skip] [skip-unfit]");
  CHECK(follow("d/l", "../../etc/passwd", false) ==
        "d/l is a symlink that leads out of the source: ../../etc/passwd [symlinks=skip] "
        "[skip-unfit]");
  CHECK_THAT(follow("l", "/etc/passwd", false), Catch::Contains("not in the source"));
  CHECK_THAT(follow("l", "d/f/x", false), Catch::Contains("not in the source"));
  CHECK_THAT(follow("l", "l", false), Catch::Contains("in a circle"));
  CHECK_THAT(follow("d/l", "..", false), Catch::Contains("in a circle"));
  CHECK_THAT(follow("d/l", ".", false), Catch::Contains("in a circle"));
  CHECK_THAT(follow("l", "d/self", true),
             Catch::Contains("skipped d/self is a symlink that leads in a circle\n") &&
                 Catch::Contains("skipped l is a symlink that leads in a circle\n"));
}

TEST_CASE("symlinks that multiply a tree come to an end") {
  TreeBuilder builder;
  for (int level = 0; level < 40; ++level) {
    builder.directory(fmt::format("d{}", level + 1));
    builder.symlink(fmt::format("d{}/a", level), fmt::format("../d{}", level + 1));
    builder.symlink(fmt::format("d{}/b", level), fmt::format("../d{}", level + 1));
  }
  Options options;
  options.symlinks = fat32::Symlinks::follow;
  CHECK_THAT(error_of(builder.build(), options), Catch::Contains("with all symlinks followed") &&
                                                     Catch::EndsWith(" [symlinks=skip] [exclude]"));
}

TEST_CASE("names that are not UTF-8 are escaped, left out, or refused") {
  const BuiltTree built = TreeBuilder{}.file("good:", "1").file("bad\xff", "2").build();
  Options options;
  judged(built, options);
  options.bad_names = fat32::BadNames::skip;
  const auto image = fat32::plan(built.tree, options);
  REQUIRE(image);
  CHECK(differences_of(**image) ==
        "skipped bad\xff has a name that is not UTF-8\nmapped good: is named good<U+F03A>\n");
  options.bad_names = fat32::BadNames::error;
  CHECK(error_of(built, options) == "bad\xff: the name is not UTF-8 [names=escape] [names=skip]");
}

TEST_CASE("names that differ only in case are refused, escaped, or left out") {
  TreeBuilder builder;
  builder.file("README", "1").file("Readme", "2").file("readme", "3").file("ReadMe", "4");
  builder.file("\xc3\x89", "5").file("\xc3\xa9", "6").file("other", "7");
  const BuiltTree built = builder.build();
  Options options;
  CHECK(error_of(built, options)
            .ends_with("differ only in case, FAT would take one for the other "
                       "[case-clashes=escape] [skip-unfit]"));
  options.case_clashes = fat32::CaseClashes::escape;
  judged(built, options);
  const auto skipped_by = [&](const Options& chosen) {
    const auto image = fat32::plan(built.tree, chosen);
    REQUIRE(image);
    return facts_of(**image)["skipped_count"] + " " + facts_of(**image)["file_count"];
  };
  options.case_clashes = fat32::CaseClashes::skip;
  CHECK(skipped_by(options) == "4 3");
  options.case_clashes = fat32::CaseClashes::error;
  options.skip_unfit = true;
  CHECK(skipped_by(options) == "4 3");
}

TEST_CASE("hard links are files of their own with one source") {
  const BuiltTree built = TreeBuilder{}
                              .patterned_file("first", 10'000)
                              .hard_link("second", "first")
                              .hard_link("d/third", "first")
                              .build();
  CHECK(judged(built, {})["file_count"] == "3");
}

TEST_CASE("a file of 4 GiB does not fit, one byte less does") {
  constexpr std::uint64_t kMost = 0xFFFFFFFF;
  const BuiltTree fits = TreeBuilder{}.sparse_file("big", kMost, {{kMost - 5, 5}}).build();
  const auto largest = fat32::plan(fits.tree, {});
  REQUIRE(largest);
  CHECK(fat32::testing::differences(*largest, fits) == "");
  // fsck.fat 4.2 adds up clusters in 32 bits: its largest file is a cluster smaller.
  const BuiltTree almost = TreeBuilder{}.sparse_file("big", kMost - 4096, {{0, 5}}).build();
  CHECK(judged(almost, {})["format"] == "fat32");
  const BuiltTree built =
      TreeBuilder{}.sparse_file("vm/disk.img", kMost + 1, {}).file("small", "1").build();
  CHECK(error_of(built, {}) ==
        "vm/disk.img is 4294967296 bytes; FAT files end at 4294967295 [fs=ext4] [exclude] "
        "[skip-unfit]");
  Options options;
  options.skip_unfit = true;
  const auto image = fat32::plan(built.tree, options);
  REQUIRE(image);
  CHECK(differences_of(**image) == "skipped vm/disk.img is larger than FAT files can be\n");
}

TEST_CASE("a directory has 65,536 slots and no more") {
  // 8.3 names take one slot, "." and ".." two.
  const auto crowd = [](int count, const char* format) {
    TreeBuilder builder;
    for (int i = 0; i < count; ++i) builder.file(fmt::format(fmt::runtime(format), i), "");
    return builder.build();
  };
  Options options;
  options.width = Width::fat32;
  const BuiltTree full = crowd(65534, "d/f{}");
  CHECK(fat32::plan(full.tree, options));
  const BuiltTree over = crowd(65535, "d/f{}");
  CHECK(error_of(over, options) ==
        "d has 65535 entries; with their long names they need more than the 65536 slots of a FAT "
        "directory [fs=ext4] [skip-unfit]");
  const BuiltTree with_long = crowd(32768, "Long{}");
  CHECK(fat32::plan(with_long.tree, options));
  options.label = "x";  // the label takes one too
  CHECK_THAT(error_of(with_long, options),
             Catch::StartsWith("the source's root has 32768 entries"));
  options.skip_unfit = true;
  const auto image = fat32::plan(with_long.tree, options);
  REQUIRE(image);
  CHECK(facts_of(**image)["file_count"] == "32767");
  CHECK(differences_of(**image) == "skipped Long9999 finds its directory full\n");
  // FAT16 counts the root's slots in 16 bits.
  options.width = Width::fat16;
  options.skip_unfit = false;
  options.label.clear();
  CHECK_THAT(error_of(with_long, options), Catch::EndsWith(" [fs=fat32]"));
}

namespace {

BuiltTree files_in_root(int count) {
  TreeBuilder builder;
  for (int i = 0; i < count; ++i) builder.file(fmt::format("f{}", i), "");
  return builder.build();
}

}  // namespace

TEST_CASE("the root directory of FAT12 and FAT16 has room for as much again") {
  const auto slots = [](int files, const Options& options) {
    return judged(files_in_root(files), options)["root_entry_count"];
  };
  Options options;
  options.width = GENERATE(Width::fat12, Width::fat16);
  CHECK(slots(1, options) == "512");
  CHECK(slots(256, options) == "512");
  CHECK(slots(257, options) == "528");
  CHECK(slots(600, options) == "1200");
  options.sector_bytes = 4096;
  CHECK(slots(600, options) == "1280");
  options.sector_bytes = 512;
  // As many as can be counted.
  CHECK(slots(40'000, options) == "65520");
  options.defaults = Defaults::v0_1;
  CHECK(slots(600, options) == "608");
  options.width = Width::fat32;
  CHECK(slots(600, options) == "0");
}

TEST_CASE("room in the root directory gives way where a given size has none for it") {
  const BuiltTree built = files_in_root(600);
  Options options;
  options.width = Width::fat12;
  options.cluster_bytes = 512;
  const fat32::Shape least{Width::fat12, 512, 512, 608};
  options.size_bytes = fat32::layout_of_clusters(least, 1).size_bytes();
  const auto image = fat32::plan(built.tree, options);
  REQUIRE(image);
  CHECK(facts_of(**image)["root_entry_count"] == "608");
  CHECK((*image)->gave_way() == "spare slots of the root directory");
  *options.size_bytes += 600 * 32;
  const auto roomy = fat32::plan(built.tree, options);
  REQUIRE(roomy);
  CHECK(facts_of(**roomy)["root_entry_count"] == "1200");
  CHECK((*roomy)->gave_way() == "");
}

TEST_CASE("a size that is a diskette's has its geometry, or is refused") {
  Options options;
  options.size_bytes = 1440 << 10;
  CHECK(judged(files_in_root(224), options)["root_entry_count"] == "224");
  const BuiltTree crowded = files_in_root(225);
  CHECK(error_of(crowded, options) ==
        "size=1474560: a diskette of 1440 KiB has 224 slots in its root directory, and the source "
        "needs 225 [another size]");
  options.width = Width::fat12;
  CHECK_THAT(error_of(crowded, options), Catch::Contains("a diskette of 1440 KiB"));
  options.defaults = Defaults::v0_1;
  CHECK(judged(crowded, options)["root_entry_count"] == "512");
  // What no diskette has is no diskette.
  options.defaults = Defaults::current;
  options.cluster_bytes = 1024;
  CHECK(judged(crowded, options)["root_entry_count"] == "512");
  options.cluster_bytes = 0;
  // Smaller clusters would do.
  TreeBuilder builder;
  for (int i = 0; i < 354; ++i) builder.file(fmt::format("d/{}", i), "x");
  options.size_bytes = 360 << 10;
  CHECK(error_of(builder.build(), options) ==
        "size=368640: a diskette of 360 KiB has 354 clusters of 1024 bytes, and the source needs "
        "366 [another size]");
}

TEST_CASE("a volume beyond 2 TiB is refused, or has larger sectors") {
  TreeBuilder builder;
  for (int i = 0; i < 600; ++i) builder.sparse_file(fmt::format("f{}", i), 0xFFFFFFFF, {});
  const BuiltTree built = builder.build();
  Options options;
  CHECK_THAT(error_of(built, options),
             Catch::EndsWith("ends at 2.0 TiB [fs=ext4] [sector-size=4096]"));
  options.sector_bytes = 4096;
  const auto image = fat32::plan(built.tree, options);
  REQUIRE(image);
  CHECK((*image)->size_bytes() > std::uint64_t{2400} << 30);
}

TEST_CASE("a given size is filled by its volume, or refused with what would fill it") {
  constexpr std::uint64_t kTi = std::uint64_t{1} << 40;
  const BuiltTree built = TreeBuilder{}.file("a", "1").build();
  const std::uint64_t sizes[] = {kTi - 4096, kTi + 64 * kMi, 2 * kTi - 512, 2 * kTi,
                                 3 * kTi,    5 * kTi,        8 * kTi,       9 * kTi,
                                 12 * kTi,   15 * kTi,       17 * kTi};
  std::size_t planned_count = 0;
  std::size_t refused_count = 0;
  for (const std::uint64_t size_bytes : sizes) {
    for (const std::uint32_t sector_bytes : {512U, 1024U, 2048U, 4096U}) {
      for (const std::uint32_t cluster_bytes : {0U, 4096U, 32768U, 65536U}) {
        CAPTURE(size_bytes, sector_bytes, cluster_bytes);
        Options options;
        options.size_bytes = size_bytes;
        options.sector_bytes = sector_bytes;
        options.cluster_bytes = cluster_bytes;
        const auto image = fat32::plan(built.tree, options);
        if (!image) {
          ++refused_count;
          CHECK(image.error().code == Errc::does_not_fit);
          CHECK_THAT(hinted_text(image.error()), Catch::Contains("[fs=ext4]"));
          continue;
        }
        ++planned_count;
        auto facts = facts_of(**image);
        const std::uint64_t in_clusters =
            std::stoull(facts["cluster_count"]) * std::stoull(facts["cluster_bytes"]);
        const std::uint64_t around = (std::stoull(facts["reserved_sector_count"]) +
                                      2 * std::stoull(facts["fat_sector_count"])) *
                                     sector_bytes;
        // Less than a cluster is left behind the volume, and what its part of the FATs would take.
        CHECK(in_clusters + around <= size_bytes);
        CHECK(size_bytes - in_clusters - around <
              std::stoull(facts["cluster_bytes"]) + 2 * std::uint64_t{sector_bytes} + 4096);
      }
    }
  }
  CHECK(planned_count > 40);
  CHECK(refused_count > 40);
}

TEST_CASE("FAT beyond 2 TiB names larger sectors and larger clusters") {
  constexpr std::uint64_t kTi = std::uint64_t{1} << 40;
  const BuiltTree built = TreeBuilder{}.file("a", "1").build();
  const auto refusal = [&](std::uint64_t size_bytes, std::uint32_t sector_bytes,
                           std::uint32_t cluster_bytes) {
    Options options;
    options.size_bytes = size_bytes;
    options.sector_bytes = sector_bytes;
    options.cluster_bytes = cluster_bytes;
    return error_of(built, options);
  };
  CHECK_THAT(refusal(3 * kTi, 512, 0),
             Catch::Contains("size=3298534883328: cannot be FAT: ") &&
                 Catch::Contains("to 2199023251456 (2.0 TiB) [fs=ext4] [sector-size=4096]"));
  CHECK_THAT(refusal(12 * kTi, 512, 0),
             Catch::EndsWith("[fs=ext4] [sectors of 4096 bytes with clusters of 65536]"));
  CHECK_THAT(refusal(12 * kTi, 4096, 0), Catch::EndsWith("[fs=ext4] [cluster-size=65536]"));
  CHECK_THAT(refusal(3 * kTi / 2, 512, 4096), Catch::EndsWith("[fs=ext4] [cluster-size=65536]"));
  CHECK_THAT(refusal(17 * kTi, 4096, 65536), Catch::EndsWith("[fs=ext4]"));
}

TEST_CASE("an exact size that is too small names the smallest that fits") {
  const BuiltTree built = TreeBuilder{}.patterned_file("a", 3 * kMi).build();
  Options options;
  options.size_bytes = 2 * kMi;
  const std::string error = error_of(built, options);
  CHECK_THAT(error, Catch::Contains("size=2097152: too small; the smallest size that fits is"));
  const std::string number = error.substr(error.find("fits is ") + 8);
  options.size_bytes = std::stoull(number);
  judged(built, options);
  --*options.size_bytes;
  CHECK_THAT(error_of(built, options), Catch::Contains("too small"));
}

TEST_CASE("a quarter of a million names have short names in no time") {
  const auto names = [](int count) {
    TreeBuilder builder;
    for (int i = 0; i < count; ++i) {
      builder.file(fmt::format("directory {}/document number {:06}.text", i / 16'000, i), "");
    }
    return builder.build();
  };
  const BuiltTree many = names(250'000);
  const auto start = std::chrono::steady_clock::now();
  CHECK(fat32::plan(many.tree, {}));
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  // It takes a fifth of a second; sanitizers and busy machines have their share.
  CHECK(elapsed.count() < 10);
  // That they are unique, the reader sees.
  const BuiltTree some = names(16'000);
  CHECK(fat32::testing::differences(*fat32::plan(some.tree, {}), some) == "");
}

TEST_CASE("short names avoid those that the source has") {
  TreeBuilder builder;
  for (int i = 1; i < 30; ++i) builder.file(fmt::format("LONGNA~{}.TXT", i), "");
  for (int i = 0; i < 300; ++i) builder.file(fmt::format("long name {}.txt", i), "");
  builder.file("LongNa~7.txt2", "").file("longna~200.txt", "");
  judged(builder.build(), {});
}

TEST_CASE("2 TiB of tree take a few megabytes to place") {
  TreeBuilder builder;
  for (int i = 0; i < 200'000; ++i) {
    builder.sparse_file(fmt::format("d{}/f{}", i / 1000, i), 10'000'000, {});
  }
  const BuiltTree built = builder.build();
  const std::size_t before = ::mallinfo2().uordblks + ::mallinfo2().hblkhd;
  const auto image = fat32::plan(built.tree, {});
  const std::size_t after = ::mallinfo2().uordblks + ::mallinfo2().hblkhd;
  REQUIRE(image);
  CHECK((*image)->size_bytes() > 2'000'000'000'000);
  CAPTURE(after - before);
  CHECK(after - before < 20'000'000);
}

TEST_CASE("an image depends on the tree and the options alone") {
  const auto id = [](const TreeBuilder& builder, const Options& options) {
    return (*fat32::plan(builder.build().tree, options))->volume_id();
  };
  TreeBuilder one;
  one.file("a", "1").file("b/c", "2").directory("d");
  TreeBuilder other;
  other.directory("d").file("b/c", "2").file("a", "1");
  Options options;
  const std::string same = id(one, options);
  CHECK(id(other, options) == same);
  options.label = "x";
  CHECK(id(one, options) != same);
  options.label = "";
  options.time_zone.offset_minutes = 60;
  CHECK(id(one, options) != same);
  options.time_zone.offset_minutes = 0;
  CHECK(id(one.file("e", ""), options) != same);
}

TEST_CASE("reads of any range equal the whole, and the map says where each byte is") {
  TreeBuilder builder;
  for (int i = 0; i < 300; ++i) {
    builder.patterned_file(fmt::format("d/A file of {}", i), static_cast<std::uint64_t>(i) * 37);
  }
  builder.sparse_file("s", 1 << 20, {{8192, 100}, {500'000, 5000}});
  const BuiltTree built = builder.build();
  for (const Width width : {Width::fat12, Width::fat16, Width::fat32}) {
    Options options;
    options.width = width;
    options.free = FreeBytes{1 << 20};
    const auto image = fat32::plan(built.tree, options);
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
      // Half of them where the metadata is.
      const std::uint64_t offset = next(i % 2 == 0 ? size : std::min<std::uint64_t>(size, 900'000));
      std::vector<std::byte> part(1 + next(std::min<std::uint64_t>(20'000, size - offset)));
      REQUIRE(device.read(offset, part));
      REQUIRE(std::ranges::equal(part, std::span(whole).subspan(offset, part.size())));
      std::uint64_t at = offset;
      for_each_extent(device, {offset, part.size()}, [&](const Extent& extent) {
        REQUIRE(extent.offset == at);
        REQUIRE(extent.length > 0);
        at = extent.end();
        if (extent.kind == ExtentKind::hole) {
          const auto bytes = std::span(whole).subspan(extent.offset, extent.length);
          REQUIRE(std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; }));
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
  const auto image = fat32::plan(built.tree, {});
  const auto without = fat32::plan(plain.tree, {});
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
