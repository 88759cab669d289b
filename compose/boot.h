// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bootsect/boot_loader.h"
#include "bootsect/disk.h"
#include "bootsect/made_pieces.h"
#include "bootsect/pe.h"
#include "compose/boot_files.h"
#include "compose/disk_options.h"
#include "compose/read_sources.h"
#include "compose/source_loader.h"
#include "fsgen/image/format.h"
#include "fsgen/image/planned_image.h"
#include "support/error.h"

namespace mkvirtfs {

/// A file system that may boot, or hold what is booted.
struct BootVolume {
  std::string_view format{};  ///< a name of the registry
  ReadSources* read = nullptr;
  bool is_root = false;         ///< its partition has the type of a root file system
  bool is_esp = false;          ///< its partition has the type of an EFI system partition
  bool is_efi_image = false;    ///< it lies in the first volume, an ISO image, for UEFI
  bool is_chosen = false;       ///< its partition is marked as the one that boots
  std::uint32_t partition = 0;  ///< as PlacedPart::number
  std::string partuuid{};       ///< "" without a table
};

/// A file of a volume.
struct VolumeFile {
  std::size_t volume = 0;
  NodeNo node{};
};

/// A boot, before and after volumes are planned: adds loaders and, where their volumes have none,
/// configurations to the trees, and knows the patches. A disk may have several loaders; the first
/// of them that a BIOS starts is the one whose partition is active. What it refers to outlives it.
class Boot {
 public:
  /// Errors: Errc::unsupported and Errc::usage for what cannot boot, before a source is read.
  static Result<Boot> make(const BootSettings& settings, const DiskSettings& disk);

  /// The path of the user's own executable for UEFI; "": none. The caller reads it.
  const std::string& own_loader_path() const noexcept { return settings_.own_loader; }
  /// As a source of one file.
  void set_own_loader(const ReadSources& read) noexcept { own_loader_ = &read; }

  /// Whether an ISO image needs a volume in it from which UEFI starts.
  bool wants_efi_image() const noexcept;

  /// Finds the volume of each loader: one that is chosen (for UEFI, an EFI system partition), or
  /// else the first from which the loader starts. Errors: Errc::unsupported when there is none, or
  /// when a BIOS is to start the disk and none of its loaders starts from what is chosen.
  Result<void> choose(const std::vector<BootVolume>& volumes);

  /// Adds files to the trees of the volumes that boot. `seed` stands for the sources and options;
  /// ids derive from it. `bare_volume_id` is asked for the id of the one volume there is without a
  /// table, as it would be without these files, where a configuration has to name it.
  ///
  /// Errors: Errc::unreadable for pieces, kernels and initrds that are not there; Errc::usage.
  Result<void> add_files(bootsect::MadePieces& made_pieces, const std::vector<BootVolume>& volumes,
                         std::span<const std::byte> seed,
                         const std::function<Result<std::string>()>& bare_volume_id,
                         Remarks& remarks);
  /// Whether add_files() has used the volume's id: it is to keep it.
  const std::optional<std::string>& named_volume_id() const noexcept { return named_volume_id_; }

  /// Adds what the loaders want of the volume's plan.
  void add_wishes(const ReadSources& volume, PlanRequest& request) const;
  /// Whether the disk has to have a BIOS-boot partition.
  bool wants_bios_boot() const noexcept;
  /// Whether UEFI starts something from the volume.
  bool is_esp(const ReadSources& volume) const noexcept;
  /// Whether it is the partition of the volume that a BIOS boots.
  bool is_active(const ReadSources& volume) const noexcept;

  /// The planned volume with the patches of the loaders that start from it; as it is when none
  /// does. `start_bytes` is where its partition begins.
  Result<std::shared_ptr<const PlannedImage>> patch(const ReadSources& volume,
                                                    std::shared_ptr<const PlannedImage> image,
                                                    std::uint64_t start_bytes) const;
  /// DiskOptions::boot_code.
  Result<std::vector<Patch>> disk_patches(std::span<const bootsect::PlacedPart> parts) const;

 private:
  using VolumeId = std::function<Result<std::string>()>;
  /// What a loader starts.
  struct Found {
    VolumeFile kernel;
    std::vector<VolumeFile> initrds;
    std::string version;        // "" where it is not known
    bootsect::PeImage headers;  // of the kernel, for UEFI
  };
  /// A loader in its volume.
  struct Start {
    const bootsect::BootLoader* loader = nullptr;
    bootsect::BootPlace place{};
    std::size_t volume = 0;             // among those of choose(), as what follows
    const ReadSources* read = nullptr;  // of that volume
    bootsect::PieceBytes pieces{};
  };

  explicit Boot(const BootSettings& settings) : settings_(settings) {}
  static Result<void> find_volume(const std::vector<BootVolume>& volumes,
                                  std::span<const std::size_t> order, Start& start);
  Result<void> read_pieces(bootsect::MadePieces& made_pieces, Start& start) const;
  Result<void> add_loader(const std::vector<BootVolume>& volumes, Start& start,
                          const VolumeId& bare_volume_id, BootFiles& files, Remarks& remarks);
  Result<void> add_configuration(const std::vector<BootVolume>& volumes, const Start& start,
                                 const VolumeId& bare_volume_id, BootFiles& files,
                                 Remarks& remarks);
  Result<void> add_unified_kernel(const std::vector<BootVolume>& volumes, const Start& start,
                                  const VolumeId& bare_volume_id, BootFiles& files);
  Result<void> add_own_loader(const std::vector<BootVolume>& volumes, const Start& start,
                              BootFiles& files);
  Result<Found> find_entry(const std::vector<BootVolume>& volumes, const Start& start);
  Result<bootsect::BootEntry> name_entry(const std::vector<BootVolume>& volumes, const Start& start,
                                         const Found& found, BootFiles& files);
  static std::string spelled_in(const std::vector<BootVolume>& volumes, const Start& start,
                                std::string_view path);
  Result<std::string> append_of(const std::vector<BootVolume>& volumes, std::size_t boot_volume,
                                std::size_t kernel_volume, bool has_initrd,
                                const VolumeId& bare_volume_id);

  BootSettings settings_;
  std::vector<Start> starts_;
  const ReadSources* own_loader_ = nullptr;
  const ReadSources* active_ = nullptr;
  const ReadSources* efi_iso_ = nullptr;  // the ISO image with a volume for UEFI in it
  bool is_hybrid_ = false;                // DiskSettings::is_hybrid
  std::optional<Uuid> gpt_id_;            // the same
  bootsect::DiskIds iso_ids_;             // of an image with a table of its own
  std::optional<std::string> named_volume_id_;
};

}  // namespace mkvirtfs
