// SPDX-License-Identifier: BSD-3-Clause
// Where a FAT image has what: the answers of FatImage::data_at() and structure().
#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <vector>

#include "fsgen/fat32/fat_image.h"

namespace mkvirtfs::fat32 {
namespace {

constexpr std::string_view kBootSector = "boot_sector";
constexpr std::string_view kInfo = "fsinfo";
constexpr std::string_view kFat = "fat";
constexpr std::string_view kRoot = "root_directory";
constexpr std::array kNames = {
    structures::kBootArea, structures::kVolume, structures::kTail, kBootSector, kInfo, kFat, kRoot};

}  // namespace

DataPlacement FatImage::data_of_directory(FatDirectoryNo directory) const {
  const Layout& layout = volume_.layout();
  const std::uint64_t slot_bytes =
      std::uint64_t{contents_->directory(directory).slot_count} * kSlotBytes;
  if (directory == kFatRoot && layout.width != Width::fat32) {
    // It has its place, and all of it, before the clusters.
    const Range root{layout.root_start() * layout.sector_bytes,
                     std::uint64_t{layout.root_sectors()} * layout.sector_bytes};
    return {DataPlacement::Kind::stored, root.length, {{0, root}}};
  }
  const ChainNo chain = Volume::chain_of(directory);
  const std::uint64_t start = layout.cluster_offset(volume_.chain_start(chain));
  const std::uint64_t end = layout.cluster_offset(volume_.chain_end(chain));
  return {DataPlacement::Kind::stored, slot_bytes, {{0, {start, end - start}}}};
}

DataPlacement FatImage::data_at(std::string_view path) const {
  FatDirectoryNo directory = kFatRoot;
  while (true) {
    const std::size_t slash = path.find('/');
    const std::string_view name = path.substr(0, slash);
    if (name.empty() && slash == path.npos) return data_of_directory(directory);
    path = slash == path.npos ? std::string_view() : path.substr(slash + 1);
    if (name.empty()) continue;
    const std::optional<ItemNo> no = contents_->find(directory, name);
    if (!no) return {};
    const Contents::Item& item = contents_->item(*no);
    if (item.is_directory) {
      directory = item.directory();
      continue;
    }
    if (slash != path.npos && !path.empty()) return {};  // a file with something below it
    const std::uint64_t size_bytes = contents_->size_bytes(item);
    if (size_bytes == 0) return {.kind = DataPlacement::Kind::no_bytes};
    const std::uint64_t start =
        volume_.layout().cluster_offset(volume_.chain_start(volume_.chain_of(*no)));
    return {DataPlacement::Kind::stored, size_bytes, {{0, {start, size_bytes}}}};
  }
}

std::span<const std::string_view> FatImage::structure_names() const noexcept { return kNames; }

std::vector<Range> FatImage::structure(std::string_view name, std::uint64_t number) const {
  const Layout& layout = volume_.layout();
  const auto sectors = [&](std::uint64_t first, std::uint64_t count) {
    return std::vector<Range>{{first * layout.sector_bytes, count * layout.sector_bytes}};
  };
  const bool is_fat32 = layout.width == Width::fat32;
  if (name == kBootSector && number < (is_fat32 ? 2 : 1)) {
    return sectors(number == 0 ? 0 : kBackupSector, 1);
  }
  if (name == kInfo && is_fat32 && number < 2) {
    return sectors(kInfoSector + (number == 0 ? 0 : kBackupSector), 1);
  }
  if (name == kFat && number < Layout::kFats) {
    return sectors(layout.reserved_sectors + number * layout.fat_sectors, layout.fat_sectors);
  }
  if (number != 0) return {};
  if (name == structures::kBootArea) return sectors(0, layout.reserved_sectors);
  if (name == structures::kVolume) return sectors(0, layout.total_sectors());
  if (name == structures::kTail && layout.size_bytes() < size_bytes_) {
    return {{layout.size_bytes(), size_bytes_ - layout.size_bytes()}};
  }
  if (name == kRoot) {
    std::vector<Range> ranges;
    for (const DataPlacement::Run& run : data_of_directory(kFatRoot).runs)
      ranges.push_back(run.range);
    return ranges;
  }
  return {};
}

}  // namespace mkvirtfs::fat32
