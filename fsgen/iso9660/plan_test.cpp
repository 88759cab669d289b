// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/iso9660/plan.h"

#include <catch2/catch.hpp>

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "fsgen/image/duplicates.h"
#include "fsgen/image/patched_image.h"
#include "fsgen/image/testing/planned.h"
#include "fsgen/iso9660/testing/judges.h"
#include "fsgen/tree/tree_builder.h"
#include "support/byte_order.h"
#include "tests/support/foreign_tools.h"
#include "tests/support/hinted_text.h"

using namespace mkvirtfs;
using iso9660::Boot;
using iso9660::Options;

namespace {

using mkvirtfs::testing::facts_of;
using mkvirtfs::testing::read;

constexpr std::uint64_t kBlock = 2048;
constexpr std::uint64_t kGi = std::uint64_t{1} << 30;

std::shared_ptr<const PlannedImage> planned(const BuiltTree& built, const Options& options) {
  auto image = iso9660::plan(built.tree, options);
  if (!image) FAIL(image.error().what);
  return *image;
}

std::string error_of(const BuiltTree& built, const Options& options) {
  const auto image = iso9660::plan(built.tree, options);
  if (image) FAIL("a plan was made");
  return hinted_text(image.error());
}

std::string text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// The extents of the files, by what lies in them.
std::map<std::string, Extent> contents_of(const Image& image) {
  std::map<std::string, Extent> contents;
  for_each_extent(image, {0, image.size_bytes()}, [&](const Extent& extent) {
    if (extent.kind == ExtentKind::content) contents[image.describe(extent.offset)] = extent;
    return true;
  });
  return contents;
}

}  // namespace

TEST_CASE("a deep tree is relocated, and the source again to all judges") {
  TreeBuilder builder;
  std::string path = "1";
  for (std::size_t level = 2; level <= 30; ++level) {
    path += fmt::format("/{}", level);
    builder.file(path + "/file", path).mode(0640).owner(7, 8).mtime({1'700'000'000, 0});
    builder.symlink(path + "/link", "../../" + std::string(level, 'x') + "/./..//y/");
  }
  const BuiltTree built = builder.build();
  for (const auto deep : {iso9660::DeepDirectories::relocate, iso9660::DeepDirectories::keep}) {
    Options options;
    options.deep = deep;
    const auto image = planned(built, options);
    CHECK((facts_of(*image)["relocated_directory_count"] == "0") ==
          (deep == iso9660::DeepDirectories::keep));
    CHECK(iso9660::testing::objections(image, built) == "");
    CHECK(iso9660::testing::differences_by_xorriso(image, built) == "");
    CHECK(iso9660::testing::differences_by_bsdtar(image, built) == "");
  }
}

TEST_CASE("what is left to applications is blank in all descriptors, or zero as in 0.1") {
  const BuiltTree built = TreeBuilder{}.file("a", "1").build();
  Options options;
  for (const std::byte unused : {std::byte{' '}, std::byte{0}}) {
    for (const std::uint64_t block : {16u, 17u}) {
      const auto bytes = read(planned(built, options), built, block * kBlock + 882, 514);
      CHECK(bytes.front() == std::byte{0});
      CHECK(bytes.back() == std::byte{0});
      CHECK(std::ranges::count(bytes, unused) >= 512);
    }
    options.application_use = std::byte{0};
  }
}

TEST_CASE("the place of relocated directories must be free") {
  const BuiltTree built =
      TreeBuilder{}.file("1/2/3/4/5/6/7/8/file", "x").file("rr_moved/x", "").build();
  Options relocate;
  relocate.deep = iso9660::DeepDirectories::relocate;
  CHECK(error_of(built, relocate) ==
        "rr_moved is where readers look for directories deeper than 8 levels, such as "
        "1/2/3/4/5/6/7/8 [another name for it] [deep-directories=keep]");
  CHECK(planned(built, {}));
  CHECK(planned(TreeBuilder{}.file("1/2/3/4/5/6/7/file", "x").file("rr_moved/x", "").build(),
                relocate));
}

TEST_CASE("paths of more than 255 characters are relocated, too") {
  std::string path;
  for (int level = 0; level < 7; ++level) path += std::string(31, 'd') + "/";
  const auto relocated = [&](std::size_t name_bytes) {
    const BuiltTree built = TreeBuilder{}.file(path + std::string(name_bytes, 'f'), "x").build();
    Options options;
    options.deep = iso9660::DeepDirectories::relocate;
    const auto image = planned(built, options);
    CHECK(iso9660::testing::differences_by_xorriso(image, built) == "");
    return facts_of(*image)["relocated_directory_count"];
  };
  // 7 * 32 characters before a name of 28 and ".;1".
  CHECK(relocated(28) == "0");
  CHECK(relocated(29) == "1");
}

TEST_CASE("long names and targets take continuations") {
  TreeBuilder builder;
  for (std::size_t i = 0; i < 40; ++i) {
    builder.file(fmt::format("{:03}{}", i, std::string(252, 'n')), fmt::format("{}", i));
    builder.symlink(fmt::format("link-{}", i), std::string(23 * i + 1, 'a') + "/b//c");
  }
  for (std::size_t i = 100; i < 256; ++i) builder.file(std::string(i, 'a'), "");
  const BuiltTree built = builder.build();
  const auto image = planned(built, {});
  CHECK(std::stoul(facts_of(*image)["continuation_block_count"]) > 10);
  CHECK(iso9660::testing::objections(image, built) == "");
  CHECK(iso9660::testing::differences_by_xorriso(image, built) == "");
}

TEST_CASE("targets are there slash by slash") {
  // In one record: bsdtar 3.6 loses a slash where the next begins; xorriso makes one of many.
  TreeBuilder builder;
  for (std::size_t i = 1; i < 40; ++i) {
    builder.symlink(fmt::format("slashes-{}", i), std::string(i, '/'));
    builder.symlink(fmt::format("dots-{}", i), std::string(i, '.') + "/../.");
    builder.symlink(fmt::format("ends-{}", i), std::string(5 * i, 'e') + "/");
    builder.symlink(fmt::format("root-{}", i), "/" + std::string(5 * i, 'e') + "//x");
  }
  const BuiltTree built = builder.build();
  CHECK(iso9660::testing::differences_by_bsdtar(planned(built, {}), built) == "");
}

TEST_CASE("a file of 4 GiB and a byte has two sections, and its holes") {
  const BuiltTree built = TreeBuilder{}
                              .sparse_file("big", 4 * kGi + 1, {{4096, 10}, {4 * kGi - 5, 6}})
                              .patterned_file("after", 5000)
                              .build();
  Options options;
  const auto image = planned(built, options);
  const auto files = contents_of(*image);
  REQUIRE(files.contains("file /big at 4096"));
  REQUIRE(files.contains(fmt::format("file /big at {}", 4 * kGi - 5)));
  CHECK(files.at(fmt::format("file /big at {}", 4 * kGi - 5)).length == 6);
  CHECK(facts_of(*image)["entry_count"] == "2");
  const UniqueFd file(::memfd_create("image", MFD_CLOEXEC));
  ImageDevice device(image, built.store);
  write_image(device, file);
  const std::string path = fmt::format("/proc/{}/fd/{}", ::getpid(), file.get());
  const Ran listed =
      run_tool({"xorriso", "-indev", "stdio:" + path, "-find", "/", "-exec", "lsdl"});
  CHECK_THAT(listed.output, Catch::Contains(" 4294967297 "));
  CHECK_THAT(run_tool({"bsdtar", "-tvf", path}).output, Catch::Contains(" 4294967297 "));
  options.level = 2;
  CHECK(error_of(built, options) ==
        "big is 4294967297 bytes; files of ISO 9660 level 2 end at 4294967295 [iso-level=3]");
}

TEST_CASE("what a volume cannot reach is refused by name") {
  const BuiltTree built =
      TreeBuilder{}.sparse_file("a", 5000 * kGi, {}).sparse_file("dir/b", 5000 * kGi, {}).build();
  CHECK(error_of(built, {}) ==
        "dir/b would end behind 8.0 TiB, where ISO 9660 volumes end [fs=ext4]");
}

TEST_CASE("hard links share an extent, and equal files where that is asked for") {
  const BuiltTree built = TreeBuilder{}
                              .patterned_file("a", 5000)
                              .hard_link("b", "a")
                              .file("c", "same bytes")
                              .file("d", "same bytes")
                              .file("e", "same bytez")
                              .file("empty-1", "")
                              .file("empty-2", "")
                              .device("null", 'c', {1, 3})
                              .device("disk", 'b', {4095, 255})
                              .fifo("fifo")
                              .socket("socket")
                              .sparse_file("s", 8192, {})
                              .file("z", std::string(8192, '\0'))
                              .build();
  Options options;
  const std::uint64_t plain = planned(built, options)->size_bytes();
  const auto duplicates = find_duplicates(*built.tree, *built.store);
  REQUIRE(duplicates);
  REQUIRE(duplicates->size() == 2);
  options.duplicates = *duplicates;
  const auto image = planned(built, options);
  CHECK(plain - image->size_bytes() == kBlock + 8192);
  CHECK(iso9660::testing::objections(image, built) == "");
  CHECK(iso9660::testing::differences_by_xorriso(image, built) == "");
}

TEST_CASE("fields and dates of the volume") {
  const BuiltTree built = TreeBuilder{}.file("License.txt", "x").mtime({1'600'000'000, 0}).build();
  Options options;
  options.label = "A label of up to 32 characters";
  options.fields = {{iso9660::Field::publisher, "Somebody"},
                    {iso9660::Field::copyright, "License.txt"}};
  const auto image = planned(built, options);
  const auto primary = read(image, built, 16 * kBlock, kBlock);
  const auto joliet = read(image, built, 17 * kBlock, kBlock);
  CHECK(text(std::span(primary).subspan(40, 32)) == "A label of up to 32 characters  ");
  CHECK(text(std::span(joliet).subspan(40, 8)) == std::string("\0A\0 \0l\0a", 8));
  CHECK(text(std::span(primary).subspan(318, 10)) == "Somebody  ");
  CHECK(text(std::span(primary).subspan(702, 15)) == "LICENSE.TXT;1  ");
  CHECK(text(std::span(primary).subspan(813, 16)) == "2020091312264000");
  CHECK(image->volume_id() == "2020-09-13-12-26-40-00");
  CHECK(load_le<std::uint32_t>(primary, 80) * kBlock == image->size_bytes());
  CHECK(load_be<std::uint32_t>(primary, 84) * kBlock == image->size_bytes());

  options.made_at_s = 0;
  CHECK(planned(built, options)->volume_id() == "1970-01-01-00-00-00-00");
  options.volume_time = iso9660::parse_volume_time("2026-01-31-23-59-59-99");
  CHECK(planned(built, options)->volume_id() == "2026-01-31-23-59-59-99");
  CHECK_FALSE(iso9660::parse_volume_time("2026-01-31-23-59-59:99"));
  CHECK_FALSE(iso9660::parse_volume_time("2026-01-31"));

  options.fields = {{iso9660::Field::abstract, "missing"}};
  CHECK(error_of(built, options) ==
        "volume-field=abstract=missing: it must name a file in the source's root");
  options.fields = {{iso9660::Field::system, std::string(33, 'x')}};
  CHECK_THAT(error_of(built, options), Catch::Contains("up to 32 characters"));
  options.fields.clear();
  options.label = std::string(33, 'x');
  CHECK_THAT(error_of(built, options), Catch::Contains("up to 32 characters"));
  options.label = "caf\xC3\xA9";
  CHECK_THAT(error_of(built, options), Catch::Contains("ASCII"));
  options.label.clear();
  options.level = 4;
  CHECK_THAT(error_of(built, options), Catch::Contains("iso-level=4: "));
}

TEST_CASE("padding fills 32 KiB") {
  const BuiltTree built = TreeBuilder{}.file("a", "x").build();
  Options options;
  const std::uint64_t plain = planned(built, options)->size_bytes();
  CHECK(plain % 32768 != 0);
  options.pad = true;
  CHECK(planned(built, options)->size_bytes() % 32768 == 0);
  CHECK(planned(built, options)->size_bytes() - plain < 32768);
}

TEST_CASE("a boot file can stand last, up to the end of the volume") {
  const auto built = TreeBuilder{}
                         .file("a", "1")
                         .patterned_file("efi.img", 5000)
                         .patterned_file("z", 3000)
                         .build();
  Options options;
  options.boot.files = {{.path = "efi.img", .align_blocks = 16, .is_last = true}};
  options.boot.catalog = true;
  const auto image = plan(built.tree, options);
  REQUIRE(image);
  const auto at = (*image)->data_at("efi.img").find(0);
  REQUIRE(at);
  CHECK(*at % (16 * 2048) == 0);
  CHECK(*at > (*image)->data_at("z").find(0));
  const std::vector<Range> volume = (*image)->structure(structures::kVolume);
  REQUIRE(volume.size() == 1);
  CHECK(volume.front().end() == *at + 3 * 2048);
  const auto bytes = read(*image, built, *at, 5000);
  std::vector<std::byte> expected(5000);
  const Node* const node = built.tree->find_path("efi.img");
  REQUIRE(built.store->read(content_no(built.tree->number_of(*node)), 0, expected));
  CHECK(std::ranges::equal(bytes, expected));
}

TEST_CASE("boot files stand first, and boot code has the last word") {
  const BuiltTree built = TreeBuilder{}
                              .patterned_file("a", 10000)
                              .patterned_file("boot/loader", 5000)
                              .patterned_file("efi.img", 100000)
                              .build();
  Options options;
  options.boot.files = {{"boot/loader", 1}, {"efi.img", 512}};
  options.boot.catalog = true;
  options.boot.tail_bytes = 5000;
  const auto image = planned(built, options);
  const DataPlacement loader_at = image->data_at("boot/loader");
  REQUIRE(loader_at.runs.size() == 1);
  CHECK(loader_at.size_bytes == 5000);
  const std::uint64_t loader_offset = *loader_at.find(0);
  const std::uint64_t efi_offset = *image->data_at("efi.img").find(0);
  CHECK(loader_offset < efi_offset);
  CHECK(efi_offset < *image->data_at("a").find(0));
  CHECK(efi_offset % (512 * kBlock) == 0);
  const std::vector<Range> catalogue = image->structure("boot_catalogue");
  REQUIRE(catalogue.size() == 1);
  CHECK(catalogue.front().length == kBlock);
  const std::vector<Range> tail = image->structure(structures::kTail);
  REQUIRE(tail.size() == 1);
  CHECK(tail.front().length == 3 * kBlock);
  CHECK(tail.front().end() == image->size_bytes());
  CHECK(image->structure(structures::kVolume) == std::vector<Range>{{0, tail.front().offset}});
  // The catalogue's address is in the boot record.
  const std::vector<Range> record_at = image->structure("boot_record");
  REQUIRE(record_at == std::vector<Range>{{17 * kBlock, kBlock}});
  const auto record = read(image, built, record_at.front().offset, kBlock);
  CHECK(text(std::span(record).subspan(7, 23)) == "EL TORITO SPECIFICATION");
  CHECK(load_le<std::uint32_t>(record, 71) * kBlock == catalogue.front().offset);

  const auto bytes = [](std::size_t size, int value) {
    return std::vector<std::byte>(size, static_cast<std::byte>(value));
  };
  const auto booting = patched(image, {{loader_offset + 8, bytes(56, 1), "boot information table"},
                                       {0, bytes(432, 2), "boot code"},
                                       {catalogue.front().offset, bytes(kBlock, 3), "catalogue"},
                                       {tail.front().offset, bytes(100, 4), "appended"}});
  REQUIRE(booting);
  const auto value_at = [&](std::uint64_t offset) {
    return std::to_integer<int>(read(*booting, built, offset, 1)[0]);
  };
  CHECK(value_at(0) == 2);
  CHECK(value_at(431) == 2);
  CHECK(value_at(432) == 0);
  CHECK(value_at(catalogue.front().end() - 1) == 3);
  CHECK(value_at(tail.front().offset + 99) == 4);
  CHECK(value_at(tail.front().offset + 100) == 0);
  const auto loader = read(*booting, built, loader_offset, 5000);
  std::vector<std::byte> want(5000);
  const auto no = *find_node(*built.tree, "boot/loader");
  REQUIRE(built.store->read(content_no(no), 0, want));
  std::fill_n(want.begin() + 8, 56, std::byte{1});
  CHECK(loader == want);

  options.boot.align_bytes = 1u << 20;
  const auto aligned = planned(built, options);
  CHECK(aligned->size_bytes() % (1u << 20) == 0);
  CHECK(aligned->structure(structures::kVolume) == image->structure(structures::kVolume));
  CHECK(aligned->structure(structures::kTail).front().offset == tail.front().offset);
  CHECK(aligned->structure(structures::kTail).front().end() == aligned->size_bytes());
  CHECK(aligned->size_bytes() - image->size_bytes() < (1u << 20));

  options.boot.files = {{"boot", 1}};
  CHECK_THAT(error_of(built, options), Catch::Contains("boot is not a file with bytes"));
}

TEST_CASE("every way to read gives the same bytes") {
  TreeBuilder builder;
  for (std::size_t i = 0; i < 300; ++i) {
    builder.file(fmt::format("{}{}", i, std::string(i % 250, 'x')), std::string(i * 37, 'y'));
  }
  const BuiltTree built = builder.build();
  const auto image = planned(built, {});
  const auto whole = read(image, built, 0, image->size_bytes());
  ImageDevice device(image, built.store);
  CHECK(device.geometry().preferred_block_bytes == kBlock);
  std::vector<std::byte> pieces(whole.size());
  std::size_t step = 1;
  for (std::size_t at = 0; at < whole.size(); at += step, step = step * 5 % 7919 + 1) {
    const auto part = std::span(pieces).subspan(at).first(std::min(step, whole.size() - at));
    REQUIRE(device.read(at, part));
  }
  CHECK(std::equal(whole.begin(), whole.end(), pieces.begin()));
}

TEST_CASE("65,536 directories, and a place in the path table for each") {
  TreeBuilder builder;
  for (std::size_t i = 0; i < 256; ++i) {
    for (int j = 0; j < 256; ++j) builder.directory(fmt::format("{:02x}/{:02x}", i, j));
  }
  const BuiltTree built = builder.build();
  const auto image = planned(built, {});
  CHECK(facts_of(*image)["directory_count"] == "65793");
  CHECK(facts_of(*image)["path_table_bytes"] == fmt::format("{}", 10 + 65792 * 10));
  // The last record: a directory of the last one of the first level, whose number is 257.
  const auto facts = facts_of(*image);
  const std::uint64_t table = 19 * kBlock;
  const auto last = read(image, built, table + std::stoul(facts.at("path_table_bytes")) - 10, 10);
  CHECK(last[0] == std::byte{2});
  CHECK(load_le<std::uint16_t>(last, 6) == 257);
  CHECK(text(std::span(last).subspan(8)) == "FF");
}

TEST_CASE("a directory beyond the 65,535th can have none of its own") {
  TreeBuilder builder;
  for (int i = 0; i < 65535; ++i) builder.directory(fmt::format("{:05}", i));
  CHECK(iso9660::plan(builder.build().tree, {}));
  builder.directory("65534/below");
  CHECK(error_of(builder.build(), {}) ==
        "/65534 has directories, but is number 65536 of all; path tables of ISO 9660 number 65535 "
        "[fs=ext4]");
}

TEST_CASE("100,000 names in a directory are planned in time that grows with them") {
  TreeBuilder builder;
  for (int i = 0; i < 100'000; ++i) {
    builder.file(fmt::format("{}{:06}", std::string(40, 'n'), i), "");
  }
  const BuiltTree built = builder.build();
  const auto start = std::chrono::steady_clock::now();
  const auto image = planned(built, {});
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(20));
  CHECK(facts_of(*image)["numbered_name_count"] == "99999");
}

TEST_CASE("Joliet names that were cut or numbered and what it lacks are listed") {
  const std::string long_name(70, 'n');
  const BuiltTree built = TreeBuilder{}
                              .directory("d")
                              .file("d/" + long_name + "1.txt", "1")
                              .file("d/" + long_name + "2.txt", "2")
                              .file("Ga\xc3\x9f", "kept")
                              .file("a:b", "replaced")
                              .symlink("Autounattend.xml", "d/x")
                              .fifo("d/fifo")
                              .file("flagged", "f")
                              .unshown(unshown::kImmutable)
                              .lost_xattrs("com.apple.FinderInfo")
                              .build();
  struct Lines final : DifferenceSink {
    bool difference(const Difference& difference) override {
      text += fmt::format("{} {} {}\n", difference.kind, difference.path, difference.what);
      return true;
    }
    std::string text;
  };
  const auto image = planned(built, {});
  CHECK(image->remark() ==
        "left out of Joliet: 1 symlink, 1 special file; 3 names were changed in Joliet; dropped: "
        "chattr flags of 1 entry, extended attributes that Linux has no name for, of 1 entry");
  Lines lines;
  image->differences(lines);
  const std::string cut(60, 'n');
  CHECK(lines.text ==
        "skipped Autounattend.xml is a symlink, which Joliet lacks\n"
        "mapped a:b is named a_b in Joliet\n"
        "skipped d/fifo is a FIFO, which Joliet lacks\n"
        "mapped d/" +
            long_name + "2.txt is named " + cut.substr(3) + "000.txt in Joliet\n" + "mapped d/" +
            long_name + "1.txt is named " + cut + ".txt in Joliet\n" +
            "dropped flagged loses its chattr flags: immutable (i)\n"
            "dropped flagged loses its extended attributes: com.apple.FinderInfo\n");

  Options without;
  without.joliet = iso9660::Joliet::none;
  CHECK_THAT(planned(built, without)->remark(), Catch::StartsWith("dropped: chattr flags"));
  Options longer;
  longer.joliet = iso9660::Joliet::longer;
  CHECK_THAT(planned(built, longer)->remark(), Catch::Contains("1 name was changed in Joliet"));
}
