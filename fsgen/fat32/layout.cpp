// SPDX-License-Identifier: BSD-3-Clause
//
// The FATs stand before the clusters that they count, so their size and the number of clusters
// depend on each other. More clusters never take fewer sectors: how many fit is a binary search.
// Reserved sectors are as many as bring the first cluster to a multiple of 4 KiB.
#include "fsgen/fat32/layout.h"

#include <algorithm>
#include <array>
#include <utility>

#include "fsgen/image/size_search.h"
#include "support/arithmetic.h"

namespace mkvirtfs::fat32 {
namespace {

constexpr std::uint32_t kAlignment = 4096;      // of the first cluster: pages of hosts and guests
constexpr std::uint32_t kReservedOfFat32 = 32;  // as everybody has it; 9 are used

std::uint32_t bits_of(Width width) noexcept {
  switch (width) {
    case Width::fat12:
      return 12;
    case Width::fat16:
      return 16;
    case Width::fat32:
      return 32;
  }
  std::unreachable();
}

std::uint32_t fat_sectors_for(Width width, std::uint32_t sector_bytes,
                              std::uint32_t cluster_count) noexcept {
  const std::uint64_t entries = std::uint64_t{cluster_count} + kFirstCluster.value();
  const std::uint64_t bytes = ceil_div<std::uint64_t>(entries * bits_of(width), 8);
  return static_cast<std::uint32_t>(ceil_div<std::uint64_t>(bytes, sector_bytes));
}

struct Floppy {
  std::uint32_t size_kib;
  std::uint32_t cluster_bytes;
  std::uint32_t root_entries;
  std::uint8_t media;
  std::uint16_t sectors_per_track;
};
constexpr std::array<Floppy, 5> kFloppies = {{
    {360, 1024, 112, 0xFD, 9},
    {720, 1024, 112, 0xF9, 9},
    {1200, 512, 224, 0xF9, 15},
    {1440, 512, 224, 0xF0, 18},
    {2880, 1024, 240, 0xF0, 36},
}};

}  // namespace

std::string_view name_of(Width width) noexcept {
  switch (width) {
    case Width::fat12:
      return "fat12";
    case Width::fat16:
      return "fat16";
    case Width::fat32:
      return "fat32";
  }
  std::unreachable();
}

std::uint32_t least_clusters(Width width) noexcept {
  switch (width) {
    case Width::fat12:
      return 1;
    case Width::fat16:
      return 4085;
    case Width::fat32:
      return 65525;
  }
  std::unreachable();
}

std::uint32_t most_clusters(Width width) noexcept {
  switch (width) {
    case Width::fat12:
      return 4084;
    case Width::fat16:
      return 65524;
    case Width::fat32:
      return 0x0FFFFFF5;  // numbers from 0x0FFFFFF7 on mean something else
  }
  std::unreachable();
}

bool Layout::is_legal() const noexcept {
  return cluster_count >= least_clusters(width) && cluster_count <= most_clusters(width) &&
         total_sectors() <= kMostSectors;
}

Layout layout_of_clusters(const Shape& shape, std::uint32_t cluster_count) noexcept {
  Layout layout;
  layout.width = shape.width;
  layout.sector_bytes = shape.sector_bytes;
  layout.cluster_bytes = shape.cluster_bytes;
  layout.root_entries = shape.root_entries;
  layout.cluster_count = cluster_count;
  layout.fat_sectors = fat_sectors_for(shape.width, shape.sector_bytes, cluster_count);
  layout.reserved_sectors = shape.width == Width::fat32 ? kReservedOfFat32 : 1;
  const std::uint64_t unit = std::max(kAlignment / shape.sector_bytes, 1u);
  layout.reserved_sectors +=
      static_cast<std::uint32_t>(round_up(layout.data_start(), unit) - layout.data_start());
  return layout;
}

std::optional<Layout> layout_in_sectors(const Shape& shape, std::uint64_t sectors) noexcept {
  // More clusters never take fewer sectors. One more than any width has shows that they do not fill
  // the sectors.
  const auto most = static_cast<std::uint32_t>(std::min<std::uint64_t>(
      sectors * shape.sector_bytes / shape.cluster_bytes, most_clusters(Width::fat32) + 1));
  const std::uint32_t too_many = smallest_that_holds(0u, most + 1, [&](std::uint32_t clusters) {
    return layout_of_clusters(shape, clusters).total_sectors() > sectors;
  });
  if (too_many == 1) return std::nullopt;
  return layout_of_clusters(shape, too_many - 1);
}

std::optional<Layout> floppy_layout(std::uint64_t size_bytes) noexcept {
  const auto* const found = std::ranges::find_if(kFloppies, [&](const Floppy& floppy) {
    return std::uint64_t{floppy.size_kib} * 1024 == size_bytes;
  });
  if (found == kFloppies.end()) return std::nullopt;
  Layout layout;
  layout.width = Width::fat12;
  layout.cluster_bytes = found->cluster_bytes;
  layout.root_entries = found->root_entries;
  layout.media = found->media;
  layout.sectors_per_track = found->sectors_per_track;
  layout.heads = 2;
  // No alignment: drives and firmware know diskettes by heart.
  layout.reserved_sectors = 1;
  // The FAT is as long as it must be for the clusters that are left: the smallest that holds them.
  const std::uint64_t sectors = size_bytes / layout.sector_bytes;
  for (layout.fat_sectors = 1;; ++layout.fat_sectors) {
    layout.cluster_count =
        static_cast<std::uint32_t>((sectors - layout.data_start()) / layout.sectors_per_cluster());
    if (fat_sectors_for(layout.width, layout.sector_bytes, layout.cluster_count) <=
        layout.fat_sectors) {
      return layout;
    }
  }
}

std::uint32_t usual_cluster_bytes(std::uint64_t size_bytes) noexcept {
  constexpr std::uint64_t kMi = 1u << 20;
  if (size_bytes <= 260 * kMi) return 512;
  if (size_bytes <= 8192 * kMi) return 4096;
  if (size_bytes <= 16384 * kMi) return 8192;
  if (size_bytes <= 32768 * kMi) return 16384;
  return kMostAutoCluster;
}

}  // namespace mkvirtfs::fat32
