// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "fsgen/fat32/volume.h"
#include "fsgen/image/region_image.h"

namespace mkvirtfs::fat32 {

/// A placed volume seen as an image. Immutable; nothing but the placement is stored.
class FatImage final : public RegionImage {
 public:
  FatImage(std::unique_ptr<const Contents> contents, const Layout& layout, std::uint32_t volume_id,
           std::uint64_t size_bytes, bool root_room_gave_way);

  std::uint64_t size_bytes() const noexcept override { return size_bytes_; }
  std::uint32_t block_bytes() const noexcept override { return volume_.layout().sector_bytes; }
  std::string describe(std::uint64_t offset) const override;
  std::string volume_id() const override { return volume_id_text(volume_.volume_id()); }
  std::vector<ImageFact> facts() const override;
  std::string remark() const override;
  void differences(DifferenceSink& sink) const override;
  std::vector<Setting> unmatched() const override { return contents_->unmatched(); }
  std::string gave_way() const override {
    return root_room_gave_way_ ? "spare slots of the root directory" : "";
  }

  const SourceTree& tree() const noexcept override { return contents_->tree(); }
  DataPlacement data_at(std::string_view path) const override;
  /// "boot_sector" and "fsinfo" 0 and, of FAT32, 1: the copies; "fat" 0 and 1; "root_directory".
  std::vector<Range> structure(std::string_view name, std::uint64_t number) const override;
  std::span<const std::string_view> structure_names() const noexcept override;

 protected:
  Region region_at(std::uint64_t offset) const override;
  void write_block(std::uint64_t sector, std::span<std::byte> out) const override;

 private:
  enum class Kind : std::uint8_t { reserved, fat, root_directory, directory, file, unused, behind };
  /// A stretch of bytes that is one thing: where it begins and ends, and how much of its start is
  /// not all zeroes.
  struct Place {
    Kind kind = Kind::behind;
    std::uint64_t start = 0;
    std::uint64_t end = 0;
    std::uint64_t data_end = 0;
    std::uint32_t fat = 0;
    FatDirectoryNo directory{};
    ItemNo item{};
  };

  /// What FAT itself cannot hold; false when the sink wants no more.
  bool list_format_differences(DifferenceSink& sink) const;
  Place place_of(std::uint64_t offset) const noexcept;
  Place reserved_place(std::uint64_t offset) const noexcept;
  Place cluster_place(std::uint64_t offset) const noexcept;
  /// Whole sectors.
  std::uint64_t directory_bytes(FatDirectoryNo directory) const noexcept;
  DataPlacement data_of_directory(FatDirectoryNo directory) const;
  FatDirectoryNo directory_of(ItemNo item) const noexcept;
  std::string path_of(ItemNo item) const;

  std::unique_ptr<const Contents> contents_;
  Volume volume_;
  std::uint64_t size_bytes_;
  bool root_room_gave_way_;
};

}  // namespace mkvirtfs::fat32
