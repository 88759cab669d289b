// SPDX-License-Identifier: BSD-3-Clause
//
// ISOLINUX as a row of the loaders: an ISO image that firmware starts from a CD, and that has a
// partition table of its own, for firmware that starts it from a disk.
#include <fmt/format.h>

#include <array>

#include "bootsect/boot_loader.h"
#include "bootsect/isolinux.h"
#include "bootsect/syslinux.h"

namespace mkvirtfs::bootsect {
namespace {

constexpr std::string_view kLoader = "isolinux.bin";
constexpr std::string_view kHybridCode = "isohdpfx.bin";
constexpr std::string_view kLoaderFile = "isolinux/isolinux.bin";
constexpr std::string_view kModuleFile = "isolinux/ldlinux.c32";

constexpr std::array<std::string_view, 10> kConfigPaths{"boot/isolinux/isolinux.cfg",
                                                        "boot/isolinux/syslinux.cfg",
                                                        "isolinux/isolinux.cfg",
                                                        "isolinux/syslinux.cfg",
                                                        "boot/syslinux/isolinux.cfg",
                                                        "boot/syslinux/syslinux.cfg",
                                                        "syslinux/isolinux.cfg",
                                                        "syslinux/syslinux.cfg",
                                                        "isolinux.cfg",
                                                        "syslinux.cfg"};

Result<void> check(const BootPlace& place) {
  if (place.format != "iso") {
    return fail(Errc::unsupported,
                fmt::format("ISOLINUX boots from ISO 9660, not from {}", place.format),
                {{"fs", "iso"}});
  }
  if (place.table) {
    return fail(
        Errc::unsupported,
        "ISOLINUX boots an image that has a partition table of its own, and no disk around it",
        {{"table", "none"}, {"table", "hybrid"}});
  }
  return check_syslinux_sectors("ISOLINUX", place);
}

std::vector<PieceRequest> pieces_of(const BootPlace&) {
  return {{kLoader, {}}, {kSyslinuxModule, {}}, {kHybridCode, {}}};
}

Result<IsolinuxTemplate> template_of(const PieceBytes& pieces) {
  return check_isolinux(piece(pieces, kLoader), piece(pieces, kHybridCode));
}

Result<std::vector<BootFile>> files_of(const PieceBytes& pieces, const BootPlace&) {
  Result<IsolinuxTemplate> from = template_of(pieces);
  if (!from) return propagate(from);
  return std::vector<BootFile>{{std::string(kLoaderFile), std::move(from->loader)},
                               {std::string(kModuleFile), piece(pieces, kSyslinuxModule)}};
}

Result<std::vector<Patch>> volume_patches(const PieceBytes& pieces, const BootPlace& place,
                                          const PlannedImage& image) {
  const Result<IsolinuxTemplate> from = template_of(pieces);
  if (!from) return propagate(from);
  return isolinux_patches(*from, image, kLoaderFile, place.iso);
}

}  // namespace

BootLoader isolinux_loader() noexcept {
  return {.name = "isolinux",
          .title = "ISOLINUX",
          .mbr_code = "ISOLINUX",
          .check = check,
          .config_paths = kConfigPaths,
          .made_config = "isolinux/isolinux.cfg",
          .config = syslinux_config,
          .pieces = pieces_of,
          .files = files_of,
          .boot_file = kLoaderFile,
          .align_bytes = kIsohybridAlignmentBytes,
          .volume_patches = volume_patches};
}

}  // namespace mkvirtfs::bootsect
