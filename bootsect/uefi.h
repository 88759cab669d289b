// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>
#include <string_view>

#include "bootsect/boot_loader.h"

// What UEFI starts, as rows of the loaders.

namespace mkvirtfs::bootsect {

/// Where firmware looks for a loader on a disk that it has not seen before.
inline constexpr std::string_view kEfiDirectory = "EFI/BOOT";

/// The name of a piece: systemd's stub of unified kernel images, for x86-64.
inline constexpr std::string_view kUkiStub = "linuxx64.efi.stub";

/// A loader or a unified kernel image that is the user's.
BootLoader uefi_loader() noexcept;
BootLoader systemd_boot_loader() noexcept;
BootLoader unified_kernel_loader() noexcept;
/// shim, GRUB and MokManager, as Debian signs them.
BootLoader uefi_signed_loader() noexcept;

}  // namespace mkvirtfs::bootsect
