// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "bootsect/boot_loader.h"
#include "fsgen/image/patched_image.h"
#include "fsgen/image/planned_image.h"
#include "support/error.h"

// ISOLINUX on ISO 9660, as mkisofs and `isohybrid` make it boot: as a CD by El Torito, and as a
// disk by code in the system area. Pure functions; none of ISOLINUX's bytes is a part of this
// program.

namespace mkvirtfs::bootsect {

/// An isohybrid is this long a multiple: a cylinder of 64 heads and 32 sectors. Of what is behind
/// the volume (iso9660::Boot::align_bytes), all is zeroes.
inline constexpr std::uint64_t kIsohybridAlignmentBytes = 1u << 20;

/// What a hybrid has behind the volume (iso9660::Boot::tail_bytes): the backup of its GPT.
std::uint64_t iso_gpt_tail_bytes() noexcept;

struct IsolinuxTemplate {
  std::vector<std::byte> loader;       ///< isolinux.bin: what a tree has to hold
  std::vector<std::byte> hybrid_code;  ///< isohdpfx.bin
};

/// Errors: Errc::unsupported for what is not ISOLINUX's, or without what `isohybrid` needs.
Result<IsolinuxTemplate> check_isolinux(std::vector<std::byte> loader,
                                        std::vector<std::byte> hybrid_code);

/// The first sector of an isohybrid: code, and the table of an MBR with one active partition that
/// is the whole image, `loader_block` where isolinux.bin lies. `image_bytes` is a multiple of
/// kIsohybridAlignmentBytes. With an EFI image in it, which has bytes, that is a partition of the
/// type EF, and the first one has no type: firmware refuses a table with partitions in each other.
/// Errors: Errc::does_not_fit for 2 TiB and more.
Result<std::vector<std::byte>> isohybrid_sector(std::span<const std::byte> hybrid_code,
                                                std::uint32_t loader_block, std::uint32_t disk_id,
                                                std::uint64_t image_bytes, Range efi_image = {});

/// The patches that make an ISO image boot the loader which lies at `path` of its tree: boot
/// catalogue, boot information table, system area, and a GPT's backup. The image was planned with a
/// catalogue, that file as its first boot file, and aligned; for a hybrid, with
/// iso_gpt_tail_bytes() behind the volume.
///
/// Errors: Errc::usage for an image without that file, or with another one there; Errc::unsupported
/// for what is no ISO image; Errc::does_not_fit for one that ends behind 2 TiB.
Result<std::vector<Patch>> isolinux_patches(const IsolinuxTemplate& from, const PlannedImage& image,
                                            std::string_view path, const IsoTable& table);

/// The patches that make an ISO image boot by UEFI alone: boot catalogue and partition table. The
/// image was planned as for isolinux_patches(). Errors: Errc::does_not_fit for an image that ends
/// behind 2 TiB.
Result<std::vector<Patch>> efi_iso_patches(const PlannedImage& image, const IsoTable& table);

/// The row of the loaders.
BootLoader isolinux_loader() noexcept;

}  // namespace mkvirtfs::bootsect
