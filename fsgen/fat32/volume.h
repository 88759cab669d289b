// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "fsgen/fat32/contents.h"
#include "fsgen/fat32/layout.h"
#include "fsgen/image/start_table.h"
#include "fsgen/tree/sequence.h"

namespace mkvirtfs::fat32 {

/// The contents, placed: one contiguous chain of clusters for each directory, then for each file,
/// in the order of their numbers, files in the tree's data order. Where the chains begin is all
/// that is kept, 4 bytes each; the FAT follows from it. Immutable; refers to the contents.
class Volume {
 public:
  /// The layout has room for them.
  Volume(const Contents& contents, const Layout& layout, std::uint32_t volume_id);

  const Contents& contents() const noexcept { return contents_; }
  const Layout& layout() const noexcept { return layout_; }
  std::uint32_t volume_id() const noexcept { return volume_id_; }

  /// One past the last cluster in use.
  ClusterNo used_end() const noexcept { return starts_.end(); }
  std::uint32_t free_clusters() const noexcept { return layout_.cluster_end() - used_end(); }

  /// Chains as they stand: directories by their number, then items. Many are empty: directories'
  /// items, files of no bytes, the root directory of FAT12 and FAT16.
  static ChainNo chain_of(FatDirectoryNo directory) noexcept { return ChainNo{directory.value()}; }
  ChainNo chain_of(ItemNo item) const noexcept {
    return first_item_chain() + items_.position_of(item.value());
  }
  /// Chains from here on are items'.
  ChainNo first_item_chain() const noexcept {
    return ChainNo{static_cast<std::uint32_t>(contents_.directories().size())};
  }
  FatDirectoryNo directory_of(ChainNo chain) const noexcept {
    return FatDirectoryNo{chain.value()};
  }
  ItemNo item_of(ChainNo chain) const noexcept {
    return ItemNo{items_.at(chain - first_item_chain())};
  }
  ClusterNo chain_start(ChainNo chain) const noexcept { return starts_.begin_of(chain.value()); }
  ClusterNo chain_end(ChainNo chain) const noexcept { return starts_.end_of(chain.value()); }
  /// The chain that a cluster in use belongs to.
  ChainNo chain_at(ClusterNo cluster) const noexcept { return ChainNo{starts_.thing_at(cluster)}; }

  /// First cluster as a directory entry names it: 0 for no bytes, and for the root.
  std::uint32_t entry_cluster(ChainNo chain) const noexcept {
    const bool none = chain == chain_of(kFatRoot) || starts_.is_empty(chain.value());
    return none ? 0 : chain_start(chain).value();
  }

 private:
  const Contents& contents_;
  Layout layout_;
  std::uint32_t volume_id_;
  Sequence items_;
  StartTable<ClusterNo> starts_;  // of the chains
};

/// Clusters that the contents take in a volume of this width and cluster size.
std::uint64_t clusters_needed(const Contents& contents, Width width,
                              std::uint32_t cluster_bytes) noexcept;

// Every fixed sector of a volume as a pure function of its number. All fill the whole of `out`,
// which is one sector, and may run on any thread.

/// Of the reserved sectors: boot sector, FSInfo and their copies; zeroes for the others.
void write_reserved_sector(const Volume& volume, std::uint32_t sector, std::span<std::byte> out);
/// Sector `index` of a FAT; both are equal.
void write_fat_sector(const Volume& volume, std::uint32_t index, std::span<std::byte> out);
/// Sector `index` of a directory.
void write_directory_sector(const Volume& volume, FatDirectoryNo directory, std::uint32_t index,
                            std::span<std::byte> out);

/// Bytes at the start of a FAT that are not zero.
std::uint64_t used_fat_bytes(const Volume& volume) noexcept;

}  // namespace mkvirtfs::fat32
