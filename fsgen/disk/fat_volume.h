// SPDX-License-Identifier: BSD-3-Clause
// Private to this room.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "block/extent.h"
#include "fsgen/disk/cached_source.h"
#include "support/error.h"

namespace mkvirtfs::disk {

/// Where things are on a FAT file system, by its boot sector (fatgen103, "Boot Sector and BPB
/// Structure"). One thread.
class FatVolume {
 public:
  /// nullopt: it is no such boot sector.
  static std::optional<FatVolume> parse(std::span<const std::byte> boot_sector);

  /// A chain of clusters, as far as it goes.
  struct Chain {
    std::vector<Range> ranges;  ///< of bytes of the disk
    std::uint64_t clusters = 0;
    std::string wrong;  ///< why it ends without an end; empty: it has one
  };
  /// From `first` on, `most_clusters` of them at most. Calls `visit(cluster)` for each; false: it
  /// ends there. Errors: those of the disk.
  template <class Visit>
  Result<Chain> chain(CachedSource& disk, std::uint32_t first, std::uint64_t most_clusters,
                      Visit visit) const;

  int width() const noexcept { return width_; }
  std::uint64_t cluster_bytes() const noexcept { return cluster_bytes_; }
  std::uint32_t cluster_count() const noexcept { return cluster_count_; }
  /// Of FAT12 and FAT16.
  Range root() const noexcept { return root_; }
  std::uint32_t root_cluster() const noexcept { return root_cluster_; }
  /// Where a cluster's entry stands, and what it says.
  std::uint64_t entry_offset(std::uint32_t cluster) const noexcept;
  Result<std::uint32_t> entry(CachedSource& disk, std::uint32_t cluster) const;
  bool is_cluster(std::uint32_t number) const noexcept {
    return number >= 2 && number - 2 < cluster_count_;
  }
  bool is_end(std::uint32_t entry) const noexcept { return entry >= (mask() & 0xfffffff8); }
  bool is_bad(std::uint32_t entry) const noexcept { return entry == (mask() & 0xfffffff7); }
  /// Whether FAT entry 1 says that it was not left clean, or had errors.
  Result<bool> is_dirty(CachedSource& disk) const;

 private:
  std::uint32_t mask() const noexcept {
    return width_ == 32 ? 0x0fffffffu : (1u << static_cast<unsigned>(width_)) - 1;
  }

  int width_ = 0;
  std::uint64_t cluster_bytes_ = 0;
  std::uint32_t cluster_count_ = 0;
  std::uint64_t fat_offset_ = 0;
  std::uint64_t data_offset_ = 0;
  Range root_;
  std::uint32_t root_cluster_ = 0;
};

template <class Visit>
Result<FatVolume::Chain> FatVolume::chain(CachedSource& disk, std::uint32_t first,
                                          std::uint64_t most_clusters, Visit visit) const {
  Chain made;
  for (std::uint32_t cluster = first; made.clusters < most_clusters;) {
    if (!is_cluster(cluster)) {
      made.wrong = "its chain leads to cluster " + std::to_string(cluster) + ", which there is not";
      return made;
    }
    if (!visit(cluster)) return made;
    const std::uint64_t offset = data_offset_ + (cluster - 2) * cluster_bytes_;
    if (!made.ranges.empty() && made.ranges.back().end() == offset) {
      made.ranges.back().length += cluster_bytes_;
    } else {
      made.ranges.push_back({offset, cluster_bytes_});
    }
    ++made.clusters;
    const Result<std::uint32_t> next = entry(disk, cluster);
    if (!next) return propagate(next);
    if (is_end(*next)) return made;
    cluster = *next;
  }
  return made;
}

}  // namespace mkvirtfs::disk
