// SPDX-License-Identifier: BSD-3-Clause
//
// UEFI reads FAT, and starts the file that has the name of its machine in EFI/BOOT. So nothing has
// to be patched: a loader is files. The configuration of systemd-boot is an entry of the Boot
// Loader Specification and loader.conf, that of the signed GRUB a grub.cfg where Debian has built
// it to look.
#include <fmt/format.h>

#include <array>

#include "bootsect/grub.h"
#include "bootsect/uefi.h"

namespace mkvirtfs::bootsect {
namespace {

constexpr std::string_view kSystemdBoot = "systemd-bootx64.efi";
constexpr std::string_view kShim = "shimx64.efi.signed";
constexpr std::string_view kMokManager = "mmx64.efi.signed";
constexpr std::string_view kGrub = "grubx64.efi.signed";

constexpr std::array<std::string_view, 2> kEntryPaths{"loader/entries/*.conf", "EFI/Linux/*.efi"};
constexpr std::array<std::string_view, 1> kGrubPaths{"EFI/debian/grub.cfg"};

Result<void> check(const BootPlace& place) {
  if (place.format.starts_with("fat")) return {};
  if (place.format == "iso" && place.table) {
    return fail(
        Errc::unsupported,
        "an ISO image that UEFI starts has a partition table of its own, and no disk around "
        "it",
        {{"table", "none"}, {"table", "hybrid"}});
  }
  // In it lies a FAT image, from which UEFI starts.
  if (place.format == "iso") return {};
  return fail(Errc::unsupported,
              fmt::format("UEFI starts what lies on FAT, not on {}", place.format),
              {{"fs", "fat32"}, {"esp", "256M"}});
}

std::string in_efi_directory(std::string_view name) {
  return fmt::format("{}/{}", kEfiDirectory, name);
}

template <std::string_view const&... Names>
std::vector<PieceRequest> pieces_named(const BootPlace&) {
  return {{Names, {}}...};
}

Result<std::vector<BootFile>> no_files(const PieceBytes&, const BootPlace&) {
  return std::vector<BootFile>();
}

Result<std::vector<BootFile>> systemd_boot_files(const PieceBytes&, const BootPlace&) {
  return std::vector<BootFile>{{in_efi_directory("BOOTX64.EFI"), {}, kSystemdBoot}};
}

Result<std::vector<BootFile>> signed_files(const PieceBytes&, const BootPlace&) {
  return std::vector<BootFile>{{in_efi_directory("BOOTX64.EFI"), {}, kShim},
                               {in_efi_directory("grubx64.efi"), {}, kGrub},
                               {in_efi_directory("mmx64.efi"), {}, kMokManager}};
}

Result<std::vector<Patch>> no_patches(const PieceBytes&, const BootPlace&, const PlannedImage&) {
  return std::vector<Patch>();
}

/// An entry of type 1 of the Boot Loader Specification.
std::string entry_text(const BootEntry& entry) {
  std::string text =
      fmt::format("title Linux{}{}\n", entry.version.empty() ? "" : " ", entry.version);
  if (!entry.version.empty()) text += fmt::format("version {}\n", entry.version);
  text += fmt::format("linux /{}\n", entry.kernel);
  for (const std::string& initrd : entry.initrds) text += fmt::format("initrd /{}\n", initrd);
  return text + fmt::format("options {}\n", entry.append);
}

/// GRUB's root is where it was started from, which on a CD is not where the kernel lies.
std::string signed_menu(const BootEntry& entry) {
  if (!entry.is_elsewhere) return grub_menu(entry);
  // Options of GRUB's, none of ours.
  return fmt::format("search {0}no-floppy {0}set=root {0}file {1}\n{2}", "--",
                     grub_word("/" + entry.kernel), grub_menu(entry));
}

std::string loader_conf(const BootEntry& entry) {
  return fmt::format("default linux.conf\ntimeout {}\n", entry.timeout_s.value_or(0));
}

}  // namespace

BootLoader uefi_loader() noexcept {
  return {.name = "uefi",
          .title = "uefi",
          .check = check,
          .efi = EfiStart::given,
          .pieces = pieces_named<>,
          .files = no_files,
          .volume_patches = no_patches};
}

BootLoader systemd_boot_loader() noexcept {
  return {.name = "systemd-boot",
          .title = "systemd-boot",
          .check = check,
          .config_paths = kEntryPaths,
          .made_config = "loader/entries/linux.conf",
          .config = entry_text,
          .quotes_paths = true,
          .made_settings = "loader/loader.conf",
          .settings = loader_conf,
          .efi = EfiStart::menu,
          .pieces = pieces_named<kSystemdBoot>,
          .files = systemd_boot_files,
          .volume_patches = no_patches};
}

BootLoader unified_kernel_loader() noexcept {
  return {.name = "uki",
          .title = "uki",
          .check = check,
          .efi = EfiStart::unified,
          .pieces = pieces_named<kUkiStub>,
          .files = no_files,
          .volume_patches = no_patches};
}

BootLoader uefi_signed_loader() noexcept {
  return {.name = "uefi-signed",
          .title = "uefi-signed",
          .check = check,
          .config_paths = kGrubPaths,
          .made_config = kGrubPaths.front(),
          .config = signed_menu,
          .check_append = check_grub_append,
          .quotes_paths = true,
          .efi = EfiStart::verified_menu,
          .pieces = pieces_named<kShim, kGrub, kMokManager>,
          .files = signed_files,
          .volume_patches = no_patches};
}

}  // namespace mkvirtfs::bootsect
