// SPDX-License-Identifier: BSD-3-Clause
//
// boot.img is the code of an MBR: it loads the first sector of core.img, whose number stands in it.
// That sector loads the others by a list of runs, which grows down from its end; one run is
// enough here.
#include "bootsect/grub.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <utility>

#include "support/arithmetic.h"
#include "support/byte_order.h"

namespace mkvirtfs::bootsect {
namespace {

constexpr std::size_t kSector = 512;

// In boot.img. Between jump and code is room for a BPB; behind the code is the MBR's table.
constexpr std::size_t kJumpBytes = 3;
constexpr std::size_t kCode = 0x5A;
constexpr std::size_t kCoreSector = 0x5C;
constexpr std::size_t kBootDrive = 0x64;
constexpr std::size_t kDriveCheck = 0x66;
constexpr std::size_t kName = 0x180;
constexpr std::size_t kTable = 0x1B8;
constexpr std::size_t kSignature = 0x1FE;
constexpr std::uint16_t kDriveCheckJump = 0x05EB;
constexpr std::uint16_t kTwoNops = 0x9090;

// In the first sector of core.img.
constexpr std::size_t kFirstRun = 0x1F4;
constexpr std::size_t kRunBytes = 12;
constexpr std::size_t kRunSectors = kFirstRun + 8;
constexpr std::size_t kRunSegment = kFirstRun + 10;
constexpr std::uint16_t kLoadSegment = 0x820;
constexpr std::size_t kMostCoreBytes = 0x78000;  // what grub-mkimage makes at most

constexpr std::array kModules = std::to_array<std::string_view>(
    {"biosdisk", "part_msdos", "part_gpt", "ext2", "fat", "iso9660", "normal", "linux", "search",
     "search_fs_uuid", "search_label", "configfile", "test", "echo", "serial", "gzio"});

std::unexpected<Error> fail_unknown(std::string_view what) {
  return fail(Errc::unsupported, fmt::format("not a piece of GRUB for BIOS: {}", what));
}

bool is_boot(std::span<const std::byte> boot) noexcept {
  constexpr std::array kText = {std::byte{'G'}, std::byte{'R'}, std::byte{'U'}, std::byte{'B'}};
  return boot.size() == kSector && load_le<std::uint64_t>(boot, kCoreSector) == 1 &&
         boot[kBootDrive] == std::byte{0xFF} &&
         load_le<std::uint16_t>(boot, kDriveCheck) == kDriveCheckJump &&
         std::ranges::equal(boot.subspan(kName, kText.size()), kText) &&
         load_le<std::uint16_t>(boot, kSignature) == 0xAA55;
}

/// grub-mkimage has made the list for a core.img behind the MBR: one run, and one of no length.
bool is_core(std::span<const std::byte> core, std::uint64_t sector_count) noexcept {
  return load_le<std::uint64_t>(core, kFirstRun) == 2 &&
         load_le<std::uint16_t>(core, kRunSectors) == sector_count - 1 &&
         load_le<std::uint16_t>(core, kRunSegment) == kLoadSegment &&
         load_le<std::uint16_t>(core, kRunSectors - kRunBytes) == 0;
}

std::vector<std::byte> part_of(std::span<const std::byte> bytes, std::size_t from, std::size_t to) {
  const auto part = bytes.subspan(from, to - from);
  return {part.begin(), part.end()};
}

}  // namespace

Result<GrubTemplate> check_grub(std::vector<std::byte> boot, std::vector<std::byte> core) {
  if (!is_boot(boot)) return fail_unknown("boot.img is another version's, or none");
  if (core.size() <= kSector || core.size() > kMostCoreBytes) {
    return fail_unknown(fmt::format("core.img of {} bytes", core.size()));
  }
  if (!is_core(core, ceil_div(core.size(), kSector))) {
    return fail_unknown("core.img without the list of its sectors");
  }
  core.resize(round_up(core.size(), kSector));
  return GrubTemplate{std::move(boot), std::move(core)};
}

std::vector<Patch> grub_patches(const GrubTemplate& from, std::uint64_t core_sector) {
  assert(core_sector != 0);
  std::vector<std::byte> boot = from.boot;
  store_le(std::span(boot), kCoreSector, core_sector);
  // BIOSes that report a wrong drive are not believed: this is no floppy disk.
  store_le(std::span(boot), kDriveCheck, kTwoNops);
  std::vector<std::byte> core = from.core;
  store_le(std::span(core), kFirstRun, core_sector + 1);
  std::vector<Patch> patches;
  patches.push_back({0, part_of(boot, 0, kJumpBytes), "GRUB's jump"});
  patches.push_back({kCode, part_of(boot, kCode, kTable), "GRUB's boot code"});
  patches.push_back({core_sector * kSector, std::move(core), "GRUB's core.img"});
  return patches;
}

std::string grub_prefix(TableKind table, std::uint32_t partition) {
  return fmt::format("(,{}{})/boot/grub", table == TableKind::gpt ? "gpt" : "msdos", partition);
}

std::span<const std::string_view> grub_modules() noexcept { return kModules; }

}  // namespace mkvirtfs::bootsect
