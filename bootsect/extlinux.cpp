// SPDX-License-Identifier: BSD-3-Clause
//
// The file system begins at byte 1024 and leaves the first two sectors to boot code, so the boot
// sector is all EXTLINUX's. Its code is that of SYSLINUX on FAT and reads a BPB: one is made with
// what the code looks for, and zeroes for all else.
#include "bootsect/extlinux.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <limits>
#include <utility>

#include "support/byte_order.h"

namespace mkvirtfs::bootsect {
namespace {

constexpr std::size_t kSector = 512;

// Places in the BPB.
constexpr std::size_t kBpb = 0x0B;
constexpr std::size_t kBpbEnd = 0x5A;
constexpr std::size_t kSectorBytes = 0x0B;
constexpr std::size_t kSectorCount16 = 0x13;
constexpr std::size_t kSectorsPerTrack = 0x18;
constexpr std::size_t kHeads = 0x1A;
constexpr std::size_t kFirstSector = 0x1C;
constexpr std::size_t kSectorCount32 = 0x20;

struct Geometry {
  std::uint64_t sector_count;
  std::uint16_t heads;
  std::uint16_t sectors_per_track;
};

/// Of what has the size of a floppy disk; all else has that of Zip disks. The code asks the BIOS
/// for the geometry of a hard disk.
constexpr std::array kFloppies = std::to_array<Geometry>({{720, 2, 9},
                                                          {1440, 2, 9},
                                                          {2400, 2, 15},
                                                          {2880, 2, 18},
                                                          {3360, 2, 21},
                                                          {3444, 2, 21},
                                                          {5760, 2, 36},
                                                          {7680, 2, 48}});
constexpr Geometry kZip{0, 64, 32};

}  // namespace

std::vector<std::byte> extlinux_boot_sector(std::span<const std::byte> boot_sector,
                                            std::uint32_t first_sector,
                                            std::uint64_t sector_count) {
  assert(boot_sector.size() == kSector);
  std::vector<std::byte> made(boot_sector.begin(), boot_sector.end());
  const std::span<std::byte> out(made);
  std::ranges::fill(out.subspan(kBpb, kBpbEnd - kBpb), std::byte{0});
  const auto floppy = std::ranges::find(kFloppies, sector_count, &Geometry::sector_count);
  const Geometry& geometry = floppy == kFloppies.end() ? kZip : *floppy;
  const bool is_short = sector_count <= std::numeric_limits<std::uint16_t>::max();
  store_le(out, kSectorBytes, static_cast<std::uint16_t>(kSector));
  store_le(out, kSectorCount16, static_cast<std::uint16_t>(is_short ? sector_count : 0));
  store_le(out, kSectorsPerTrack, geometry.sectors_per_track);
  store_le(out, kHeads, geometry.heads);
  store_le(out, kFirstSector, first_sector);
  // The low half of what is longer, as the installer has it; no code reads it.
  store_le(out, kSectorCount32, static_cast<std::uint32_t>(sector_count));
  return made;
}

Result<std::vector<Patch>> extlinux_patches(const SyslinuxTemplate& from, const PlannedImage& image,
                                            std::string_view path, std::uint64_t first_sector,
                                            const SyslinuxSettings& settings) {
  if (image.structure("superblock").empty()) {
    return fail(Errc::unsupported, "EXTLINUX boots from ext2, ext3 and ext4", {{"fs", "ext4"}});
  }
  if (first_sector > std::numeric_limits<std::uint32_t>::max()) {
    return fail(Errc::does_not_fit,
                fmt::format("EXTLINUX's volume begins at sector {}; its boot sector ends at {}",
                            first_sector, std::numeric_limits<std::uint32_t>::max()),
                {{"offset"}});
  }
  auto placed = place_syslinux(from, image, path, "/", settings);
  if (!placed) return propagate(placed);
  std::vector<Patch> patches = std::move(placed->patches);
  patches.push_back(
      {0,
       extlinux_boot_sector(placed->bytes.boot_sector, static_cast<std::uint32_t>(first_sector),
                            image.size_bytes() / kSector),
       "EXTLINUX's boot sector"});
  return patches;
}

}  // namespace mkvirtfs::bootsect
