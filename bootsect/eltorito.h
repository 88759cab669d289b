// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "support/error.h"

// El Torito (1.0, 1995): how firmware boots a CD. Pure functions: what it says in, bytes out. The
// boot record that leads to the catalogue is the planner's (iso9660::Boot).

namespace mkvirtfs::bootsect {

inline constexpr std::size_t kCdBlockBytes = 2048;

enum class BootPlatform : std::uint8_t { bios = 0x00, efi = 0xEF };

/// What firmware loads, without the emulation of a disk.
struct BootImage {
  BootPlatform platform = BootPlatform::bios;
  std::uint32_t block = 0;           ///< of 2048 bytes
  std::uint16_t loaded_sectors = 4;  ///< of 512 bytes
};

/// The block of a boot catalogue: the first image is the default, each other has a section of its
/// own. Errors: Errc::does_not_fit for more images than a block has room for.
Result<std::vector<std::byte>> boot_catalogue(std::span<const BootImage> images);

/// What is known as mkisofs's boot information table: 56 bytes at byte 8 of a loader, which say
/// where it lies. `loader` is the file without the table, `block` its first one.
inline constexpr std::size_t kBootInformationAt = 8;
inline constexpr std::size_t kBootInformationBytes = 56;
std::vector<std::byte> boot_information_table(std::span<const std::byte> loader,
                                              std::uint32_t block);

}  // namespace mkvirtfs::bootsect
