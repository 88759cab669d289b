// SPDX-License-Identifier: BSD-3-Clause
#include "bootsect/disk.h"

#include <catch2/catch.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "bootsect/gpt.h"
#include "bootsect/mbr.h"
#include "bootsect/testing/disk_file.h"
#include "fsgen/fat32/plan.h"
#include "fsgen/tree/tree_builder.h"
#include "support/byte_order.h"
#include "tests/support/foreign_tools.h"
#include "tests/support/hinted_text.h"
#include "tests/support/temp_dir.h"

using namespace mkvirtfs;
using namespace mkvirtfs::bootsect;

namespace {

constexpr std::uint64_t kMiB = 1u << 20;

PartitionType type_of(std::string_view name) {
  const auto type = find_partition_type(name, "x86-64");
  REQUIRE(type);
  return *type;
}

Part blank(std::uint64_t size_bytes, std::string_view type = "linux") {
  Part part;
  part.make = [=](std::uint64_t) { return Result<PartContents>(blank_contents(size_bytes)); };
  part.type = type_of(type);
  return part;
}

BuiltTree some_tree(std::string_view salt) {
  return TreeBuilder{}
      .file("hello.txt", fmt::format("hello {}\n", salt))
      .patterned_file("big", 3'000'000)
      .sparse_file("sparse", 100'000, {{50'000, 10}})
      .build();
}

/// A FAT image that knows where it begins.
Part fat_part(const BuiltTree& built) {
  Part part;
  part.make = [built](std::uint64_t start_bytes) -> Result<PartContents> {
    fat32::Options options;
    options.size_bytes = 16 * kMiB;
    options.width = fat32::Width::fat16;
    options.hidden_sectors = static_cast<std::uint32_t>(start_bytes / 512);
    auto image = fat32::plan(built.tree, options);
    if (!image) return propagate(image);
    return planned_contents(*std::move(image), built.store);
  };
  part.type = type_of("fat16");
  return part;
}

DiskOptions options_of(TableKind table, std::size_t partitions) {
  const std::string seed = "seed";
  DiskOptions options;
  options.table = table;
  options.ids = DiskIds::derived(std::as_bytes(std::span(seed)), partitions);
  return options;
}

Disk planned(const std::vector<Part>& parts, const DiskOptions& options) {
  auto disk = plan_disk(parts, options);
  if (!disk) FAIL(hinted_text(disk.error()));
  return *std::move(disk);
}

std::string refused(const std::vector<Part>& parts, const DiskOptions& options) {
  const auto disk = plan_disk(parts, options);
  REQUIRE(!disk);
  return hinted_text(disk.error());
}

std::string dumped(const Disk& disk, const TempDir& directory) {
  ImageDevice device(disk.image, disk.store);
  const std::string path = (directory / "disk").string();
  write_image(device, path);
  return path;
}

void check_says(const Ran& ran, std::string_view text) {
  INFO(ran.output);
  CHECK(ran.output.find(text) != std::string::npos);
}

}  // namespace

TEST_CASE("a disk of images is read as its parts are, with either table") {
  const TempDir directory;
  const BuiltTree first = some_tree("one");
  const BuiltTree second = some_tree("two");
  for (const TableKind table : {TableKind::mbr, TableKind::gpt}) {
    CAPTURE(table == TableKind::gpt);
    Part swap;
    const DiskOptions options = options_of(table, 3);
    swap.make = [&](std::uint64_t) {
      return swap_contents(2 * kMiB, options.ids.partitions[2], "paging");
    };
    swap.type = type_of("swap");
    const Disk disk = planned({fat_part(first), fat_part(second), swap}, options);
    CHECK(disk.parts[0].range == Range{kMiB, 16 * kMiB});
    CHECK(disk.parts[1].range == Range{17 * kMiB, 16 * kMiB});
    CHECK(disk.parts[2].range == Range{33 * kMiB, 2 * kMiB});
    CHECK(disk.image->size_bytes() == (table == TableKind::gpt ? 36 : 35) * kMiB);
    const std::string path = dumped(disk, directory);
    CHECK(run_tool({"mtype", "-i", path + "@@1M", "::/hello.txt"}).output == "hello one\n");
    CHECK(run_tool({"mtype", "-i", path + "@@17M", "::/hello.txt"}).output == "hello two\n");
    const std::string sector = testing::bytes_at(path, 17 * kMiB, 512);
    CHECK(load_le<std::uint32_t>(std::as_bytes(std::span(sector)), 0x1C) == 17 * 2048);
    const Ran swapped = run_tool({"blkid", "-p", "-O", fmt::format("{}", 33 * kMiB), path});
    check_says(swapped, "TYPE=\"swap\"");
    check_says(swapped, "LABEL=\"paging\"");
    check_says(swapped, to_string(options.ids.partitions[2]));
    const Ran listed = run_tool({"sfdisk", "--dump", path});
    check_says(listed, "start=        2048, size=       32768");
    check_says(listed, "start=       34816, size=       32768");
    check_says(listed, "start=       67584, size=        4096");
    CHECK(disk.image->describe(17 * kMiB).starts_with("partition 2: "));
    CHECK(disk.image->describe(440).find(", at 0") != std::string::npos);
  }
}

TEST_CASE("the map of a disk leads to the stores of its parts, and is gapless") {
  const BuiltTree first = some_tree("one");
  const BuiltTree second = some_tree("two");
  const Disk disk = planned({fat_part(first), fat_part(second)}, options_of(TableKind::gpt, 2));
  ImageDevice device(disk.image, disk.store);
  bool saw_first = false;
  bool saw_second = false;
  std::uint64_t at = 0;
  for_each_extent(device, {0, disk.image->size_bytes()}, [&](const Extent& extent) {
    CHECK(extent.offset == at);
    at = extent.end();
    if (extent.kind == ExtentKind::content) {
      saw_first = saw_first || extent.store == first.store.get();
      saw_second = saw_second || extent.store == second.store.get();
    }
    return true;
  });
  CHECK(at == disk.image->size_bytes());
  CHECK(saw_first);
  CHECK(saw_second);
  for (std::uint64_t offset = 0; offset < disk.image->size_bytes();) {
    const std::uint64_t end = disk.image->described_end(offset);
    REQUIRE(end > offset);
    offset = end;
  }
}

TEST_CASE("partitions beyond four are logical ones of an MBR") {
  const TempDir directory;
  std::vector<Part> parts(6, blank(kMiB));
  parts[4].type = type_of("swap");
  const Disk disk = planned(parts, options_of(TableKind::mbr, 6));
  CHECK(disk.parts[2].number == 3);
  CHECK(disk.parts[3].number == 5);
  CHECK(disk.parts[5].number == 7);
  CHECK(disk.parts[3].range.offset == 5 * kMiB);
  CHECK(disk.parts[4].range.offset == 7 * kMiB);
  CHECK(disk.parts[5].partuuid == disk.image->volume_id() + "-07");
  const std::string path = dumped(disk, directory);
  CHECK(run_tool({"sfdisk", "--verify", path}).status == 0);
  const Ran listed = run_tool({"sfdisk", "--dump", path});
  check_says(listed, "disk4 : start=        8192, size=       12288, type=f");
  check_says(listed, "disk6 : start=       14336, size=        2048, type=82");
  check_says(listed, "disk7 : start=       18432, size=        2048, type=83");
}

TEST_CASE("the MBR of a hybrid shows three partitions, and what boots is one of them") {
  const TempDir directory;
  DiskOptions options = options_of(TableKind::gpt, 6);
  options.is_hybrid = true;
  // An MBR has no type for the first one, and the fourth one ends where it cannot say.
  std::vector<Part> parts(6, blank(kMiB));
  parts[0] = blank(kMiB, "bios-boot");
  parts[3].size_bytes = std::uint64_t{2} << 40;
  parts[3].offset_bytes = 100 * kMiB;
  parts[4].offset_bytes = 5 * kMiB;
  const auto shown = [&] {
    const std::string path = dumped(planned(parts, options), directory);
    CHECK(run_tool({"sgdisk", "-v", path}).output.find("No problems found") != std::string::npos);
    std::string bytes = testing::bytes_at(path, 440, 72);
    const auto entries = std::as_bytes(std::span(bytes));
    CHECK(load_le<std::uint32_t>(entries, 0) == options.ids.mbr);
    std::string text;
    for (std::size_t at = 6; at < 70; at += 16) {
      const std::uint32_t first = load_le<std::uint32_t>(entries, at + 8);
      text += fmt::format("{:02x} {:02x} {}+{}\n", std::to_integer<unsigned>(entries[at]),
                          std::to_integer<unsigned>(entries[at + 4]), first,
                          load_le<std::uint32_t>(entries, at + 12));
    }
    return text;
  };
  CHECK(shown() == "00 ee 1+4095\n00 83 4096+2048\n00 83 6144+2048\n00 83 10240+2048\n");
  parts[5].active = true;
  CHECK(shown() == "00 ee 1+4095\n00 83 4096+2048\n00 83 6144+2048\n80 83 12288+2048\n");
  parts.resize(2);
  CHECK(shown() == "00 ee 1+4095\n00 83 4096+2048\n00 00 0+0\n00 00 0+0\n");
  parts.resize(1);
  CHECK(refused(parts, options) ==
        "an MBR can show none of these partitions: not by their types, or not where they end "
        "[table=gpt]");
}

TEST_CASE("ids derive from the seed alone, and differ") {
  const DiskOptions one = options_of(TableKind::gpt, 2);
  const DiskOptions two = options_of(TableKind::gpt, 3);
  CHECK(one.ids.disk == two.ids.disk);
  CHECK(one.ids.partitions[1] == two.ids.partitions[1]);
  CHECK(one.ids.partitions[0] != one.ids.partitions[1]);
  CHECK(to_string(one.ids.disk)[14] == '8');
  const std::string other = "seeds";
  CHECK(DiskIds::derived(std::as_bytes(std::span(other)), 1).mbr != one.ids.mbr);
}

TEST_CASE("sizes, free room and offsets are kept") {
  Part exact = blank(kMiB);
  exact.size_bytes = 5 * kMiB;
  Part free = blank(kMiB + 1);
  free.free_bytes = 3 * kMiB;
  Part far = blank(512);
  far.offset_bytes = 100 * kMiB + 512;
  Part blob = blank(4096);
  blob.in_table = false;
  blob.offset_bytes = 65536;
  DiskOptions options = options_of(TableKind::gpt, 3);
  options.size_bytes = 200 * kMiB;
  const Disk disk = planned({blob, exact, free, far}, options);
  CHECK(disk.parts[0].number == 0);
  CHECK(disk.parts[1].range == Range{kMiB, 5 * kMiB});
  CHECK(disk.parts[2].range == Range{6 * kMiB, 4 * kMiB + 512});
  CHECK(disk.parts[3].range == Range{100 * kMiB + 512, 512});
  CHECK(disk.parts[3].number == 3);
  CHECK(disk.image->size_bytes() == 200 * kMiB);
}

TEST_CASE("what does not fit on a disk is refused in one line") {
  const DiskOptions gpt = options_of(TableKind::gpt, 8);
  const DiskOptions mbr = options_of(TableKind::mbr, 8);
  Part small = blank(2 * kMiB);
  small.size_bytes = kMiB;
  CHECK(refused({small}, gpt) ==
        "partition 1 has 1048576 bytes, and what stands in it needs 2097152 [size=2097152]");
  DiskOptions tiny = gpt;
  tiny.size_bytes = 2 * kMiB;
  CHECK(refused({blank(kMiB)}, tiny) ==
        "the disk has 2097152 bytes, and its parts need 2114048 [size=2114048]");
  Part blob = blank(kMiB);
  blob.in_table = false;
  blob.source = "u-boot.bin";
  blob.offset_bytes = 8192;
  CHECK(
      refused({blob}, gpt) ==
      "the part outside the table (u-boot.bin), bytes 8192 to 1056767, overlaps the GPT, bytes 440 "
      "to 17407 [offset]");
  Part over = blank(kMiB);
  over.offset_bytes = kMiB + 512;
  CHECK(refused({blank(kMiB), over}, mbr) ==
        "partition 2, bytes 1049088 to 2097663, overlaps partition 1, bytes 1048576 to 2097151 "
        "[offset]");
  over.offset_bytes = kMiB + 1;
  CHECK(refused({over}, mbr) == "offset=1048577: not a multiple of the sector's 512 bytes");
  Part named = blank(kMiB);
  named.name = "root";
  CHECK(refused({named}, mbr) == "name=root: partitions of an MBR have no names [table=gpt]");
  CHECK(refused({blank(kMiB, "bios-boot")}, mbr) ==
        "type=bios-boot: an MBR has no such type [table=gpt]");
  CHECK(refused({blank(std::uint64_t{3} << 40)}, mbr).ends_with("[table=gpt]"));
  named.name = std::string(37, 'x');
  CHECK(refused({named}, gpt).ends_with("and this one has 37"));
  Part failing = blank(kMiB);
  failing.make = [](std::uint64_t) -> Result<PartContents> {
    return fail(Errc::io, "no such file");
  };
  CHECK(refused({failing}, gpt) == "partition 1: no such file");
  std::vector<Part> six(6, blank(kMiB));
  six[5].offset_bytes = 5 * kMiB;
  CHECK(plan_disk(six, mbr).error().code == Errc::usage);
}

TEST_CASE("swap space has a label of 16 bytes and ten pages") {
  CHECK(swap_contents(40960, {}, "0123456789abcdef"));
  CHECK(!swap_contents(40960, {}, "0123456789abcdefg"));
  const auto small = swap_contents(40959, {}, "");
  REQUIRE(!small);
  CHECK(small.error().what == "swap space has at least 40960 bytes, and this has 40959");
}

TEST_CASE("a file is a partition as it is") {
  const TempDir directory;
  const BuiltTree built = TreeBuilder{}.file("disk.img", std::string(1000, 'x')).build();
  const NodeNo no = *find_node(*built.tree, "disk.img");
  Part raw;
  raw.make = [&](std::uint64_t) {
    return Result<PartContents>(raw_contents(built.store, content_no(no), 1000, "disk.img"));
  };
  raw.type = type_of("linux");
  const Disk disk = planned({raw}, options_of(TableKind::mbr, 1));
  CHECK(disk.parts[0].range == Range{kMiB, 1024});
  const std::string path = dumped(disk, directory);
  const std::string want = std::string(1000, 'x') + std::string(24, '\0');
  CHECK((testing::bytes_at(path, kMiB, 1024) == want));
  CHECK(disk.image->describe(kMiB + 5) == "partition 1: file disk.img at 5");
  CHECK(disk.image->describe(kMiB + 1010) == "partition 1: behind its image, at 1010");
  CHECK(disk.image->describe(1000) == "outside the partitions");
}

TEST_CASE("boot code stands before the table, behind it, or in a blank part") {
  const TempDir directory;
  const auto code_of = [](std::uint64_t offset, std::size_t size) {
    return Patch{offset, std::vector<std::byte>(size, std::byte{0x77}), "some code"};
  };
  const std::vector<Part> parts = {blank(kMiB), blank(kMiB, "bios-boot")};
  DiskOptions options = options_of(TableKind::gpt, 2);
  const auto with = [&](const Patch& code) {
    options.boot_code = [=](std::span<const PlacedPart> placed) -> Result<std::vector<Patch>> {
      CHECK(placed.size() == 2);
      CHECK(placed[1].type == "bios-boot");
      return std::vector<Patch>{code};
    };
  };
  for (const auto& [offset, size] : {std::pair<std::uint64_t, std::size_t>(0, 440),
                                     std::pair<std::uint64_t, std::size_t>(34 * 512, 100'000),
                                     std::pair<std::uint64_t, std::size_t>(2 * kMiB, kMiB),
                                     std::pair<std::uint64_t, std::size_t>(2 * kMiB + 512, 9)}) {
    CAPTURE(offset);
    with(code_of(offset, size));
    const Disk disk = planned(parts, options);
    const std::string path = dumped(disk, directory);
    std::string expected = testing::bytes_at(path, 0, disk.image->size_bytes());
    CHECK(std::ranges::count(expected, char{0x77}) >= static_cast<std::ptrdiff_t>(size));
    CHECK(expected.substr(offset, size) == std::string(size, char{0x77}));
    // All else is as it is without code.
    options.boot_code = {};
    const std::string plain =
        testing::bytes_at(dumped(planned(parts, options), directory), 0, disk.image->size_bytes());
    expected.replace(offset, size, plain, offset, size);
    CHECK((expected == plain));
    if (offset >= 2 * kMiB) {
      CHECK(disk.image->describe(offset).find("some code") != std::string::npos);
    }
  }
  // Not over the table, not beyond a part, not over bytes of one.
  with(code_of(0, 441));
  CHECK(refused(parts, options)
            .starts_with("some code, bytes 0 to 440, does not fit before the GPT"));
  with(code_of(34 * 512, kMiB));
  CHECK(refused(parts, options).find("does not fit before partition 1 at 1048576") !=
        std::string::npos);
  with(code_of(2 * kMiB, kMiB + 1));
  CHECK(refused(parts, options).starts_with("some code, bytes 2097152 to 3145728, does not fit"));
  const BuiltTree built = some_tree("x");
  with(code_of(kMiB, 512));
  CHECK(refused({fat_part(built), blank(kMiB, "bios-boot")}, options).find("does not fit") !=
        std::string::npos);
}
