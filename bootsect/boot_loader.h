// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bootsect/disk.h"
#include "fsgen/image/patched_image.h"
#include "fsgen/image/planned_image.h"
#include "support/error.h"

// What boot loaders have in common: each is a row of functions without I/O. A boot is files that
// are added to a tree before it is planned, and patches of the image once it is.

namespace mkvirtfs::bootsect {

/// The partition table in an ISO image: isohybrid's MBR, or that of a hybrid.
struct IsoTable {
  DiskIds ids{};           ///< of the image; of a hybrid, the one partition's, too
  Range efi_image{};       ///< in it: what UEFI starts, a partition; without bytes: nothing
  bool is_hybrid = false;  ///< with an EFI image: a GPT, too, whose one partition is that
};

/// Where the volume stands from which a loader starts.
struct BootPlace {
  std::string_view format{};         ///< as the registry of formats has it: "fat16", "ext4", "iso"
  std::optional<TableKind> table{};  ///< unset: the volume is the whole disk
  std::uint32_t sector_bytes = kUsualSectorBytes;
  std::uint32_t partition = 0;    ///< its number; 0: not in a partition
  std::uint64_t start_bytes = 0;  ///< of the partition; known when the volume has been planned
  IsoTable iso{};                 ///< where the image has a table of its own
};

/// A piece that a loader needs: a file of a package (bootsect/boot_pieces.h), or what a program of
/// one makes of others.
struct PieceRequest {
  std::string_view name{};  ///< "ldlinux.c32"
  std::string parameter{};  ///< of what is made: GRUB's prefix

  friend auto operator<=>(const PieceRequest&, const PieceRequest&) = default;
};

/// The bytes of pieces, by their names.
using PieceBytes = std::map<std::string, std::vector<std::byte>, std::less<>>;

/// What a made configuration boots. Paths are those of the volume, without a leading '/'.
struct BootEntry {
  std::string kernel{};
  std::string version{};  ///< of the kernel, where it is known
  std::vector<std::string> initrds{};
  std::string append{};                      ///< the kernel's command line
  std::optional<std::uint32_t> timeout_s{};  ///< how long a menu waits; unset: not at all
  /// The paths are not those of the volume from which the loader is started.
  bool is_elsewhere = false;
};

/// A file that is added to a tree, over what it has there.
struct BootFile {
  std::string path{};
  std::vector<std::byte> bytes{};
  /// Instead of `bytes`: those of a piece, which is moved, since no other function wants it.
  std::string_view piece{};
};

/// What UEFI starts for a loader, at EFI/BOOT in a FAT volume: its firmware knows no other place.
enum class EfiStart : std::uint8_t {
  none,           ///< nothing: a BIOS starts the loader
  given,          ///< an executable of the user
  menu,           ///< the loader, which starts the kernel that a menu names
  unified,        ///< the kernel itself, with all that it needs in one file
  verified_menu,  ///< the same as `menu`, and each file is signed for the one before it
};

struct BootLoader {
  std::string_view name{};   ///< as --boot has it
  std::string_view title{};  ///< for messages: "SYSLINUX"
  /// Whose code the first sector of the disk has; loaders of which this is the same go together.
  /// "": that sector is none of its business, because other firmware than a BIOS starts it.
  std::string_view mbr_code{};
  /// Whether it starts from there. Errc::unsupported with the reason, and the option that would
  /// help as a hint.
  Result<void> (*check)(const BootPlace& place) = nullptr;
  /// Where it looks for its configuration in the volume, the first one first; "dir/*.conf" is any
  /// file of that ending. A made one stands at `made_config`, unless the tree has one of these.
  /// A loader without one has no configuration.
  std::span<const std::string_view> config_paths{};
  std::string_view made_config{};
  std::string (*config)(const BootEntry& entry) = nullptr;
  /// Whether the kernel receives such a command line as it is. Errc::unsupported. nullptr: each.
  Result<void> (*check_append)(std::string_view append) = nullptr;
  /// Paths in it may have blanks and commas.
  bool quotes_paths = false;
  /// A second file, which goes with a made configuration. nullptr: none.
  std::string_view made_settings{};
  std::string (*settings)(const BootEntry& entry) = nullptr;
  EfiStart efi = EfiStart::none;
  /// What the other functions want in `pieces`.
  std::vector<PieceRequest> (*pieces)(const BootPlace& place) = nullptr;
  /// The files that the volume needs, beside a configuration.
  Result<std::vector<BootFile>> (*files)(const PieceBytes& pieces,
                                         const BootPlace& place) = nullptr;
  /// What it wants of the volume's plan, as PlanRequest has it: the file that firmware loads, and
  /// a multiple for the length.
  std::string_view boot_file{};
  std::uint64_t align_bytes = 0;
  /// In a GPT it wants a partition of the type "bios-boot", whose bytes are its own.
  bool wants_bios_boot = false;
  /// Patches of the planned volume, in bytes of it.
  Result<std::vector<Patch>> (*volume_patches)(const PieceBytes& pieces, const BootPlace& place,
                                               const PlannedImage& image) = nullptr;
  /// Patches of the disk around it: DiskOptions::boot_code. nullptr: none. Not called without a
  /// table.
  Result<std::vector<Patch>> (*disk_patches)(const PieceBytes& pieces, const BootPlace& place,
                                             std::span<const PlacedPart> parts) = nullptr;
};

/// Every loader, in the order of the manual.
std::span<const BootLoader> boot_loaders() noexcept;
/// nullptr when there is none of that name.
const BootLoader* find_boot_loader(std::string_view name) noexcept;

/// Whether two loaders go together on one disk. Errc::unsupported with the reason.
Result<void> check_pair(const BootLoader& one, const BootLoader& other);

/// A piece that was asked for.
const std::vector<std::byte>& piece(const PieceBytes& pieces, std::string_view name);

}  // namespace mkvirtfs::bootsect
