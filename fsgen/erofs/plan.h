// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fsgen/image/duplicates.h"
#include "fsgen/image/planned_image.h"
#include "fsgen/tree/source_tree.h"
#include "support/error.h"
#include "support/uuid.h"

namespace mkvirtfs::erofs {

enum class InodeTimes : std::uint8_t {
  keep,   ///< each has its own; short inodes have the volume's, where it is the same
  build,  ///< all have the volume's, and short inodes where nothing else speaks against them
};

struct Options {
  std::uint32_t block_bytes = 4096;  ///< a power of two from 512 to 65536
  std::string label;                 ///< up to 15 bytes
  std::optional<Uuid> uuid;          ///< unset: derived from the tree and the options
  InodeTimes inode_times = InodeTimes::keep;
  /// The ends of files stand behind their inodes: such blocks are made of bytes of files when they
  /// are read.
  bool tail_packing = false;
  /// The volume's time; unset: the newest mtime of the tree.
  std::optional<std::int64_t> made_at_s;
  /// Sorted by node; find_duplicates() makes them. Files with holes keep their own places.
  std::vector<Duplicate> duplicates;
};

/// Sizes and places everything before a byte of a file is read; time and memory grow with the
/// number of names, not of bytes (law 3). The format is that of Linux without compression:
/// docs/layout-erofs.md.
///
/// Errors: Errc::usage for options that the format does not have; Errc::does_not_fit with the path
/// and the limit for what it cannot hold; Errc::unsupported for extended attributes of namespaces
/// that it does not know.
Result<std::shared_ptr<const PlannedImage>> plan(std::shared_ptr<const SourceTree> tree,
                                                 const Options& options);

}  // namespace mkvirtfs::erofs
