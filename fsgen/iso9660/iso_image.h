// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "fsgen/image/region_image.h"
#include "fsgen/iso9660/volume.h"

namespace mkvirtfs::iso9660 {

/// A placed volume seen as an image. Immutable; nothing but the placement is stored.
class IsoImage final : public RegionImage {
 public:
  explicit IsoImage(Volume volume) : volume_(std::move(volume)) {}

  std::uint64_t size_bytes() const noexcept override { return volume_.image_bytes; }
  std::uint32_t block_bytes() const noexcept override { return kBlockBytes; }
  std::uint32_t preferred_block_bytes() const noexcept override { return kBlockBytes; }
  std::string describe(std::uint64_t offset) const override;
  std::string volume_id() const override;
  std::vector<ImageFact> facts() const override;
  std::string remark() const override;
  void differences(DifferenceSink& sink) const override;

  const SourceTree& tree() const noexcept override { return *volume_.tree; }
  /// Directories of the primary hierarchy. Files that share an extent have one place.
  DataPlacement data_at(std::string_view path) const override;
  /// "primary_volume_descriptor", "boot_record", "joliet_volume_descriptor",
  /// "volume_descriptor_set_terminator", "boot_catalogue"; "path_table" 0 and 1, little- and
  /// big-endian, and Joliet's 2 and 3.
  std::vector<Range> structure(std::string_view name, std::uint64_t number) const override;
  std::span<const std::string_view> structure_names() const noexcept override;

 protected:
  Region region_at(std::uint64_t offset) const override;
  void write_block(std::uint64_t block, std::span<std::byte> out) const override;

 private:
  enum class Kind : std::uint8_t {
    system_area,
    primary_descriptor,
    boot_record,
    joliet_descriptor,
    terminator,
    path_table,
    directory,
    catalog,
    file,
    padding,
    behind,
  };
  /// Blocks that are one thing.
  struct Place {
    Kind kind = Kind::padding;
    std::uint64_t start = 0;  ///< block; a tail has more than a BlockNo counts
    std::uint64_t end = 0;
    std::size_t path_table = 0;
    const Hierarchy* hierarchy = nullptr;  ///< of a path table, or of the directory
    DirectoryNo directory{};
    NodeNo file = kRootNode;
  };

  Place place_of(std::uint64_t block) const noexcept;
  Place place_before_directories(BlockNo block) const noexcept;
  Place place_in(const Hierarchy& hierarchy, BlockNo block) const noexcept;
  BlockNo metadata_end() const noexcept {
    return volume_.joliet ? volume_.joliet->end_block() : volume_.primary->end_block();
  }

  Volume volume_;
};

}  // namespace mkvirtfs::iso9660
