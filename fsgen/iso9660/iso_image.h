// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "block/image.h"
#include "fsgen/iso9660/volume.h"

namespace mkvirtfs::iso9660 {

/// A placed volume seen as an Image: tells for every byte whether it is a hole, computed metadata,
/// a file's, or a patch's. Immutable; nothing but the placement is stored.
class IsoImage final : public Image {
 public:
  explicit IsoImage(Volume volume) : volume_(std::move(volume)) {}

  std::uint64_t size_bytes() const noexcept override { return volume_.image_bytes; }
  std::uint32_t block_bytes() const noexcept override { return kBlockBytes; }
  std::uint32_t preferred_block_bytes() const noexcept override { return kBlockBytes; }
  void map(Range range, ExtentSink& sink) const override;
  void compute(std::uint64_t offset, std::span<std::byte> out) const override;
  std::string describe(std::uint64_t offset) const override;
  std::uint64_t described_end(std::uint64_t offset) const override;
  std::string volume_id() const override;
  std::vector<ImageFact> facts() const override;
  std::string remark() const override;
  void differences(DifferenceSink& sink) const override;

  const Volume& volume() const noexcept { return volume_; }

 private:
  std::uint32_t metadata_end() const noexcept {
    return volume_.joliet ? volume_.joliet->end_block() : volume_.primary->end_block();
  }
  Extent extent_at(std::uint64_t offset) const;
  Extent file_extent(const FilePlaces::Run& run, std::uint64_t offset) const;
  Extent patched(const Extent& extent, std::uint64_t offset) const;
  std::string describe_directory(const Hierarchy& hierarchy, std::uint32_t block) const;

  Volume volume_;
};

}  // namespace mkvirtfs::iso9660
