// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "fsgen/image/region_image.h"
#include "fsgen/tree/tree_builder.h"

namespace mkvirtfs::testing {

/// An image of regions that a test lays out one behind the other, in blocks of 512 bytes. Each byte
/// of a computed block is the block's number plus one. Tests only.
class StripImage final : public RegionImage {
 public:
  static constexpr std::uint32_t kBlock = 512;

  explicit StripImage(std::shared_ptr<const SourceTree> tree) : tree_(std::move(tree)) {}

  /// `region.range` is set from its length alone.
  StripImage& add(std::uint64_t blocks, Region region) {
    region.range = {size_bytes(), blocks * kBlock};
    regions_.push_back(region);
    return *this;
  }

  std::uint64_t size_bytes() const noexcept override {
    return regions_.empty() ? 0 : regions_.back().range.end();
  }
  std::uint32_t block_bytes() const noexcept override { return kBlock; }
  std::string describe(std::uint64_t offset) const override {
    return "region at " + std::to_string(region_at(offset).range.offset);
  }
  std::string volume_id() const override { return "strip"; }
  std::vector<ImageFact> facts() const override { return {{"region_count", regions_.size()}}; }

  const SourceTree& tree() const noexcept override { return *tree_; }
  DataPlacement data_at(std::string_view) const override { return {}; }
  std::vector<Range> structure(std::string_view name, std::uint64_t) const override {
    if (name != structures::kVolume) return {};
    return {{0, size_bytes()}};
  }
  std::span<const std::string_view> structure_names() const noexcept override {
    return std::span(&structures::kVolume, 1);
  }

 protected:
  Region region_at(std::uint64_t offset) const override {
    ++lookups;
    return *std::ranges::upper_bound(regions_, offset, {},
                                     [](const Region& region) { return region.range.end(); });
  }
  void write_block(std::uint64_t block, std::span<std::byte> out) const override {
    std::ranges::fill(out, static_cast<std::byte>(block + 1));
  }

 public:
  mutable std::uint64_t lookups = 0;

 private:
  std::shared_ptr<const SourceTree> tree_;
  std::vector<Region> regions_;
};

}  // namespace mkvirtfs::testing
