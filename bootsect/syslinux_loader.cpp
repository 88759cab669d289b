// SPDX-License-Identifier: BSD-3-Clause
//
// SYSLINUX as a row of the loaders: its files stand in the root of a FAT volume, and where the
// volume is a partition, SYSLINUX's own MBR starts the one that is active (MBR) or legacy BIOS
// bootable (GPT).
#include <fmt/format.h>

#include <array>

#include "bootsect/boot_loader.h"
#include "bootsect/mbr.h"
#include "bootsect/syslinux.h"

namespace mkvirtfs::bootsect {
namespace {

constexpr std::string_view kInstaller = "syslinux";
constexpr std::string_view kLoaderFile = "ldlinux.sys";

/// The directory of the loader comes first, here the root.
constexpr std::array<std::string_view, 6> kConfigPaths{"extlinux.conf",
                                                       "syslinux.cfg",
                                                       "boot/syslinux/extlinux.conf",
                                                       "boot/syslinux/syslinux.cfg",
                                                       "syslinux/extlinux.conf",
                                                       "syslinux/syslinux.cfg"};

std::string_view mbr_name(TableKind table) noexcept {
  return table == TableKind::gpt ? "gptmbr.bin" : "mbr.bin";
}

Result<void> check(const BootPlace& place) {
  if (!place.format.starts_with("fat")) {
    return fail(Errc::unsupported,
                fmt::format("SYSLINUX boots from FAT, not from {}", place.format), {{"fs", "fat"}});
  }
  return check_syslinux_sectors("SYSLINUX", place);
}

std::vector<PieceRequest> pieces_of(const BootPlace& place) {
  return syslinux_pieces(kInstaller, place);
}

Result<std::vector<BootFile>> files_of(const PieceBytes& pieces, const BootPlace&) {
  const Result<SyslinuxTemplate> from = find_syslinux(piece(pieces, kInstaller));
  if (!from) return propagate(from);
  return std::vector<BootFile>{{std::string(kLoaderFile), syslinux_file(*from)},
                               {std::string(kSyslinuxModule), piece(pieces, kSyslinuxModule)}};
}

Result<std::vector<Patch>> volume_patches(const PieceBytes& pieces, const BootPlace&,
                                          const PlannedImage& image) {
  const Result<SyslinuxTemplate> from = find_syslinux(piece(pieces, kInstaller));
  if (!from) return propagate(from);
  return syslinux_patches(*from, image, kLoaderFile, {});
}

}  // namespace

Result<void> check_syslinux_sectors(std::string_view loader, const BootPlace& place) {
  if (place.sector_bytes == kUsualSectorBytes) return {};
  return fail(Errc::unsupported,
              fmt::format("{} boots from disks with sectors of {} bytes, not {}", loader,
                          kUsualSectorBytes, place.sector_bytes),
              {{"sector-size", fmt::format("{}", kUsualSectorBytes)}});
}

std::vector<PieceRequest> syslinux_pieces(std::string_view installer, const BootPlace& place) {
  std::vector<PieceRequest> pieces{{installer, {}}, {kSyslinuxModule, {}}};
  if (place.table) pieces.push_back({mbr_name(*place.table), {}});
  return pieces;
}

Result<std::vector<Patch>> syslinux_disk_patches(const PieceBytes& pieces, const BootPlace& place,
                                                 std::span<const PlacedPart>) {
  const std::string_view name = mbr_name(*place.table);
  const std::vector<std::byte>& code = piece(pieces, name);
  if (code.empty() || code.size() > kMbrCodeBytes) {
    return fail(Errc::unsupported, fmt::format("{} has {} bytes, and an MBR has room for {}", name,
                                               code.size(), kMbrCodeBytes));
  }
  return std::vector<Patch>{{0, code, fmt::format("boot code ({})", name)}};
}

std::string syslinux_config(const BootEntry& entry) {
  // The time is in tenths of a second. PROMPT 0 starts at once; 1 waits so long.
  std::string text = "SERIAL 0 115200\n";
  if (entry.timeout_s) text += fmt::format("PROMPT 1\nTIMEOUT {}\n", 10 * *entry.timeout_s);
  text += fmt::format("DEFAULT linux\nLABEL linux\n  LINUX /{}\n", entry.kernel);
  std::string initrds;
  for (const std::string& initrd : entry.initrds) {
    initrds += fmt::format("{}/{}", initrds.empty() ? "" : ",", initrd);
  }
  if (!initrds.empty()) text += fmt::format("  INITRD {}\n", initrds);
  if (!entry.append.empty()) text += fmt::format("  APPEND {}\n", entry.append);
  return text;
}

BootLoader syslinux_loader() noexcept {
  return {.name = "syslinux",
          .title = "SYSLINUX",
          .mbr_code = "SYSLINUX",
          .check = check,
          .config_paths = kConfigPaths,
          .made_config = "syslinux.cfg",
          .config = syslinux_config,
          .pieces = pieces_of,
          .files = files_of,
          .volume_patches = volume_patches,
          .disk_patches = syslinux_disk_patches};
}

}  // namespace mkvirtfs::bootsect
