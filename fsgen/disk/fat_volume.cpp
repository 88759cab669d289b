// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/disk/fat_volume.h"

#include <algorithm>
#include <array>
#include <bit>

#include "support/byte_order.h"

namespace mkvirtfs::disk {
namespace {

// fatgen103, "FAT Type Determination".
constexpr std::uint64_t kMostFat12Clusters = 4084;
constexpr std::uint64_t kMostFat16Clusters = 65524;
constexpr std::uint64_t kMostFat32Clusters = 0x0ffffff5;
constexpr std::uint64_t kDirectoryEntryBytes = 32;
constexpr std::size_t kBootSectorBytes = 512;

constexpr std::uint32_t kFat16Good = 0xc000;
constexpr std::uint32_t kFat32Good = 0x0c000000;

}  // namespace

std::optional<FatVolume> FatVolume::parse(std::span<const std::byte> boot) {
  if (boot.size() < kBootSectorBytes || load_le<std::uint16_t>(boot, 510) != 0xaa55) {
    return std::nullopt;
  }
  const auto u8 = [&](std::size_t at) { return std::to_integer<std::uint32_t>(boot[at]); };
  const std::uint64_t sector_bytes = load_le<std::uint16_t>(boot, 11);
  const std::uint64_t cluster_sectors = u8(13);
  const std::uint64_t reserved = load_le<std::uint16_t>(boot, 14);
  const std::uint64_t fats = u8(16);
  const std::uint64_t root_entries = load_le<std::uint16_t>(boot, 17);
  const std::uint64_t small_total = load_le<std::uint16_t>(boot, 19);
  const std::uint64_t total = small_total != 0 ? small_total : load_le<std::uint32_t>(boot, 32);
  const std::uint64_t small_fat = load_le<std::uint16_t>(boot, 22);
  const std::uint64_t fat_sectors = small_fat != 0 ? small_fat : load_le<std::uint32_t>(boot, 36);
  const std::uint32_t media = u8(21);
  const bool has_jump = u8(0) == 0xeb || u8(0) == 0xe9;
  if (!has_jump || !std::has_single_bit(sector_bytes) || sector_bytes < 512 ||
      sector_bytes > 4096 || !std::has_single_bit(cluster_sectors) || reserved == 0 || fats == 0 ||
      fats > 2 || (media != 0xf0 && media < 0xf8) || fat_sectors == 0) {
    return std::nullopt;
  }
  const std::uint64_t root_sectors =
      (root_entries * kDirectoryEntryBytes + sector_bytes - 1) / sector_bytes;
  const std::uint64_t before = reserved + fats * fat_sectors + root_sectors;
  if (before >= total) return std::nullopt;
  FatVolume volume;
  const std::uint64_t clusters = (total - before) / cluster_sectors;
  if (clusters == 0 || clusters > kMostFat32Clusters) return std::nullopt;
  // A small FAT32, which mkfs.fat makes when asked to, is known by its empty 16-bit fields.
  volume.width_ = small_fat == 0 && root_entries == 0 ? 32
                  : clusters <= kMostFat12Clusters    ? 12
                  : clusters <= kMostFat16Clusters    ? 16
                                                      : 32;
  const std::uint64_t fat_entries =
      fat_sectors * sector_bytes * 8 / static_cast<std::uint64_t>(volume.width_);
  if (fat_entries <= 2) return std::nullopt;
  volume.cluster_count_ = static_cast<std::uint32_t>(std::min(clusters, fat_entries - 2));
  volume.cluster_bytes_ = cluster_sectors * sector_bytes;
  volume.fat_offset_ = reserved * sector_bytes;
  volume.root_ = {(reserved + fats * fat_sectors) * sector_bytes,
                  root_entries * kDirectoryEntryBytes};
  volume.data_offset_ = before * sector_bytes;
  if (volume.width_ == 32) {
    volume.root_cluster_ = load_le<std::uint32_t>(boot, 44);
    // Not mirrored: one of them is the active one.
    const std::uint32_t flags = load_le<std::uint16_t>(boot, 40);
    if ((flags & 0x80) != 0 && (flags & 0xf) < fats) {
      volume.fat_offset_ += (flags & 0xf) * fat_sectors * sector_bytes;
    }
  }
  return volume;
}

std::uint64_t FatVolume::entry_offset(std::uint32_t cluster) const noexcept {
  const std::uint64_t number = cluster;
  if (width_ == 12) return fat_offset_ + number + number / 2;
  return fat_offset_ + number * (width_ == 16 ? 2 : 4);
}

Result<std::uint32_t> FatVolume::entry(CachedSource& disk, std::uint32_t cluster) const {
  std::array<std::byte, 4> bytes{};
  const auto part = std::span(bytes).first(width_ == 32 ? 4 : 2);
  const std::uint64_t offset = entry_offset(cluster);
  if (!disk.holds(offset, part.size())) {
    return fail(Errc::unreadable, disk.name() + ": the FAT goes on behind the end of the disk");
  }
  if (Result<void> good = disk.read(offset, part); !good) return propagate(good);
  if (width_ == 32) return load_le<std::uint32_t>(bytes) & mask();
  const std::uint32_t value = load_le<std::uint16_t>(bytes);
  if (width_ == 16) return value;
  return (cluster % 2 != 0 ? value >> 4 : value) & mask();
}

Result<bool> FatVolume::is_dirty(CachedSource& disk) const {
  if (width_ == 12) return false;
  const Result<std::uint32_t> flags = entry(disk, 1);
  if (!flags) return propagate(flags);
  const std::uint32_t good = width_ == 16 ? kFat16Good : kFat32Good;
  return (*flags & good) != good;
}

}  // namespace mkvirtfs::disk
