// SPDX-License-Identifier: BSD-3-Clause
// Where an EROFS image has what: the answers of ErofsImage::data_at() and structure().
#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <vector>

#include "fsgen/erofs/erofs_image.h"

namespace mkvirtfs::erofs {
namespace {

constexpr std::string_view kSuperblock = "superblock";
constexpr std::string_view kInodes = "inodes";
constexpr std::string_view kSharedXattrs = "shared_xattrs";
constexpr std::string_view kDirectories = "directories";
constexpr std::array kNames = {
    structures::kBootArea, structures::kVolume, structures::kTail, kSuperblock, kInodes,
    kSharedXattrs,         kDirectories};

}  // namespace

DataPlacement ErofsImage::data_at(std::string_view path) const {
  const std::optional<NodeNo> no = find_node(tree(), path);
  if (!no) return {};
  const Shape shape = volume_->shape_of(*no);
  if (shape.size_bytes == 0) return {.kind = DataPlacement::Kind::no_bytes};
  DataPlacement placement{.kind = DataPlacement::Kind::stored, .size_bytes = shape.size_bytes};
  const std::uint64_t block_bytes = volume_->block_bytes();
  const std::uint64_t start = volume_->first_block(*no, shape).value() * block_bytes;
  if (shape.chunks != nullptr) {
    for (std::size_t run = 0; run < shape.chunks->run_count; ++run) {
      const Chunks::Place place = volume_->chunks.place_of_run(*shape.chunks, run);
      const std::uint64_t bytes =
          std::min(place.blocks * block_bytes, shape.size_bytes - place.file_offset);
      placement.runs.push_back({place.file_offset, {start + place.block * block_bytes, bytes}});
    }
    if (placement.runs.empty()) placement.kind = DataPlacement::Kind::hole;
    return placement;
  }
  const std::uint64_t in_blocks = shape.size_bytes - shape.tail_bytes;
  if (in_blocks != 0) placement.runs.push_back({0, {start, in_blocks}});
  if (in_blocks == 0) placement.kind = DataPlacement::Kind::embedded;
  if (shape.tail_bytes != 0) {
    const std::uint64_t tail = volume_->inodes.offset_of(*no) + shape.head_bytes;
    placement.runs.push_back({in_blocks, {tail, shape.tail_bytes}});
  }
  return placement;
}

std::span<const std::string_view> ErofsImage::structure_names() const noexcept { return kNames; }

std::vector<Range> ErofsImage::structure(std::string_view name, std::uint64_t number) const {
  if (number != 0) return {};
  const auto range = [](Range found) {
    return found.length == 0 ? std::vector<Range>() : std::vector{found};
  };
  const InodeTable& inodes = volume_->inodes;
  const StartTable<BlockNo>& directories = volume_->directory_blocks;
  if (name == structures::kBootArea) return {{0, kSuperblockAt}};
  if (name == structures::kVolume) return {{0, size_bytes()}};
  if (name == kSuperblock) return {{kSuperblockAt, kSuperblockBytes}};
  if (name == kInodes) {
    return {{inodes.begin_bytes(), inodes.end_bytes() - inodes.begin_bytes()}};
  }
  if (name == kSharedXattrs) return range(bytes_of(volume_->shared_xattrs, directories.begin()));
  if (name == kDirectories) return range(bytes_of(directories.begin(), directories.end()));
  return {};
}

}  // namespace mkvirtfs::erofs
