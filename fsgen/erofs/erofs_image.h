// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "fsgen/erofs/volume.h"
#include "fsgen/image/region_image.h"

namespace mkvirtfs::erofs {

/// A placed volume seen as an image. Immutable; nothing but the placement is stored.
class ErofsImage final : public RegionImage {
 public:
  explicit ErofsImage(std::unique_ptr<const Volume> volume) : volume_(std::move(volume)) {}

  std::uint64_t size_bytes() const noexcept override {
    return std::uint64_t{volume_->block_count()} * volume_->block_bytes();
  }
  /// The unit in which bytes are computed: a block of the format, or a part of one.
  std::uint32_t block_bytes() const noexcept override {
    return std::min<std::uint32_t>(volume_->block_bytes(), RegionImage::kMostBlockBytes);
  }
  std::string describe(std::uint64_t offset) const override;
  std::string volume_id() const override;
  std::vector<ImageFact> facts() const override;
  std::string remark() const override;
  void differences(DifferenceSink& sink) const override;
  bool has_derived() const noexcept override { return volume_->packed_tail_count != 0; }
  void derived_from(Range range, ContentRangeSink& sink) const override;

  const SourceTree& tree() const noexcept override { return *volume_->tree; }
  DataPlacement data_at(std::string_view path) const override;
  /// "superblock", "inodes", "shared_xattrs", "directories".
  std::vector<Range> structure(std::string_view name, std::uint64_t number) const override;
  std::span<const std::string_view> structure_names() const noexcept override;
  std::string switched_on() const override;

 protected:
  Region region_at(std::uint64_t offset) const override;
  void write_block(std::uint64_t block, std::span<std::byte> out) const override;
  Result<void> derive_block(std::uint64_t block, std::span<std::byte> out,
                            ContentStore& contents) const override;

 private:
  /// Where the end of a file stands that is packed behind its inode; empty when it is not.
  Range packed_tail(NodeNo no) const noexcept;
  /// Calls `visit(node, part of the tail, where it lies in the file)` for each packed end of a file
  /// in a range of inodes, until it returns false. `range` is whole blocks.
  template <class Visit>
  void for_each_packed(Range range, Visit&& visit) const;
  Range bytes_of(BlockNo begin, BlockNo end) const noexcept {
    return {std::uint64_t{begin.value()} * volume_->block_bytes(),
            std::uint64_t{end - begin} * volume_->block_bytes()};
  }
  Region inodes_at(std::uint64_t offset) const;
  Region data_region_at(BlockNo block) const;
  std::string describe_inodes(std::uint64_t offset) const;

  std::unique_ptr<const Volume> volume_;
};

}  // namespace mkvirtfs::erofs
