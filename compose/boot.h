// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bootsect/boot_loader.h"
#include "bootsect/disk.h"
#include "bootsect/made_pieces.h"
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
  bool is_chosen = false;       ///< its partition is marked as the one that boots
  std::uint32_t partition = 0;  ///< as PlacedPart::number
  std::string partuuid{};       ///< "" without a table
};

/// A boot, before and after the volume is planned: adds a loader and, where the volume has none, a
/// configuration to its tree, and knows the patches. What it refers to outlives it.
class Boot {
 public:
  /// Errors: Errc::unsupported and Errc::usage for what cannot boot, before a source is read.
  static Result<Boot> make(const BootSettings& settings, const DiskSettings& disk);

  /// Which of the volumes boots: the one that is chosen, or the first from which the loader starts.
  /// Errors: Errc::unsupported when there is none.
  Result<std::size_t> choose(const std::vector<BootVolume>& volumes);

  /// Adds files to the tree of the volume that was chosen. `bare_volume_id` is asked for the id of
  /// that volume as it would be without them, where a configuration has to name it.
  ///
  /// Errors: Errc::unreadable for pieces, kernels and initrds that are not there; Errc::usage.
  Result<void> add_files(bootsect::MadePieces& made_pieces, const std::vector<BootVolume>& volumes,
                         const std::function<Result<std::string>()>& bare_volume_id,
                         Remarks& remarks);
  /// Whether add_files() has used the volume's id: it is to keep it.
  const std::optional<std::string>& named_volume_id() const noexcept { return named_volume_id_; }

  /// Adds what the loader wants of the volume's plan.
  void add_wishes(PlanRequest& request) const;
  /// Whether the disk has to have a BIOS-boot partition.
  bool wants_bios_boot() const noexcept;

  /// The planned volume with the loader's patches. `start_bytes` is where its partition begins.
  Result<std::shared_ptr<const PlannedImage>> patch(std::shared_ptr<const PlannedImage> image,
                                                    std::uint64_t start_bytes) const;
  /// DiskOptions::boot_code.
  Result<std::vector<Patch>> disk_patches(std::span<const bootsect::PlacedPart> parts) const;

 private:
  struct Files;

  Boot(const BootSettings& settings, const bootsect::BootLoader& loader,
       const bootsect::BootPlace& place)
      : settings_(settings), loader_(&loader), place_(place) {}
  Result<void> read_pieces(bootsect::MadePieces& made_pieces);
  Result<void> add_configuration(const std::vector<BootVolume>& volumes,
                                 const std::function<Result<std::string>()>& bare_volume_id,
                                 Files& files, Remarks& remarks);
  Result<bootsect::BootEntry> make_entry(const std::vector<BootVolume>& volumes,
                                         const std::function<Result<std::string>()>& bare_volume_id,
                                         Files& files);
  Result<std::string> append_of(const std::vector<BootVolume>& volumes, std::size_t kernel_volume,
                                bool has_initrd,
                                const std::function<Result<std::string>()>& bare_volume_id);

  BootSettings settings_;
  const bootsect::BootLoader* loader_;
  bootsect::BootPlace place_;
  std::size_t chosen_ = 0;
  bootsect::PieceBytes pieces_;
  std::optional<std::string> named_volume_id_;
};

}  // namespace mkvirtfs
