// SPDX-License-Identifier: BSD-3-Clause
// The judge is `syslinux --install` itself, on images of ours.
#include "bootsect/syslinux.h"

#include <catch2/catch.hpp>

#include <fmt/format.h>

#include <charconv>
#include <memory>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "block/image.h"
#include "bootsect/boot_pieces.h"
#include "bootsect/testing/image_file.h"
#include "fsgen/fat32/plan.h"
#include "fsgen/tree/tree_builder.h"
#include "support/byte_order.h"
#include "tests/support/foreign_tools.h"
#include "tests/support/hinted_text.h"
#include "tests/support/temp_dir.h"

using namespace mkvirtfs;
using namespace mkvirtfs::bootsect;
using testing::dumped;
using testing::piece;
using testing::text_of;

namespace {

constexpr std::size_t kSector = 512;

SyslinuxTemplate found() {
  auto from = find_syslinux(piece("syslinux"));
  if (!from) FAIL(from.error().what);
  return *std::move(from);
}

std::uint32_t number_at(const std::string& bytes, std::size_t at, std::size_t size) {
  std::uint32_t value = 0;
  for (std::size_t i = size; i-- > 0;) {
    value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
  }
  return value;
}

/// The sectors of a file in a FAT image as mtools finds them: "::/boot/x <5-151>".
std::vector<std::uint64_t> sectors_by_mtools(const std::string& path, const std::string& image,
                                             const std::string& file) {
  const std::uint64_t per_cluster = number_at(image, 0x0D, 1);
  const std::uint32_t fat_sectors =
      number_at(image, 0x16, 2) != 0 ? number_at(image, 0x16, 2) : number_at(image, 0x24, 4);
  const std::uint64_t data = number_at(image, 0x0E, 2) + number_at(image, 0x10, 1) * fat_sectors +
                             number_at(image, 0x11, 2) * 32 / kSector;
  const std::string said = run_tool({"mshowfat", "-i", path, "::/" + file}).output;
  std::vector<std::uint64_t> sectors;
  for (std::size_t at = said.find('<'); at != said.npos; at = said.find('<', at + 1)) {
    std::uint64_t first = 0;
    const auto read = std::from_chars(said.data() + at + 1, said.data() + said.size(), first);
    std::uint64_t last = first;
    if (*read.ptr == '-') std::from_chars(read.ptr + 1, said.data() + said.size(), last);
    for (std::uint64_t cluster = first; cluster <= last; ++cluster) {
      for (std::uint64_t i = 0; i < per_cluster; ++i) {
        sectors.push_back(data + (cluster - 2) * per_cluster + i);
      }
    }
  }
  return sectors;
}

struct Case {
  fat32::Width width;
  std::uint64_t size_bytes;
  std::string directory;  // "boot/sys", or nothing
  std::vector<std::string> flags;
  SyslinuxSettings settings;
};

/// The boot sector of an image with the template's own bytes in it.
std::string with_boot_code(std::string sector, const SyslinuxBytes& made) {
  const std::string boot = text_of(made.boot_sector);
  sector.replace(0, 0x0B, boot, 0, 0x0B);
  sector.replace(0x5A, 0x1FE - 0x5A, boot, 0x5A, 0x1FE - 0x5A);
  return sector;
}

/// An image of ours, before and after SYSLINUX's patches.
struct Judged {
  const Case& of;
  SyslinuxTemplate from{};
  std::string file{};    // ldlinux.sys
  std::string module{};  // ldlinux.c32
  std::shared_ptr<const PlannedImage> image{};
  std::string plain_path{};
  std::string plain{};
  std::string path{};
  std::string ours{};
  std::string theirs{};  // what the installer made of the plain one
};

Judged make_image(const Case& each, const TempDir& directory) {
  const std::string prefix = each.directory.empty() ? "" : each.directory + "/";
  Judged made{.of = each,
              .from = found(),
              .file = prefix + "ldlinux.sys",
              .module = prefix + "ldlinux.c32",
              .plain_path = (directory / "plain").string(),
              .path = (directory / "ours").string()};
  const BuiltTree built = TreeBuilder{}
                              .file(made.file, text_of(syslinux_file(made.from)))
                              .file(made.module, text_of(piece("ldlinux.c32")))
                              .file("a.txt", "something before it\n")
                              .patterned_file("z.bin", 100'000)
                              .build();
  fat32::Options options;
  options.width = each.width;
  options.size_bytes = each.size_bytes;
  const auto image = fat32::plan(built.tree, options);
  if (!image) FAIL(hinted_text(image.error()));
  made.image = *image;
  made.plain = dumped(*image, built.store, made.plain_path);
  const auto patches = syslinux_patches(made.from, **image, made.file, each.settings);
  if (!patches) FAIL(hinted_text(patches.error()));
  const auto boots = patched(*image, *patches);
  if (!boots) FAIL(boots.error().what);
  made.ours = dumped(*boots, built.store, made.path);
  const Ran fsck = run_tool({"fsck.fat", "-n", made.path});
  INFO(fsck.output);
  CHECK(fsck.status == 0);
  CHECK(fsck.output.find("differences") == std::string::npos);
  return made;
}

/// The installer, on the image without boot code.
void install(Judged& judged) {
  std::vector<std::string> words = {"syslinux"};
  words.insert(words.end(), judged.of.flags.begin(), judged.of.flags.end());
  words.insert(words.end(), {"--install", judged.plain_path});
  const Ran ran = run_tool(words);
  INFO(ran.output);
  REQUIRE(ran.status == 0);
  judged.theirs = testing::bytes_at(judged.plain_path, 0, judged.ours.size());
}

/// For the places that the installer chose, our bytes are its bytes; so is the boot sector for
/// those that the planner chose.
void compare_loaders(const Judged& judged, const std::vector<std::uint64_t>& installed,
                     const std::vector<std::uint64_t>& planned) {
  const std::size_t count = judged.from.loader.size() / kSector + 2;
  REQUIRE(installed.size() >= count);
  const std::string where = judged.of.directory.empty() ? "" : "/" + judged.of.directory;
  const auto made =
      patch_syslinux(judged.from, std::span(installed).first(count), where, judged.of.settings);
  REQUIRE(made);
  for (std::size_t i = 0; i < count; ++i) {
    CAPTURE(i);
    REQUIRE((judged.theirs.substr(installed[i] * kSector, kSector) ==
             text_of(made->file).substr(i * kSector, kSector)));
  }
  const std::string plain = judged.plain.substr(0, kSector);
  CHECK((judged.theirs.substr(0, kSector) == with_boot_code(plain, *made)));
  const auto ours_made =
      patch_syslinux(judged.from, std::span(planned).first(count), where, judged.of.settings);
  REQUIRE(ours_made);
  CHECK((judged.ours.substr(0, kSector) == with_boot_code(plain, *ours_made)));
}

/// The sectors, beside those of the loader, in which the two images may differ.
std::set<std::uint64_t> explained_sectors(const Judged& judged) {
  std::set<std::uint64_t> explained = {0};
  const auto explain = [&](const std::vector<std::uint64_t>& more) {
    explained.insert(more.begin(), more.end());
  };
  const auto explain_range = [&](const Range& range) {
    for (std::uint64_t at = range.offset; at < range.end(); at += kSector) {
      explained.insert(at / kSector);
    }
  };
  explain(sectors_by_mtools(judged.path, judged.ours, judged.module));
  explain(sectors_by_mtools(judged.plain_path, judged.theirs, judged.module));
  for (std::uint64_t copy = 0; copy < 2; ++copy) {
    for (const char* name : {"fat", "fsinfo"}) {
      for (const Range& range : judged.image->structure(name, copy)) explain_range(range);
    }
  }
  // Entries of both files: times, attributes, first clusters. With -d the installer makes them in
  // the root and moves them, which leaves an entry that is deleted.
  for (const std::string& where_entries : {judged.of.directory, std::string()}) {
    for (const DataPlacement::Run& run : judged.image->data_at(where_entries).runs) {
      explain_range(run.range);
    }
  }
  return explained;
}

void judge(const Case& each) {
  const TempDir directory;
  Judged judged = make_image(each, directory);
  install(judged);
  const auto installed = sectors_by_mtools(judged.plain_path, judged.theirs, judged.file);
  const auto planned = sectors_by_mtools(judged.path, judged.ours, judged.file);
  compare_loaders(judged, installed, planned);

  // Nothing else differs but what is explained.
  std::set<std::uint64_t> explained = explained_sectors(judged);
  explained.insert(installed.begin(), installed.end());
  explained.insert(planned.begin(), planned.end());
  const auto sector = [](const std::string& image, std::uint64_t number) {
    return std::string_view(image).substr(number * kSector, kSector);
  };
  if (each.width == fat32::Width::fat32) {
    // The installer leaves the backup as it was.
    CHECK((sector(judged.ours, 6) == sector(judged.ours, 0)));
    CHECK((sector(judged.theirs, 6) == sector(judged.plain, 6)));
    explained.insert(6);
  }
  std::vector<std::uint64_t> unexplained;
  for (std::uint64_t at = 0; at < judged.ours.size() / kSector; ++at) {
    const bool same = sector(judged.ours, at) == sector(judged.theirs, at);
    if (!same && !explained.contains(at)) unexplained.push_back(at);
  }
  CHECK(unexplained == std::vector<std::uint64_t>{});
}

}  // namespace

TEST_CASE("the installed programs carry a template") {
  const SyslinuxTemplate from = found();
  CHECK(from.boot_sector.size() == kSector);
  CHECK(from.loader.size() % kSector == 0);
  CHECK(syslinux_file(from).size() == from.loader.size() + 2 * kSector);
  const auto extlinux = find_syslinux(piece("extlinux"));
  REQUIRE(extlinux);
  CHECK((extlinux->loader == from.loader));
}

TEST_CASE("what carries no template is refused") {
  const std::vector<std::byte> program = piece("syslinux");
  CHECK(!find_syslinux({}));
  CHECK(!find_syslinux(piece("ldlinux.c32")));
  for (const std::size_t size : {std::size_t{100}, program.size() / 8, program.size() / 3}) {
    CAPTURE(size);
    const auto none = find_syslinux(std::span(program).first(size));
    REQUIRE(!none);
    CHECK(none.error().code == Errc::unsupported);
    CHECK(none.error().what.starts_with("not an installer of SYSLINUX 6.04: "));
  }
  std::vector<std::byte> twice = program;
  twice.insert(twice.end(), program.begin(), program.end());
  CHECK(!find_syslinux(twice));
}

TEST_CASE("syslinux --install changes nothing but what is explained") {
  const SyslinuxSettings none;
  for (const auto& [width, size] :
       {std::pair(fat32::Width::fat12, 4u << 20), std::pair(fat32::Width::fat16, 32u << 20),
        std::pair(fat32::Width::fat32, 40u << 20)}) {
    CAPTURE(fat32::name_of(width));
    judge({width, size, "", {}, none});
    judge({width, size, "boot/sys", {"-d", "/boot/sys"}, none});
    judge({width, size, "", {"-s"}, {.one_sector_reads = true}});
    judge({width, size, "", {"-r"}, {.next_device_if_no = true}});
  }
}

TEST_CASE("a loader in pieces has a list of them, as long as there is room") {
  const SyslinuxTemplate from = found();
  const std::size_t count = from.loader.size() / kSector + 2;
  std::vector<std::uint64_t> sectors(count);
  std::iota(sectors.begin(), sectors.end(), std::uint64_t{0x1'0000'0000});
  sectors[5] = 77;
  const auto made = patch_syslinux(from, sectors, "", {});
  REQUIRE(made);
  const std::span<const std::byte> extents = std::span(made->file).subspan(0x1EE);
  CHECK(load_le<std::uint64_t>(extents, 0) == 0x1'0000'0001);
  CHECK(load_le<std::uint16_t>(extents, 8) == 4);
  CHECK(load_le<std::uint64_t>(extents, 10) == 77);
  CHECK(load_le<std::uint16_t>(extents, 18) == 1);
  CHECK(load_le<std::uint64_t>(extents, 20) == 0x1'0000'0006);
  CHECK(load_le<std::uint16_t>(extents, 30 + 8) == 0);
  CHECK(load_le<std::uint32_t>(made->boot_sector, 0x120) == 1);

  const auto deep = patch_syslinux(from, sectors, "/" + std::string(255, 'd'), {});
  REQUIRE(!deep);
  CHECK(deep.error().what.ends_with("SYSLINUX's directory has a path of at most 255 bytes"));
}

TEST_CASE("an image that SYSLINUX cannot boot is refused") {
  const SyslinuxTemplate from = found();
  const BuiltTree built = TreeBuilder{}.file("ldlinux.sys", "another one").build();
  fat32::Options options;
  options.width = fat32::Width::fat16;
  options.size_bytes = 32u << 20;
  const auto image = fat32::plan(built.tree, options);
  REQUIRE(image);
  const auto other = syslinux_patches(from, **image, "ldlinux.sys", {});
  REQUIRE(!other);
  CHECK(other.error().what == "ldlinux.sys: not the loader's 59392 bytes");
  CHECK(!syslinux_patches(from, **image, "no/ldlinux.sys", {}));
  options.sector_bytes = 4096;
  const auto wide = fat32::plan(built.tree, options);
  REQUIRE(wide);
  const auto refused = syslinux_patches(from, **wide, "ldlinux.sys", {});
  REQUIRE(!refused);
  CHECK(hinted_text(refused.error()) ==
        "SYSLINUX boots from sectors of 512 bytes, and these have 4096 [sector-size=512]");
}

TEST_CASE("a piece that is missing is named with its package") {
  const TempDir empty;
  const auto missing = read_boot_piece("mbr.bin", empty.path().string());
  REQUIRE(!missing);
  CHECK(missing.error().code == Errc::unreadable);
  CHECK(hinted_text(missing.error()).find("[Debian's package syslinux-common] [boot-files]") !=
        std::string::npos);
  for (const BootPieceName& name : boot_piece_names()) {
    CAPTURE(name.name);
    CHECK(read_boot_piece(name.name, "").has_value());
  }
}
