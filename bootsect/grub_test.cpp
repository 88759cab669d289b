// SPDX-License-Identifier: BSD-3-Clause
// The judge is `grub-bios-setup --no-rs-codes`. It needs a mounted file system with its pieces:
// what it wrote is in testing/grub-golden.txt, made by the script beside it.
#include "bootsect/grub.h"

#include <catch2/catch.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "bootsect/made_pieces.h"
#include "bootsect/testing/image_file.h"
#include "support/byte_order.h"
#include "support/sha256.h"
#include "support/text.h"
#include "tests/support/temp_dir.h"

using namespace mkvirtfs;
using namespace mkvirtfs::bootsect;
using testing::bytes_of;
using testing::piece;
using testing::text_of;

namespace {

constexpr std::size_t kSector = 512;

/// A core.img of no version: what grub-bios-setup looks at, and a pattern. The script makes the
/// same ones.
std::vector<std::byte> made_core(std::size_t size_bytes) {
  std::vector<std::byte> core(size_bytes);
  for (std::size_t at = 0; at < core.size(); ++at) core[at] = static_cast<std::byte>(at * 7 % 251);
  const std::span<std::byte> out(core);
  std::ranges::fill(out.subspan(0x1E8, 12), std::byte{0});
  store_le(out, 0x1F4, std::uint64_t{2});
  store_le(out, 0x1FC, static_cast<std::uint16_t>((size_bytes + kSector - 1) / kSector - 1));
  store_le(out, 0x1FE, std::uint16_t{0x820});
  return core;
}

std::vector<std::byte> made_boot() {
  std::vector<std::byte> boot(kSector);
  for (std::size_t at = 0; at < boot.size(); ++at) boot[at] = static_cast<std::byte>(at * 11 % 253);
  const std::span<std::byte> out(boot);
  store_le(out, 0x5C, std::uint64_t{1});
  out[0x64] = std::byte{0xFF};
  store_le(out, 0x66, std::uint16_t{0x05EB});
  std::ranges::copy(bytes_of("GRUB "), boot.begin() + 0x180);
  store_le(out, 0x1FE, std::uint16_t{0xAA55});
  return boot;
}

GrubTemplate checked(std::vector<std::byte> boot, std::vector<std::byte> core) {
  auto from = check_grub(std::move(boot), std::move(core));
  if (!from) FAIL(from.error().what);
  return *std::move(from);
}

std::string digest_of(std::string_view bytes) {
  Sha256 digest;
  digest.update(std::as_bytes(std::span(bytes)));
  return hex(text_of(digest.finish()));
}

}  // namespace

TEST_CASE("grub-bios-setup writes the same bytes around the same table") {
  // A line of the golden file: table, size of core.img, its first sector, bytes that are compared,
  // their SHA-256.
  std::ifstream lines(MKVIRTFS_BOOTSECT_TESTING_DIR "/grub-golden.txt");
  std::size_t cases = 0;
  for (std::string line; std::getline(lines, line); ++cases) {
    CAPTURE(line);
    std::istringstream words(line);
    std::string table;
    std::size_t core_bytes = 0;
    std::uint64_t core_sector = 0;
    std::size_t compared_bytes = 0;
    std::string digest;
    words >> table >> core_bytes >> core_sector >> compared_bytes >> digest;
    const TempDir work;
    const std::string path = (work / "disk").string();
    const Ran ran = run_tool({MKVIRTFS_BOOTSECT_TESTING_DIR "/make-table", table, path});
    INFO(ran.output);
    REQUIRE(ran.status == 0);
    std::string disk = testing::bytes_at(path, 0, compared_bytes);
    for (const Patch& patch :
         grub_patches(checked(made_boot(), made_core(core_bytes)), core_sector)) {
      disk.replace(patch.offset, patch.bytes.size(), text_of(patch.bytes));
    }
    REQUIRE(disk.size() == compared_bytes);
    CHECK(digest_of(disk) == digest);
  }
  CHECK(cases == 3);
}

TEST_CASE("grub-mkimage's core.img behind the MBR is as it was made") {
  MadePieces made("");
  const auto core = made.grub_core(grub_prefix(TableKind::mbr, 1), "");
  if (!core) FAIL(hinted_text(core.error()));
  CHECK(text_of(*core).find("(,msdos1)/boot/grub") == std::string::npos);  // it is compressed
  const GrubTemplate from = checked(piece("boot.img"), *core);
  const std::vector<Patch> patches = grub_patches(from, 1);
  REQUIRE(patches.size() == 3);
  CHECK(patches[2].offset == kSector);
  CHECK((patches[2].bytes == from.core));
  CHECK(from.core.size() % kSector == 0);
  CHECK(kSector + from.core.size() < (1u << 20));
  // In a partition only its list differs.
  const std::vector<Patch> elsewhere = grub_patches(from, 0x1'0000'0000);
  CHECK(elsewhere[2].offset == 0x1'0000'0000 * kSector);
  CHECK(load_le<std::uint64_t>(elsewhere[2].bytes, 0x1F4) == 0x1'0000'0001);
  std::vector<std::byte> core_there = elsewhere[2].bytes;
  store_le(std::span(core_there), 0x1F4, std::uint64_t{2});
  CHECK((core_there == from.core));
  CHECK(load_le<std::uint64_t>(elsewhere[1].bytes, 2) == 0x1'0000'0000);
}

TEST_CASE("prefixes name a partition of the disk from which GRUB started") {
  CHECK(grub_prefix(TableKind::mbr, 5) == "(,msdos5)/boot/grub");
  CHECK(grub_prefix(TableKind::gpt, 2) == "(,gpt2)/boot/grub");
}

TEST_CASE("what is no piece of GRUB is refused") {
  const auto error_of = [](std::vector<std::byte> boot, std::vector<std::byte> core) {
    const auto checked = check_grub(std::move(boot), std::move(core));
    return checked ? std::string() : checked.error().what;
  };
  const std::string no_boot =
      "not a piece of GRUB for BIOS: boot.img is another version's, or none";
  CHECK(error_of({}, made_core(5000)) == no_boot);
  CHECK(error_of(piece("mbr.bin"), made_core(5000)) == no_boot);
  for (const std::size_t at : {0x5Cu, 0x64u, 0x66u, 0x180u, 0x1FEu}) {
    CAPTURE(at);
    std::vector<std::byte> boot = made_boot();
    boot[at] ^= std::byte{1};
    CHECK(error_of(boot, made_core(5000)) == no_boot);
  }
  CHECK(error_of(made_boot(), {}) == "not a piece of GRUB for BIOS: core.img of 0 bytes");
  CHECK(error_of(made_boot(), made_core(0x78001)) ==
        "not a piece of GRUB for BIOS: core.img of 491521 bytes");
  for (const std::size_t at : {0x1F0u, 0x1F4u, 0x1FCu, 0x1FEu}) {
    CAPTURE(at);
    std::vector<std::byte> core = made_core(5000);
    core[at] ^= std::byte{1};
    CHECK(error_of(made_boot(), core) ==
          "not a piece of GRUB for BIOS: core.img without the list of its sectors");
  }
}
