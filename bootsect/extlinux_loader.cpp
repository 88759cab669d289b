// SPDX-License-Identifier: BSD-3-Clause
//
// EXTLINUX as a row of the loaders: its files stand where Debian's extlinux-install puts them, and
// where the volume is a partition, SYSLINUX's own MBR starts it.
#include <fmt/format.h>

#include <array>

#include "bootsect/boot_loader.h"
#include "bootsect/extlinux.h"
#include "bootsect/syslinux.h"

namespace mkvirtfs::bootsect {
namespace {

constexpr std::string_view kInstaller = "extlinux";
constexpr std::string_view kLoaderFile = "boot/extlinux/ldlinux.sys";
constexpr std::string_view kModuleFile = "boot/extlinux/ldlinux.c32";

/// The directory of the loader comes first.
constexpr std::array<std::string_view, 8> kConfigPaths{"boot/extlinux/extlinux.conf",
                                                       "boot/extlinux/syslinux.cfg",
                                                       "boot/syslinux/extlinux.conf",
                                                       "boot/syslinux/syslinux.cfg",
                                                       "syslinux/extlinux.conf",
                                                       "syslinux/syslinux.cfg",
                                                       "extlinux.conf",
                                                       "syslinux.cfg"};

Result<void> check(const BootPlace& place) {
  if (!place.format.starts_with("ext")) {
    return fail(Errc::unsupported,
                fmt::format("EXTLINUX boots from ext2, ext3 and ext4, not from {}", place.format),
                {{"fs", "ext4"}});
  }
  return check_syslinux_sectors("EXTLINUX", place);
}

std::vector<PieceRequest> pieces_of(const BootPlace& place) {
  return syslinux_pieces(kInstaller, place);
}

Result<std::vector<BootFile>> files_of(const PieceBytes& pieces, const BootPlace&) {
  const Result<SyslinuxTemplate> from = find_syslinux(piece(pieces, kInstaller));
  if (!from) return propagate(from);
  return std::vector<BootFile>{{std::string(kLoaderFile), syslinux_file(*from)},
                               {std::string(kModuleFile), piece(pieces, kSyslinuxModule)}};
}

Result<std::vector<Patch>> volume_patches(const PieceBytes& pieces, const BootPlace& place,
                                          const PlannedImage& image) {
  const Result<SyslinuxTemplate> from = find_syslinux(piece(pieces, kInstaller));
  if (!from) return propagate(from);
  return extlinux_patches(*from, image, kLoaderFile, place.start_bytes / place.sector_bytes, {});
}

}  // namespace

BootLoader extlinux_loader() noexcept {
  return {.name = "extlinux",
          .title = "EXTLINUX",
          .mbr_code = "SYSLINUX",
          .check = check,
          .config_paths = kConfigPaths,
          .made_config = kConfigPaths.front(),
          .config = syslinux_config,
          .pieces = pieces_of,
          .files = files_of,
          .volume_patches = volume_patches,
          .disk_patches = syslinux_disk_patches};
}

}  // namespace mkvirtfs::bootsect
