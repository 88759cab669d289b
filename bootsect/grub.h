// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bootsect/boot_loader.h"
#include "bootsect/disk.h"
#include "fsgen/image/patched_image.h"
#include "support/error.h"

// GRUB 2 for BIOS, as `grub-bios-setup --no-rs-codes` installs it. Pure functions; none of GRUB's
// bytes is a part of this program.

namespace mkvirtfs::bootsect {

struct GrubTemplate {
  std::vector<std::byte> boot;  ///< boot.img, a sector
  std::vector<std::byte> core;  ///< core.img, as grub-mkimage makes it for i386-pc; whole sectors
};

/// Errors: Errc::unsupported for what is no boot.img, or no core.img.
Result<GrubTemplate> check_grub(std::vector<std::byte> boot, std::vector<std::byte> core);

/// The patches of a disk that is booted by the core.img whose first sector of 512 bytes is
/// `core_sector`: code around what an MBR has, and core.img. It is for the caller to see that there
/// is room: in the gap between the MBR and the first partition, or in a BIOS-boot partition.
std::vector<Patch> grub_patches(const GrubTemplate& from, std::uint64_t core_sector);

/// Where core.img looks for grub.cfg: "(,gpt2)/boot/grub" on the disk from which it was started.
std::string grub_prefix(TableKind table, std::uint32_t partition);

/// What core.img has in it. Modules of the tree are not needed, and not loaded: they may be of
/// another version.
std::span<const std::string_view> grub_modules() noexcept;

/// A word of GRUB's language that means what it says.
std::string grub_word(std::string_view word);
/// The part of a configuration that names a kernel, and starts it.
std::string grub_menu(const BootEntry& entry);
/// As BootLoader::check_append has it.
Result<void> check_grub_append(std::string_view append);

/// The row of the loaders.
BootLoader grub_loader() noexcept;

}  // namespace mkvirtfs::bootsect
