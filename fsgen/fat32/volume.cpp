// SPDX-License-Identifier: BSD-3-Clause
//
// Placing is one pass: each chain begins where the one before it ends. A FAT says of each cluster
// where its chain goes on, and here that is the next cluster or the end.
#include "fsgen/fat32/volume.h"

#include <algorithm>
#include <cassert>
#include <numeric>
#include <vector>

#include "support/arithmetic.h"

namespace mkvirtfs::fat32 {
namespace {

/// Items in the order in which their data stands; names of one file one after the other.
Sequence item_sequence(const Contents& contents) {
  if (contents.tree().data_order().empty()) return {};
  const Sequence nodes = data_sequence(contents.tree());
  const auto items = contents.items();
  std::vector<std::uint32_t> order(items.size());
  std::iota(order.begin(), order.end(), 0);
  const auto rank = [&](std::uint32_t no) {
    const Contents::Item& item = items[no];
    return std::pair(item.is_directory ? 0 : nodes.position_of(item.node()), no);
  };
  std::ranges::sort(order, {}, rank);
  return Sequence(std::move(order));
}

}  // namespace

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
    : contents_(contents), layout_(layout), volume_id_(volume_id), items_(item_sequence(contents)) {
  const auto directories = contents.directories();
  const auto items = contents.items();
  starts_.reserve(directories.size() + items.size());
  ClusterNo at = kFirstCluster;
  const auto place = [&](std::uint64_t bytes) {
    starts_.add(at);
    at += static_cast<std::uint32_t>(ceil_div<std::uint64_t>(bytes, layout.cluster_bytes));
  };
  // The root has a cluster even when it is empty; FAT12 and FAT16 keep it elsewhere.
  place(layout.width == Width::fat32
            ? std::max<std::uint64_t>(1, std::uint64_t{directories[0].slot_count} * kSlotBytes)
            : 0);
  for (std::size_t d = 1; d < directories.size(); ++d) {
    place(std::uint64_t{directories[d].slot_count} * kSlotBytes);
  }
  for (std::uint32_t position = 0; position < items.size(); ++position) {
    place(contents.size_bytes(items[items_.at(position)]));
  }
  starts_.finish(at);
  assert(at <= layout.cluster_end());
}

}  // namespace mkvirtfs::fat32
