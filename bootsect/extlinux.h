// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "bootsect/boot_loader.h"
#include "bootsect/syslinux.h"
#include "fsgen/image/patched_image.h"
#include "fsgen/image/planned_image.h"
#include "support/error.h"

// EXTLINUX 6.04 on ext2, ext3 and ext4, as `extlinux --install` does it. Its loader is SYSLINUX's:
// find_syslinux() finds both in the program `extlinux`, and a tree has to hold syslinux_file().

namespace mkvirtfs::bootsect {

/// The boot sector of a volume of `sector_count` sectors of 512 bytes, whose first one is
/// `first_sector` of its disk: the template's (SyslinuxBytes::boot_sector), with the geometry that
/// its code looks for in a BPB.
std::vector<std::byte> extlinux_boot_sector(std::span<const std::byte> boot_sector,
                                            std::uint32_t first_sector, std::uint64_t sector_count);

/// The patches that make an ext image boot the syslinux_file() which lies at `path` of its tree:
/// the loader's own places, and the first sector. `first_sector` is where the image begins on its
/// disk, in sectors of 512 bytes; 0 without a partition table.
///
/// Errors: as place_syslinux(); Errc::unsupported for what is no ext image; Errc::does_not_fit for
/// one that begins behind 2 TiB, which the boot sector cannot say.
Result<std::vector<Patch>> extlinux_patches(const SyslinuxTemplate& from, const PlannedImage& image,
                                            std::string_view path, std::uint64_t first_sector,
                                            const SyslinuxSettings& settings);

/// The row of the loaders.
BootLoader extlinux_loader() noexcept;

}  // namespace mkvirtfs::bootsect
