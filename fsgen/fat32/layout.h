// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>

#include "fsgen/fat32/numbers.h"
#include "fsgen/fat32/plan.h"

namespace mkvirtfs::fat32 {

inline constexpr std::uint32_t kSlotBytes = 32;     ///< a directory entry, short or long
inline constexpr std::uint32_t kMostSlots = 65536;  ///< of one directory: 2 MiB
inline constexpr std::uint32_t kMostAutoCluster = 32768;
inline constexpr std::uint32_t kMostCluster = 65536;

// Reserved sectors in use: the boot sector is 0, and FAT32 has more, and copies of them.
inline constexpr std::uint32_t kInfoSector = 1;
inline constexpr std::uint32_t kSecondBootSector = 2;  ///< of the old three-sector boot code
inline constexpr std::uint32_t kBackupSector = 6;      ///< where the copies begin
inline constexpr std::uint32_t kBackedUpSectors = 3;

/// The legal numbers of clusters (fatgen103, "FAT Type Determination").
std::uint32_t least_clusters(Width width) noexcept;
std::uint32_t most_clusters(Width width) noexcept;
/// The sectors of a volume are counted in 32 bits.
inline constexpr std::uint64_t kMostSectors = 0xFFFFFFFF;

/// Where the parts of a volume stand, in sectors: reserved, FAT, FAT, root directory (FAT12 and
/// FAT16), clusters. A value; all of it follows from the few numbers that make it.
struct Layout {
  Width width = Width::fat32;
  std::uint32_t sector_bytes = 512;
  std::uint32_t cluster_bytes = 512;
  std::uint32_t root_entries = 0;  ///< slots of the root directory; 0 in FAT32
  std::uint32_t cluster_count = 0;
  std::uint32_t reserved_sectors = 0;
  std::uint32_t fat_sectors = 0;  ///< of one FAT; there are two
  std::uint8_t media = 0xF8;
  std::uint16_t sectors_per_track = 63;
  std::uint16_t heads = 255;

  static constexpr std::uint32_t kFats = 2;

  std::uint32_t sectors_per_cluster() const noexcept { return cluster_bytes / sector_bytes; }
  std::uint32_t root_sectors() const noexcept { return root_entries * kSlotBytes / sector_bytes; }
  std::uint64_t root_start() const noexcept {
    return reserved_sectors + std::uint64_t{kFats} * fat_sectors;
  }
  std::uint64_t data_start() const noexcept { return root_start() + root_sectors(); }
  std::uint64_t total_sectors() const noexcept {
    return data_start() + std::uint64_t{cluster_count} * sectors_per_cluster();
  }
  std::uint64_t size_bytes() const noexcept { return total_sectors() * sector_bytes; }
  /// One past the last cluster.
  ClusterNo cluster_end() const noexcept { return kFirstCluster + cluster_count; }
  std::uint64_t cluster_offset(ClusterNo cluster) const noexcept {
    return data_start() * sector_bytes + std::uint64_t{cluster - kFirstCluster} * cluster_bytes;
  }
  bool is_floppy() const noexcept { return media != 0xF8; }
  /// The count is one that the width has, and the sectors can be counted.
  bool is_legal() const noexcept;
};

/// What is chosen before the number of clusters is known.
struct Shape {
  Width width = Width::fat32;
  std::uint32_t sector_bytes = 512;
  std::uint32_t cluster_bytes = 512;
  std::uint32_t root_entries = 0;
};

/// A volume of so many clusters. The clusters begin at a multiple of 4 KiB.
Layout layout_of_clusters(const Shape& shape, std::uint32_t cluster_count) noexcept;
/// The one with the most clusters in so many sectors, legal or not; nullopt when there is no room
/// for one cluster. What would leave clusters' worth of sectors unused has one cluster more than
/// FAT32 can count, and so is not legal.
std::optional<Layout> layout_in_sectors(const Shape& shape, std::uint64_t sectors) noexcept;
/// The usual diskette of that size: 360, 720, 1200, 1440 and 2880 KiB; nullopt for other sizes.
std::optional<Layout> floppy_layout(std::uint64_t size_bytes) noexcept;

/// The cluster size that is usual in a FAT32 volume of this size.
std::uint32_t usual_cluster_bytes(std::uint64_t size_bytes) noexcept;

}  // namespace mkvirtfs::fat32
