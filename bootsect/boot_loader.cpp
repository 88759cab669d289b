// SPDX-License-Identifier: BSD-3-Clause
#include "bootsect/boot_loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cassert>

#include "bootsect/extlinux.h"
#include "bootsect/grub.h"
#include "bootsect/isolinux.h"
#include "bootsect/syslinux.h"
#include "bootsect/uefi.h"

namespace mkvirtfs::bootsect {

std::span<const BootLoader> boot_loaders() noexcept {
  static const std::array loaders{
      syslinux_loader(), extlinux_loader(),     isolinux_loader(),       grub_loader(),
      uefi_loader(),     systemd_boot_loader(), unified_kernel_loader(), uefi_signed_loader()};
  return loaders;
}

const BootLoader* find_boot_loader(std::string_view name) noexcept {
  const auto loaders = boot_loaders();
  const auto found = std::ranges::find(loaders, name, &BootLoader::name);
  return found == loaders.end() ? nullptr : &*found;
}

Result<void> check_pair(const BootLoader& one, const BootLoader& other) {
  if (one.name == other.name) {
    return fail(Errc::unsupported, fmt::format("{} is there twice", one.title));
  }
  if (one.efi != EfiStart::none && other.efi != EfiStart::none) {
    return fail(Errc::unsupported, fmt::format("UEFI starts one file by its name, {}'s or {}'s",
                                               one.title, other.title));
  }
  if (one.mbr_code.empty() || other.mbr_code.empty() || one.mbr_code == other.mbr_code) return {};
  return fail(Errc::unsupported,
              fmt::format("the first sector has room for the code of one, {}'s or {}'s", one.title,
                          other.title));
}

const std::vector<std::byte>& piece(const PieceBytes& pieces, std::string_view name) {
  const auto found = pieces.find(name);
  assert(found != pieces.end());
  return found->second;
}

}  // namespace mkvirtfs::bootsect
