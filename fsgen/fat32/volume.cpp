// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/fat32/volume.h"

#include <algorithm>
#include <cassert>

#include "support/arithmetic.h"

namespace mkvirtfs::fat32 {

std::uint64_t clusters_needed(const Contents& contents, Width width,
                              std::uint32_t cluster_bytes) noexcept {
  std::size_t index = 0;
  while (512u << index != cluster_bytes) ++index;
  std::uint64_t clusters = contents.clusters_without_root()[index];
  if (width == Width::fat32) {
    const std::uint64_t root = std::uint64_t{contents.directories()[0].slot_count} * kSlotBytes;
    clusters += std::max<std::uint64_t>(1, ceil_div<std::uint64_t>(root, cluster_bytes));
  }
  return clusters;
}

Volume::Volume(const Contents& contents, const Layout& layout, std::uint32_t volume_id)
    : contents_(contents), layout_(layout), volume_id_(volume_id) {
  const auto directories = contents.directories();
  const auto items = contents.items();
  starts_.reserve(directories.size() + items.size() + 1);
  ClusterNo at = kFirstCluster;
  const auto place = [&](std::uint64_t bytes) {
    starts_.push_back(at);
    at += static_cast<ClusterNo>(ceil_div<std::uint64_t>(bytes, layout.cluster_bytes));
  };
  // The root has a cluster even when it is empty; FAT12 and FAT16 keep it elsewhere.
  place(layout.width == Width::fat32
            ? std::max<std::uint64_t>(1, std::uint64_t{directories[0].slot_count} * kSlotBytes)
            : 0);
  for (std::size_t d = 1; d < directories.size(); ++d) {
    place(std::uint64_t{directories[d].slot_count} * kSlotBytes);
  }
  for (const Contents::Item& item : items) place(contents.size_bytes(item));
  starts_.push_back(at);
  assert(at <= layout.cluster_end());
}

std::uint32_t Volume::chain_at(ClusterNo cluster) const noexcept {
  assert(cluster >= kFirstCluster && cluster < used_end());
  // Of chains that begin there all but the last are empty.
  return static_cast<std::uint32_t>(std::ranges::upper_bound(starts_, cluster) - starts_.begin()) -
         1;
}

}  // namespace mkvirtfs::fat32
