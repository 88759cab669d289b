// SPDX-License-Identifier: BSD-3-Clause
// The judges are `isohybrid`, xorriso's report of what boots, and genisoimage.
#include "bootsect/isolinux.h"

#include <catch2/catch.hpp>

#include <fmt/format.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "bootsect/eltorito.h"
#include "bootsect/testing/image_file.h"
#include "fsgen/fat32/plan.h"
#include "fsgen/iso9660/plan.h"
#include "fsgen/tree/tree_builder.h"
#include "support/byte_order.h"
#include "tests/support/temp_dir.h"

using namespace mkvirtfs;
using namespace mkvirtfs::bootsect;
using testing::dumped;
using testing::piece;
using testing::text_of;

namespace {

constexpr std::uint32_t kDiskId = 0x1234ABCD;
const IsoTable kTable{.ids = {.mbr = kDiskId}};

IsolinuxTemplate pieces() {
  auto from = check_isolinux(piece("isolinux.bin"), piece("isohdpfx.bin"));
  if (!from) FAIL(from.error().what);
  return *std::move(from);
}

BuiltTree tree_with_loader(const IsolinuxTemplate& from, std::uint64_t more_bytes) {
  return TreeBuilder{}
      .file("isolinux/isolinux.bin", text_of(from.loader))
      .file("isolinux/ldlinux.c32", text_of(piece("ldlinux.c32")))
      .file("a.txt", "something before it\n")
      .sparse_file("z.bin", more_bytes, {{0, 1000}})
      .build();
}

std::shared_ptr<const PlannedImage> planned(const BuiltTree& built, std::uint64_t align_bytes) {
  iso9660::Options options;
  options.boot.files = {{"isolinux/isolinux.bin", 1}};
  options.boot.catalog = true;
  options.boot.align_bytes = align_bytes;
  auto image = iso9660::plan(built.tree, options);
  if (!image) FAIL(hinted_text(image.error()));
  return *std::move(image);
}

std::string booting(const IsolinuxTemplate& from, const BuiltTree& built, const std::string& path) {
  const auto image = planned(built, kIsohybridAlignmentBytes);
  const auto patches = isolinux_patches(from, *image, "isolinux/isolinux.bin", kTable);
  if (!patches) FAIL(hinted_text(patches.error()));
  const auto boots = patched(image, *patches);
  REQUIRE(boots);
  return dumped(*boots, built.store, path);
}

std::uint32_t number_at(const std::string& bytes, std::size_t at) {
  return load_le<std::uint32_t>(std::as_bytes(std::span(bytes)), at);
}

}  // namespace

TEST_CASE("isohybrid makes the same image") {
  const IsolinuxTemplate from = pieces();
  for (const std::uint64_t more :
       {std::uint64_t{1000}, std::uint64_t{5} << 20, (std::uint64_t{300} << 20) + 12345}) {
    CAPTURE(more);
    const TempDir work;
    const BuiltTree built = tree_with_loader(from, more);
    const std::string ours = booting(from, built, (work / "ours").string());
    // The same without code and padding is what isohybrid is given.
    const auto image = planned(built, kCdBlockBytes);
    const auto patches = isolinux_patches(from, *planned(built, kIsohybridAlignmentBytes),
                                          "isolinux/isolinux.bin", kTable);
    REQUIRE(patches);
    std::vector<Patch> without_code;
    for (const Patch& patch : *patches) {
      if (patch.offset != 0) without_code.push_back(patch);
    }
    CHECK(without_code.size() == 2);
    const auto cd = patched(image, without_code);
    REQUIRE(cd);
    const std::string path = (work / "theirs").string();
    dumped(*cd, built.store, path);
    const Ran ran = run_tool({"isohybrid", "--id", fmt::format("{:#x}", kDiskId), path});
    INFO(ran.output);
    REQUIRE(ran.status == 0);
    REQUIRE(std::filesystem::file_size(path) == ours.size());
    CHECK((testing::bytes_at(path, 0, ours.size()) == ours));
  }
}

TEST_CASE("xorriso finds what boots, and the image is right") {
  const TempDir work;
  const IsolinuxTemplate from = pieces();
  const BuiltTree built = tree_with_loader(from, 100'000);
  const std::string path = (work / "ours").string();
  const std::string ours = booting(from, built, path);
  const Ran ran =
      run_tool({"xorriso", "-abort_on", "SORRY", "-indev", "stdio:" + path, "-check_media", "--",
                "-report_el_torito", "plain", "-report_system_area", "plain"});
  INFO(ran.output);
  CHECK(ran.status == 0);
  const std::uint64_t block =
      planned(built, kIsohybridAlignmentBytes)->data_at("isolinux/isolinux.bin").find(0).value() /
      kCdBlockBytes;
  const auto has = [&](const std::string& text) {
    CAPTURE(text);
    CHECK(ran.output.find(text) != std::string::npos);
  };
  has(fmt::format("El Torito boot img :   1  BIOS  y   none  0x0000  0x00      4 {:>11}", block));
  has("El Torito img path :   1  /isolinux/isolinux.bin");
  has("El Torito img opts :   1  boot-info-table isohybrid-suitable");
  has("System area summary: MBR isohybrid");
  has(fmt::format("MBR partition      :   1   0x80  0x17            0 {:>12}", ours.size() / 512));
}

TEST_CASE("a hybrid is an isohybrid with a GPT of which no tool complains") {
  const TempDir work;
  const IsolinuxTemplate from = pieces();
  const BuiltTree built = tree_with_loader(from, 300'000);
  const bool has_bios = GENERATE(true, false);
  CAPTURE(has_bios);
  iso9660::Options options;
  if (has_bios) options.boot.files = {{"isolinux/isolinux.bin", 1}};
  options.boot.files.push_back({.path = "z.bin", .align_blocks = 2, .is_last = true});
  options.boot.catalog = true;
  options.boot.tail_bytes = iso_gpt_tail_bytes();
  if (has_bios) options.boot.align_bytes = kIsohybridAlignmentBytes;
  const auto image = iso9660::plan(built.tree, options);
  REQUIRE(image);
  const Range efi_image = (*image)->data_at("z.bin").runs.front().range;
  const std::string seed = "seed";
  const IsoTable table{.ids = DiskIds::derived(std::as_bytes(std::span(seed)), 1),
                       .efi_image = {efi_image.offset, 300'000},
                       .is_hybrid = true};
  const auto patches = has_bios ? isolinux_patches(from, **image, "isolinux/isolinux.bin", table)
                                : efi_iso_patches(**image, table);
  if (!patches) FAIL(hinted_text(patches.error()));
  const auto boots = patched(*image, *patches);
  REQUIRE(boots);
  const std::string path = (work / "ours").string();
  const std::string ours = dumped(*boots, built.store, path);
  const auto code = ours.substr(0, 440);
  CHECK((code.starts_with(text_of(from.hybrid_code))) == has_bios);

  const std::uint64_t first = efi_image.offset / 512;
  const auto has = [](const Ran& ran, const std::string& text) {
    INFO(ran.output);
    CAPTURE(text);
    CHECK(ran.output.find(text) != std::string::npos);
  };
  has(run_tool({"sgdisk", "-v", path}), "No problems found");
  has(run_tool({"sgdisk", "-i", "1", path}), "C12A7328-F81F-11D2-BA4B-00A0C93EC93B");
  has(run_tool({"sfdisk", "--verify", path}), "Using 1 out of 128 partitions");
  has(run_tool({"fdisk", "-l", "-o", "Start,Sectors,Type", path}),
      fmt::format("{:>5}     586 EFI System", first));
  has(run_tool({"parted", "-s", "-m", path, "unit", "s", "print"}),
      fmt::format("\n1:{}s:{}s:586s:", first, first + 585));
  const Ran blkid = run_tool({"blkid", "-p", "-o", "export", path});
  has(blkid, "PTUUID=" + to_string(table.ids.disk));
  has(blkid, "TYPE=iso9660");
  const Ran ran = run_tool({"xorriso", "-abort_on", "SORRY", "-indev", "stdio:" + path,
                            "-check_media", "--", "-report_system_area", "plain"});
  CHECK(ran.status == 0);
  has(ran, has_bios ? "MBR isohybrid cyl-align-off GPT"
                    : "MBR protective-msdos-label cyl-align-off GPT");
  has(ran, fmt::format("GPT start and size :   1  {}  586", first));
  has(ran, "GPT partition path :   1  /z.bin");
  has(ran, fmt::format("MBR partition      :   1   0x00  0xee            1 {:>12}", first - 1));
  has(ran, fmt::format("MBR partition      :   2   {}  0xef {:>12}          586",
                       has_bios ? "0x80" : "0x00", first));
  const std::size_t last = ours.size() / 512 - 1;
  has(ran, fmt::format("GPT lba range      :      34  {}  {}\n", last - 33, last));

  // The backup alone brings it back.
  write_file(path, ours.substr(0, 512) + std::string(512, '\0') + ours.substr(1024));
  has(run_tool({"sfdisk", "--dump", path}), fmt::format("start={:>12}, size=", first));
}

TEST_CASE("genisoimage has the same boot information table and catalogue") {
  const TempDir work;
  const IsolinuxTemplate from = pieces();
  std::filesystem::create_directory(work / "tree");
  std::ofstream(work / "tree/isolinux.bin", std::ios::binary) << text_of(from.loader);
  const std::string path = (work / "theirs").string();
  const Ran ran = run_tool({"genisoimage", "-quiet", "-o", path, "-b", "isolinux.bin", "-c",
                            "boot.cat", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table",
                            (work / "tree").string()});
  INFO(ran.output);
  REQUIRE(ran.status == 0);
  const std::string theirs = testing::bytes_at(path, 0, std::filesystem::file_size(path));
  const std::size_t catalogue_at = number_at(theirs, 17 * kCdBlockBytes + 71) * kCdBlockBytes;
  const std::uint32_t block = number_at(theirs, catalogue_at + 32 + 8);
  const auto catalogue = boot_catalogue(std::array{BootImage{.block = block}});
  REQUIRE(catalogue);
  CHECK((theirs.substr(catalogue_at, kCdBlockBytes) == text_of(*catalogue)));
  CHECK((theirs.substr(block * kCdBlockBytes + kBootInformationAt, kBootInformationBytes) ==
         text_of(boot_information_table(from.loader, block))));
}

TEST_CASE("the sum of a boot information table has a short last word") {
  std::vector<std::byte> loader(70);
  loader[8] = std::byte{99};  // not in the sum
  loader[64] = std::byte{1};
  loader[67] = std::byte{2};
  loader[69] = std::byte{3};
  const auto table = boot_information_table(loader, 77);
  REQUIRE(table.size() == 56);
  CHECK(load_le<std::uint32_t>(table, 0) == 16);
  CHECK(load_le<std::uint32_t>(table, 4) == 77);
  CHECK(load_le<std::uint32_t>(table, 8) == 70);
  CHECK(load_le<std::uint32_t>(table, 12) == 0x02000001 + 0x0300);
}

TEST_CASE("a catalogue has sections for other platforms") {
  const std::array images = {
      BootImage{.block = 40},
      BootImage{.platform = BootPlatform::efi, .block = 80, .loaded_sectors = 5760},
      BootImage{.platform = BootPlatform::efi, .block = 90, .loaded_sectors = 1}};
  const auto block = boot_catalogue(images);
  REQUIRE(block);
  const std::span<const std::byte> bytes(*block);
  CHECK(bytes[64] == std::byte{0x90});
  CHECK(bytes[65] == std::byte{0xEF});
  CHECK(load_le<std::uint16_t>(bytes, 66) == 1);
  CHECK(load_le<std::uint16_t>(bytes, 96 + 6) == 5760);
  CHECK(load_le<std::uint32_t>(bytes, 96 + 8) == 80);
  CHECK(bytes[128] == std::byte{0x91});
  CHECK(load_le<std::uint32_t>(bytes, 160 + 8) == 90);
  CHECK(!boot_catalogue(std::vector(33, BootImage())));
}

TEST_CASE("xorriso reads a catalogue with a section") {
  const TempDir work;
  const IsolinuxTemplate from = pieces();
  const BuiltTree built = tree_with_loader(from, 100'000);
  const auto image = planned(built, kCdBlockBytes);
  const std::uint64_t at = image->structure("boot_catalogue").front().offset;
  const auto block_of = [&](const char* path) {
    return static_cast<std::uint32_t>(image->data_at(path).find(0).value() / kCdBlockBytes);
  };
  const auto catalogue = boot_catalogue(std::array{
      BootImage{.block = block_of("isolinux/isolinux.bin")},
      BootImage{.platform = BootPlatform::efi, .block = block_of("z.bin"), .loaded_sectors = 9}});
  REQUIRE(catalogue);
  const auto boots = patched(image, {{at, *catalogue, "catalogue"}});
  REQUIRE(boots);
  const std::string path = (work / "ours").string();
  dumped(*boots, built.store, path);
  const Ran ran = run_tool({"xorriso", "-indev", "stdio:" + path, "-report_el_torito", "plain"});
  INFO(ran.output);
  CHECK(ran.output.find(
            fmt::format("El Torito boot img :   2  UEFI  y   none  0x0000  0x00      9 {:>11}",
                        block_of("z.bin"))) != std::string::npos);
}

TEST_CASE("what is not ISOLINUX, or not for it, is refused") {
  const IsolinuxTemplate from = pieces();
  const auto code = [](const Result<IsolinuxTemplate>& result) {
    return result ? std::string() : result.error().what;
  };
  CHECK(code(check_isolinux({}, from.hybrid_code)) ==
        "not a piece of ISOLINUX: isolinux.bin of 0 bytes");
  CHECK(code(check_isolinux(std::vector<std::byte>(38912), from.hybrid_code)) ==
        "not a piece of ISOLINUX: isolinux.bin without the mark that isohybrid looks for");
  CHECK(code(check_isolinux(from.loader, piece("mbr.bin"))) ==
        "not a piece of ISOLINUX: isohdpfx.bin of 440 bytes, not 432");
  const BuiltTree built = tree_with_loader(from, 1000);
  const auto image = planned(built, kIsohybridAlignmentBytes);
  const auto other = isolinux_patches(from, *image, "a.txt", kTable);
  REQUIRE(!other);
  CHECK(other.error().what == "a.txt: not the loader's 38912 bytes");
  const auto fat = fat32::plan(built.tree, {});
  REQUIRE(fat);
  const auto refused = isolinux_patches(from, **fat, "isolinux/isolinux.bin", kTable);
  REQUIRE(!refused);
  CHECK(hinted_text(refused.error()) == "ISOLINUX boots from ISO 9660 [fs=iso]");
  CHECK(!isohybrid_sector(from.hybrid_code, 40, 1, std::uint64_t{2} << 40));
  CHECK(isohybrid_sector(from.hybrid_code, 40, 1, (std::uint64_t{2} << 40) - (1u << 20)));
}

TEST_CASE("an isohybrid beyond 1024 cylinders has the last one that a table can say") {
  const IsolinuxTemplate from = pieces();
  const auto sector = isohybrid_sector(from.hybrid_code, 40, 1, std::uint64_t{5000} << 20);
  REQUIRE(sector);
  // As isohybrid has it, which warns.
  CHECK((*sector)[446 + 5] == std::byte{63});
  CHECK((*sector)[446 + 6] == std::byte{0xE0});
  CHECK((*sector)[446 + 7] == std::byte{0xFF});
  CHECK(load_le<std::uint32_t>(*sector, 446 + 12) == 5000 * 2048);
}
