// SPDX-License-Identifier: BSD-3-Clause
//
// How a node is stored follows from the node, its attributes and, of a directory, how long its
// entries are; nothing of it is kept.
#include "fsgen/erofs/volume.h"

#include <algorithm>
#include <limits>

namespace mkvirtfs::erofs {
namespace {

constexpr std::uint32_t kMostNarrow = std::numeric_limits<std::uint16_t>::max();
constexpr std::uint64_t kMostCompactSize = std::numeric_limits<std::uint32_t>::max();

}  // namespace

Shape Volume::shape_of(NodeNo no) const noexcept {
  const Node& node = tree->node(no);
  const std::uint32_t bytes = block_bytes();
  Shape shape;
  std::uint32_t links = node.link_count;
  if (node.is_directory()) {
    const DirectoryNo directory = tree->directory_no(no);
    shape.size_bytes = directories->size_bytes(directory);
    links = directories->link_count(directory);
  } else {
    shape.size_bytes = node.size_bytes;
  }
  shape.is_compact = (options.inode_times == InodeTimes::build || node.mtime() == build_time) &&
                     shape.size_bytes <= kMostCompactSize && node.uid <= kMostNarrow &&
                     node.gid <= kMostNarrow && links <= kMostNarrow;
  shape.head_bytes =
      (shape.is_compact ? kCompactBytes : kExtendedBytes) + xattrs.body(node.xattrs).size();
  if (tree->is_sparse(no)) shape.chunks = chunks.find(no);
  if (shape.chunks != nullptr) {
    shape.head_bytes += std::uint64_t{shape.chunks->chunk_count} * kChunkEntryBytes;
    shape.blocks = shape.chunks->data_blocks;
    return shape;
  }
  shape.blocks = shape.size_bytes / bytes;
  const auto rest = static_cast<std::uint32_t>(shape.size_bytes % bytes);
  if (rest == 0) return shape;
  // The end must stand in one block, and an inode that is longer than a block begins with one.
  const bool may_be_inline = !node.is_regular() || options.tail_packing;
  if (may_be_inline && shape.head_bytes % bytes + rest <= bytes) {
    shape.tail_bytes = rest;
  } else {
    ++shape.blocks;
  }
  return shape;
}

NodeNo Volume::stored_as(NodeNo no, const Shape& shape) const noexcept {
  const auto at = std::ranges::lower_bound(options.duplicates, no, {}, &Duplicate::node);
  if (at == options.duplicates.end() || at->node != no || shape.chunks != nullptr) return no;
  // One of the two may have its end in a block, because the attributes of the other are shorter.
  const Shape original = shape_of(at->original);
  return original.chunks == nullptr && shape.blocks <= original.blocks ? at->original : no;
}

BlockNo Volume::first_block(NodeNo no, const Shape& shape) const noexcept {
  if (shape.blocks == 0) return BlockNo{0};
  if (tree->node(no).is_directory()) return directory_blocks.begin_of(tree->directory_no(no));
  return data_blocks.begin_of(sequence.position_of(stored_as(no, shape)));
}

std::string_view Volume::oldest_linux() const noexcept {
  constexpr std::uint32_t kUsualPageBytes = 4096;
  if (block_bytes() < kUsualPageBytes) return "6.4";
  return chunks.files().empty() ? "5.4" : "5.15";
}

}  // namespace mkvirtfs::erofs
