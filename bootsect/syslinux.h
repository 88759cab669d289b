// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bootsect/boot_loader.h"
#include "fsgen/image/patched_image.h"
#include "fsgen/image/planned_image.h"
#include "support/error.h"

// SYSLINUX 6.04 on FAT, as `syslinux --install` does it. Pure functions: the installer's own bytes
// and places in; bytes out. None of SYSLINUX's bytes is a part of this program.

namespace mkvirtfs::bootsect {

/// What an installer carries: a boot sector, and the loader without the sectors that hold its
/// settings. find_syslinux() has checked all that patch_syslinux() follows.
struct SyslinuxTemplate {
  std::vector<std::byte> boot_sector;  ///< 512 bytes
  std::vector<std::byte> loader;       ///< whole sectors of 512 bytes
};

/// Finds the template in the program `syslinux` or `extlinux`. Errors: Errc::unsupported for what
/// is no such program, or another version of it.
Result<SyslinuxTemplate> find_syslinux(std::span<const std::byte> installer);

/// What a user may set.
struct SyslinuxSettings {
  bool one_sector_reads = false;   ///< -s: for bad BIOSes
  bool next_device_if_no = false;  ///< -r: where the loader is missing, the next device is tried
};

/// The bytes of ldlinux.sys before anybody knows where they lie: what a tree has to hold.
std::vector<std::byte> syslinux_file(const SyslinuxTemplate& from);

struct SyslinuxBytes {
  std::vector<std::byte> boot_sector;  ///< of the template, without a file system's own bytes
  std::vector<std::byte> file;         ///< ldlinux.sys
};

/// The same for a file whose sectors of 512 bytes lie at these sectors of the volume. `directory`
/// is where it lies, "/boot/syslinux"; empty for the root of FAT, "/" for that of ext.
///
/// Errors: Errc::does_not_fit for a file in too many pieces, or a directory with too long a name.
Result<SyslinuxBytes> patch_syslinux(const SyslinuxTemplate& from,
                                     std::span<const std::uint64_t> sectors,
                                     std::string_view directory, const SyslinuxSettings& settings);

/// The loader in an image of any format.
struct PlacedSyslinux {
  SyslinuxBytes bytes;
  std::vector<Patch> patches;  ///< of ldlinux.sys; the boot sector's are the format's own
};

/// The same for the syslinux_file() which lies at `path` of the image's tree. `root` is the name of
/// its directory when that is the root: installers differ.
///
/// Errors: as patch_syslinux(); Errc::usage for an image without that file, or with another one
/// there; Errc::unsupported for one that is not wholly stored.
Result<PlacedSyslinux> place_syslinux(const SyslinuxTemplate& from, const PlannedImage& image,
                                      std::string_view path, std::string_view root,
                                      const SyslinuxSettings& settings);

/// The patches that make a FAT image boot the syslinux_file() which lies at `path` of its tree:
/// the loader's own places, and the boot sector with its backup.
///
/// Errors: as place_syslinux(); Errc::unsupported for sectors of other than 512 bytes, and for what
/// is no FAT.
Result<std::vector<Patch>> syslinux_patches(const SyslinuxTemplate& from, const PlannedImage& image,
                                            std::string_view path,
                                            const SyslinuxSettings& settings);

// What SYSLINUX and its kin share as rows of the loaders (bootsect/boot_loader.h).

BootLoader syslinux_loader() noexcept;
/// Errc::unsupported for sectors of other than 512 bytes; `loader` is for the message.
Result<void> check_syslinux_sectors(std::string_view loader, const BootPlace& place);
/// The module without which a loader of version 6 starts nothing.
inline constexpr std::string_view kSyslinuxModule = "ldlinux.c32";
/// An installer, the module and, with a table, the code of the MBR.
std::vector<PieceRequest> syslinux_pieces(std::string_view installer, const BootPlace& place);
/// The code of the MBR: BootLoader::disk_patches.
Result<std::vector<Patch>> syslinux_disk_patches(const PieceBytes& pieces, const BootPlace& place,
                                                 std::span<const PlacedPart> parts);
/// A configuration for SYSLINUX, EXTLINUX and ISOLINUX.
std::string syslinux_config(const BootEntry& entry);

}  // namespace mkvirtfs::bootsect
