// SPDX-License-Identifier: BSD-3-Clause
// The judge is `extlinux --install`, which needs a mounted file system: what it wrote is in
// testing/extlinux-golden.txt, made by the script beside it.
#include "bootsect/extlinux.h"

#include <catch2/catch.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "bootsect/testing/image_file.h"
#include "fsgen/ext2/plan.h"
#include "fsgen/fat32/plan.h"
#include "fsgen/tree/tree_builder.h"
#include "support/byte_order.h"
#include "support/sha256.h"
#include "tests/support/temp_dir.h"

using namespace mkvirtfs;
using namespace mkvirtfs::bootsect;
using testing::dumped;
using testing::piece;
using testing::text_of;

namespace {

constexpr std::size_t kSector = 512;

SyslinuxTemplate found() {
  auto from = find_syslinux(piece("extlinux"));
  if (!from) FAIL(from.error().what);
  return *std::move(from);
}

std::string digest_of(std::span<const std::byte> bytes) {
  Sha256 digest;
  digest.update(bytes);
  std::string text;
  for (const std::byte byte : digest.finish()) text += fmt::format("{:02x}", byte);
  return text;
}

/// A line of the golden file.
struct Golden {
  std::uint64_t size_bytes = 0;
  std::string directory;
  std::string option;
  std::string boot_sector;
  std::string file;
  std::vector<std::uint64_t> sectors;

  explicit Golden(const std::string& line) {
    std::istringstream words(line);
    words >> size_bytes >> directory >> option >> boot_sector >> file;
    std::uint64_t first = 0;
    std::uint64_t count = 0;
    for (char plus = 0; words >> first >> plus >> count;) {
      for (std::uint64_t at = 0; at < count; ++at) sectors.push_back(first + at);
    }
    directory = directory == "-" ? "/" : "/" + directory;
  }
};

BuiltTree tree_with_loader(const SyslinuxTemplate& from, const std::string& directory) {
  return TreeBuilder{}
      .file(directory + "ldlinux.sys", text_of(syslinux_file(from)))
      .file(directory + "ldlinux.c32", text_of(piece("ldlinux.c32")))
      .file("a.txt", "something before it\n")
      .patterned_file("z.bin", 100'000)
      .build();
}

std::shared_ptr<const PlannedImage> planned(const BuiltTree& built, const ext2::Options& options) {
  auto image = ext2::plan(built.tree, options);
  if (!image) FAIL(hinted_text(image.error()));
  return *std::move(image);
}

/// The sectors of a file as debugfs finds them: "(0-11):25-36, (IND):37, (12-57):38-83".
std::vector<std::uint64_t> sectors_by_debugfs(const std::string& path, const std::string& file,
                                              std::uint32_t block_bytes, std::size_t count) {
  const std::string said = run_tool({"debugfs", "-R", "stat /" + file, path}).output;
  INFO(said);
  std::vector<std::uint64_t> sectors;
  std::size_t at = std::min(said.find("\nBLOCKS:"), said.find("\nEXTENTS:"));
  while ((at = said.find('(', at)) != said.npos) {
    const std::size_t close = said.find("):", at++);
    if (said[at] < '0' || said[at] > '9') continue;  // a block of the file system's own
    std::uint64_t first = 0;
    std::uint64_t last = 0;
    const auto read = std::from_chars(said.data() + close + 2, said.data() + said.size(), first);
    last = first;
    if (*read.ptr == '-') std::from_chars(read.ptr + 1, said.data() + said.size(), last);
    const std::uint64_t per_block = block_bytes / kSector;
    for (std::uint64_t sector = first * per_block; sector < (last + 1) * per_block; ++sector) {
      sectors.push_back(sector);
    }
  }
  REQUIRE(sectors.size() >= count);
  sectors.resize(count);
  return sectors;
}

void judge(const std::string& directory, const ext2::Options& options) {
  const TempDir work;
  const SyslinuxTemplate from = found();
  const BuiltTree built = tree_with_loader(from, directory.empty() ? "" : directory + "/");
  const auto image = planned(built, options);
  const std::string plain = dumped(image, built.store, (work / "plain").string());
  const std::string file = directory.empty() ? "ldlinux.sys" : directory + "/ldlinux.sys";
  const std::uint64_t first_sector = 2048;
  const auto patches = extlinux_patches(from, *image, file, first_sector, {});
  if (!patches) FAIL(hinted_text(patches.error()));
  const auto boots = patched(image, *patches);
  REQUIRE(boots);
  const std::string path = (work / "ours").string();
  const std::string ours = dumped(*boots, built.store, path);
  const Ran fsck = run_tool({"e2fsck", "-fn", path});
  INFO(fsck.output);
  CHECK(fsck.status == 0);

  // With the places that debugfs finds, and nothing else changed.
  const std::size_t count = from.loader.size() / kSector + 2;
  const auto sectors = sectors_by_debugfs(path, file, options.block_bytes, count);
  const auto made = patch_syslinux(from, sectors, "/" + directory, {});
  REQUIRE(made);
  std::string expected = plain;
  expected.replace(0, kSector,
                   text_of(extlinux_boot_sector(made->boot_sector, first_sector,
                                                image->size_bytes() / kSector)));
  for (std::size_t at = 0; at < count; ++at) {
    expected.replace(sectors[at] * kSector, kSector,
                     text_of(made->file).substr(at * kSector, kSector));
  }
  CHECK((ours == expected));
  CHECK(load_le<std::uint32_t>(std::as_bytes(std::span(ours)), 0x1C) == first_sector);
}

}  // namespace

TEST_CASE("extlinux --install writes the same bytes for the same places") {
  const SyslinuxTemplate from = found();
  std::ifstream lines(MKVIRTFS_BOOTSECT_TESTING_DIR "/extlinux-golden.txt");
  std::size_t cases = 0;
  for (std::string line; std::getline(lines, line); ++cases) {
    CAPTURE(line);
    Golden golden(line);
    const std::size_t count = from.loader.size() / kSector + 2;
    REQUIRE(golden.sectors.size() >= count);
    golden.sectors.resize(count);
    const SyslinuxSettings settings{.one_sector_reads = golden.option == "-s",
                                    .next_device_if_no = golden.option == "-r"};
    const auto made = patch_syslinux(from, golden.sectors, golden.directory, settings);
    REQUIRE(made);
    CHECK(digest_of(made->file) == golden.file);
    CHECK(digest_of(extlinux_boot_sector(made->boot_sector, 0, golden.size_bytes / kSector)) ==
          golden.boot_sector);
  }
  CHECK(cases == 14);
}

TEST_CASE("EXTLINUX on an ext image is its loader in its places, and a boot sector") {
  ext2::Options options;
  options.block_bytes = 1024;
  options.size_bytes = 8u << 20;
  judge("boot", options);
  options.variant = ext2::Variant::ext3;
  options.block_bytes = 2048;
  options.size_bytes = 64u << 20;
  judge("", options);
  options.variant = ext2::Variant::ext4;
  options.block_bytes = 4096;
  judge("boot/extlinux", options);
}

TEST_CASE("what EXTLINUX cannot boot is refused") {
  const SyslinuxTemplate from = found();
  const BuiltTree built = tree_with_loader(from, "");
  ext2::Options options;
  options.size_bytes = 8u << 20;
  const auto image = planned(built, options);
  const auto missing = extlinux_patches(from, *image, "boot/ldlinux.sys", 0, {});
  REQUIRE(!missing);
  CHECK(missing.error().what == "boot/ldlinux.sys: not the loader's 59392 bytes");
  const auto far = extlinux_patches(from, *image, "ldlinux.sys", std::uint64_t{1} << 32, {});
  REQUIRE(!far);
  CHECK(far.error().code == Errc::does_not_fit);
  const auto fat = fat32::plan(built.tree, {});
  REQUIRE(fat);
  const auto refused = extlinux_patches(from, **fat, "ldlinux.sys", 0, {});
  REQUIRE(!refused);
  CHECK(hinted_text(refused.error()) == "EXTLINUX boots from ext2, ext3 and ext4 [fs=ext4]");
}

TEST_CASE("a loader with a hole in it is refused") {
  const SyslinuxTemplate from = found();
  const std::uint64_t size = syslinux_file(from).size();
  const BuiltTree built =
      TreeBuilder{}.sparse_file("ldlinux.sys", size, {{0, 8192}, {16384, size - 16384}}).build();
  ext2::Options options;
  options.size_bytes = 8u << 20;
  const auto refused = extlinux_patches(from, *planned(built, options), "ldlinux.sys", 0, {});
  REQUIRE(!refused);
  CHECK(refused.error().what == "ldlinux.sys: byte 8192 lies in no sector");
}
