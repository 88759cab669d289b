// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "fsgen/disk/testing/tree_view.h"
#include "fsgen/ext2/inode_time.h"

// A node of a source as an image of a format shows it.

namespace mkvirtfs::disk::testing {

/// All attributes of a node with another time.
inline std::string with_time(const SourceTree& tree, NodeNo no, Timestamp shown) {
  const Node& node = tree.node(no);
  std::string text = all_attributes(tree, no);
  const std::string time = fmt::format(" {}.{:09} ", node.mtime_s, node.mtime_ns);
  return text.replace(text.find(time), time.size(),
                      fmt::format(" {}.{:09} ", shown.seconds, shown.nanoseconds));
}

/// With inodes of this size.
inline View ext_view(std::uint32_t inode_bytes) {
  return [inode_bytes](const SourceTree& tree, NodeNo no) {
    const Timestamp mtime = tree.node(no).mtime();
    if (inode_bytes == 128) {
      return with_time(tree, no,
                       {static_cast<std::int32_t>(ext2::to_small_inode_time(mtime).seconds), 0});
    }
    const ext2::InodeTime stored = ext2::to_inode_time(mtime);
    return with_time(
        tree, no,
        {static_cast<std::int32_t>(stored.seconds) + (std::int64_t{stored.extra & 3} << 32),
         stored.extra >> 2});
  };
}

/// What FAT has no word for is left out.
inline std::string fat_view(const SourceTree& tree, NodeNo no) {
  const Node& node = tree.node(no);
  if (no == kRootNode) return "root";
  if (node.is_directory()) return fmt::format("directory {}", node.mtime_s);
  if (!node.is_regular()) return {};
  return fmt::format("{} {} {}", (node.mode & 0222) != 0 ? "file" : "read-only", node.size_bytes,
                     node.mtime_s);
}

/// fat_view() of the source: times are even seconds from 1980 to 2107.
inline std::string expected_fat_view(const SourceTree& tree, NodeNo no) {
  constexpr std::int64_t k1980 = 315532800;
  constexpr std::int64_t kLastIn2107 = 4354819198;
  std::string text = fat_view(tree, no);
  if (text.empty() || no == kRootNode) return text;
  const std::int64_t time = std::clamp(tree.node(no).mtime_s, k1980, kLastIn2107);
  return text.substr(0, text.rfind(' ') + 1) + std::to_string(time - time % 2);
}

/// With Rock Ridge: times are whole seconds from 1900 to 2155; there are no extended attributes.
inline std::string iso_view(const SourceTree& tree, NodeNo no) {
  constexpr std::int64_t k1900 = -2208988800;
  constexpr std::int64_t kLastIn2155 = 5869583999;
  return with_time(tree, no, {std::clamp(tree.node(no).mtime_s, k1900, kLastIn2155), 0});
}

}  // namespace mkvirtfs::disk::testing
