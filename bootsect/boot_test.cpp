// SPDX-License-Identifier: BSD-3-Clause
// A PC boots what was made: SeaBIOS in QEMU, emulated, the loader, and a payload of the tests that
// prints its command line and its initrd on the serial port (testing/payload.S).
#include <catch2/catch.hpp>

#include <fmt/format.h>

#include <array>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include "bootsect/boot_loader.h"
#include "bootsect/disk.h"
#include "bootsect/extlinux.h"
#include "bootsect/gpt.h"
#include "bootsect/isolinux.h"
#include "bootsect/made_pieces.h"
#include "bootsect/testing/image_file.h"
#include "fsgen/ext2/plan.h"
#include "fsgen/fat32/plan.h"
#include "fsgen/iso9660/plan.h"
#include "fsgen/tree/tree_builder.h"
#include "support/byte_order.h"
#include "tests/support/temp_dir.h"

using namespace mkvirtfs;
using namespace mkvirtfs::bootsect;
using testing::bytes_of;
using testing::dumped;
using testing::piece;
using testing::text_of;

namespace {

constexpr std::size_t kSector = 512;
constexpr std::string_view kInitrd = "an initrd";

/// The payload, with a sum of zero.
std::string payload(const TempDir& work) {
  const std::string object = (work / "payload.o").string();
  const std::string path = (work / "payload").string();
  const std::string source = MKVIRTFS_BOOTSECT_TESTING_DIR "/payload.S";
  const Ran as = run_tool({"as", "--32", "-o", object, source});
  INFO(as.output);
  REQUIRE(as.status == 0);
  const Ran ld = run_tool(
      {"ld", "-m", "elf_i386", "--oformat", "binary", "-Ttext=0", "-e", "0", "-o", path, object});
  INFO(ld.output);
  REQUIRE(ld.status == 0);
  std::ifstream file(path, std::ios::binary);
  std::vector<std::byte> bytes = bytes_of(std::string(std::istreambuf_iterator(file), {}));
  std::uint32_t sum = 0;
  constexpr std::size_t kProtected = 0x400;
  for (std::size_t at = kProtected; at < bytes.size(); at += 4) {
    sum += load_le<std::uint32_t>(bytes, at);
  }
  store_le(std::span(bytes), bytes.size() - 4, 0 - sum);
  return text_of(bytes);
}

/// A tree with the payload, an initrd, and a configuration of SYSLINUX and its kin.
TreeBuilder syslinux_tree(const TempDir& work, const std::string& directory,
                          const std::string& config, const std::string& word) {
  TreeBuilder tree;
  tree.file("boot/payload", payload(work))
      .file("boot/initrd", kInitrd)
      .file(directory + "ldlinux.c32", text_of(piece("ldlinux.c32")))
      .file(directory + config, fmt::format("DEFAULT p\nLABEL p\n  LINUX /boot/payload\n"
                                            "  INITRD /boot/initrd\n  APPEND {}\n",
                                            word));
  return tree;
}

/// Boots a file and expects the payload to have run with this word.
void boot(const std::string& drive, const std::string& word) {
  const Ran ran =
      run_tool({"timeout", "--kill-after=5", "60", "qemu-system-x86_64", "-accel", "tcg", "-m",
                "64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial",
                "stdio", "-net", "none", "-drive", drive + ",format=raw,readonly=on"});
  INFO(ran.output);
  CHECK(ran.status == 0);
  // "mkvirtfs booted: BOOT_IMAGE=/boot/payload word initrd=/boot/initrd with an initrd"
  const std::size_t line = ran.output.find("\r\nmkvirtfs booted: ");
  REQUIRE(line != std::string::npos);
  const std::size_t end = ran.output.find(" with " + std::string(kInitrd) + "\r\nend\r\n", line);
  REQUIRE(end != std::string::npos);
  CHECK(ran.output.substr(line, end - line).find(" " + word) != std::string::npos);
}

std::string as_disk(const std::string& path) { return "if=virtio,file=" + path; }

void boot_extlinux(const ext2::Options& options, const std::string& directory) {
  const TempDir work;
  const auto from = find_syslinux(piece("extlinux"));
  REQUIRE(from);
  const std::string word = fmt::format("word={}", options.block_bytes);
  const BuiltTree built = syslinux_tree(work, directory, "extlinux.conf", word)
                              .file(directory + "ldlinux.sys", text_of(syslinux_file(*from)))
                              .build();
  const auto image = ext2::plan(built.tree, options);
  if (!image) FAIL(hinted_text(image.error()));
  const auto patches = extlinux_patches(*from, **image, directory + "ldlinux.sys", 0, {});
  if (!patches) FAIL(hinted_text(patches.error()));
  const auto boots = patched(*image, *patches);
  REQUIRE(boots);
  dumped(*boots, built.store, (work / "disk").string());
  boot(as_disk((work / "disk").string()), word);
}

/// A disk with one partition that has `image`, at 1 MiB, and with a GPT a BIOS-boot partition
/// behind it. `code` gets where these begin.
template <class MakeCode>
void write_disk(const std::string& path, TableKind table,
                const std::shared_ptr<const PlannedImage>& image,
                const std::shared_ptr<ContentStore>& store, MakeCode&& code) {
  DiskOptions options;
  options.table = table;
  options.ids = DiskIds::derived(bytes_of("boot test"), 2);
  std::vector<Part> parts(1);
  parts[0].make = [&](std::uint64_t) -> Result<PartContents> {
    return planned_contents(image, store);
  };
  parts[0].type = *find_partition_type("linux", "");
  parts[0].active = true;
  parts[0].attributes = gpt_attributes::kLegacyBootable;
  if (table == TableKind::gpt) {
    Part& bios = parts.emplace_back();
    bios.make = [](std::uint64_t) -> Result<PartContents> { return blank_contents(1u << 20); };
    bios.type = *find_partition_type("bios-boot", "");
  }
  options.boot_code = [&](std::span<const PlacedPart> placed) {
    return Result<std::vector<Patch>>(code(placed));
  };
  const auto disk = plan_disk(parts, options);
  if (!disk) FAIL(hinted_text(disk.error()));
  dumped(disk->image, disk->store, path);
}

void boot_extlinux_in_partition(TableKind table) {
  const TempDir work;
  const auto from = find_syslinux(piece("extlinux"));
  REQUIRE(from);
  const std::string word = "word=partition";
  const BuiltTree built = syslinux_tree(work, "boot/extlinux/", "extlinux.conf", word)
                              .file("boot/extlinux/ldlinux.sys", text_of(syslinux_file(*from)))
                              .build();
  ext2::Options options;
  options.variant = ext2::Variant::ext4;
  options.size_bytes = 32u << 20;
  const auto image = ext2::plan(built.tree, options);
  REQUIRE(image);
  constexpr std::uint64_t kFirstSector = 2048;
  const auto patches =
      extlinux_patches(*from, **image, "boot/extlinux/ldlinux.sys", kFirstSector, {});
  REQUIRE(patches);
  const auto boots = patched(*image, *patches);
  REQUIRE(boots);
  const std::string path = (work / "disk").string();
  const char* const code = table == TableKind::gpt ? "gptmbr.bin" : "mbr.bin";
  write_disk(path, table, *boots, built.store, [&](std::span<const PlacedPart> parts) {
    REQUIRE(parts[0].range.offset == kFirstSector * kSector);
    return std::vector<Patch>{{0, piece(code), "code"}};
  });
  boot(as_disk(path), word);
}

void boot_isolinux(const std::string& drive) {
  const TempDir work;
  const auto from = check_isolinux(piece("isolinux.bin"), piece("isohdpfx.bin"));
  REQUIRE(from);
  const std::string word = "word=iso";
  const BuiltTree built = syslinux_tree(work, "isolinux/", "isolinux.cfg", word)
                              .file("isolinux/isolinux.bin", text_of(from->loader))
                              .build();
  iso9660::Options options;
  options.boot.files = {{"isolinux/isolinux.bin", 1}};
  options.boot.catalog = true;
  options.boot.align_bytes = kIsohybridAlignmentBytes;
  const auto image = iso9660::plan(built.tree, options);
  REQUIRE(image);
  const auto patches =
      isolinux_patches(*from, **image, "isolinux/isolinux.bin", {.ids = {.mbr = 0x12345678}});
  REQUIRE(patches);
  const auto boots = patched(*image, *patches);
  REQUIRE(boots);
  dumped(*boots, built.store, (work / "image").string());
  boot(drive + (work / "image").string(), word);
}

using Plan =
    std::function<Result<std::shared_ptr<const PlannedImage>>(std::shared_ptr<const SourceTree>)>;

/// By the row of the loaders, with the configuration that it makes.
void boot_grub(TableKind table, const Plan& plan) {
  const TempDir work;
  const BootLoader* const loader = find_boot_loader("grub");
  REQUIRE(loader != nullptr);
  const BootPlace place{.format = "any", .table = table, .partition = 1};
  MadePieces made("");
  PieceBytes pieces;
  for (const PieceRequest& request : loader->pieces(place)) {
    auto core = made.grub_core(request.parameter, "");
    if (!core) FAIL(hinted_text(core.error()));
    pieces[std::string(request.name)] =
        request.parameter.empty() ? piece(request.name) : *std::move(core);
  }
  const std::string append = "word=grub $HOME x;y {z} #h * e=\"f g\"";
  const BuiltTree built = TreeBuilder{}
                              .file("boot/payload", payload(work))
                              .file("boot/initrd", kInitrd)
                              .file(loader->made_config, loader->config({.kernel = "boot/payload",
                                                                         .initrds = {"boot/initrd"},
                                                                         .append = append}))
                              .build();
  const auto image = plan(built.tree);
  if (!image) FAIL(hinted_text(image.error()));
  const std::string path = (work / "disk").string();
  write_disk(path, table, *image, built.store, [&](std::span<const PlacedPart> parts) {
    const auto patches = loader->disk_patches(pieces, place, parts);
    if (!patches) FAIL(hinted_text(patches.error()));
    return *patches;
  });
  boot(as_disk(path), "word=grub $HOME x;y {z} #h * \"e=f g\"");
}

Plan ext4_plan() {
  return [](std::shared_ptr<const SourceTree> tree) {
    ext2::Options options;
    options.variant = ext2::Variant::ext4;
    options.size_bytes = 32u << 20;
    return ext2::plan(std::move(tree), options);
  };
}

}  // namespace

TEST_CASE("a PC boots EXTLINUX from ext2, ext3 and ext4") {
  ext2::Options options;
  options.block_bytes = 1024;
  options.size_bytes = 8u << 20;
  SECTION("ext2") { boot_extlinux(options, ""); }
  options.block_bytes = 2048;
  options.size_bytes = 32u << 20;
  SECTION("ext3") {
    options.variant = ext2::Variant::ext3;
    boot_extlinux(options, "boot/extlinux/");
  }
  options.block_bytes = 4096;
  SECTION("ext4") {
    options.variant = ext2::Variant::ext4;
    boot_extlinux(options, "extlinux/");
  }
}

TEST_CASE("a PC boots EXTLINUX from a partition of an MBR") {
  boot_extlinux_in_partition(TableKind::mbr);
}

TEST_CASE("a PC boots EXTLINUX from a partition of a GPT") {
  boot_extlinux_in_partition(TableKind::gpt);
}

TEST_CASE("a PC boots ISOLINUX from a CD") { boot_isolinux("if=ide,media=cdrom,file="); }

TEST_CASE("a PC boots ISOLINUX from a disk") { boot_isolinux(as_disk("")); }

TEST_CASE("a PC boots GRUB from the gap behind an MBR, and ext4") {
  boot_grub(TableKind::mbr, ext4_plan());
}

TEST_CASE("a PC boots GRUB from a BIOS-boot partition of a GPT, and ext4") {
  boot_grub(TableKind::gpt, ext4_plan());
}

TEST_CASE("a PC boots GRUB from the gap behind an MBR, and FAT") {
  boot_grub(TableKind::mbr, [](std::shared_ptr<const SourceTree> tree) {
    return fat32::plan(std::move(tree), {});
  });
}

TEST_CASE("a PC boots GRUB from the gap behind an MBR, and ISO 9660") {
  boot_grub(TableKind::mbr, [](std::shared_ptr<const SourceTree> tree) {
    return iso9660::plan(std::move(tree), {});
  });
}
