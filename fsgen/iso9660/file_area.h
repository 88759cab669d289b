// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "fsgen/image/start_table.h"
#include "fsgen/iso9660/numbers.h"
#include "fsgen/iso9660/plan.h"
#include "fsgen/tree/sequence.h"
#include "fsgen/tree/source_tree.h"
#include "support/error.h"

namespace mkvirtfs::iso9660 {

/// Where the files' bytes stand: the boot files first, then one after the other in the tree's data
/// order, each in one run of whole blocks. Keeps 4 bytes a node, and the order. Immutable.
class FileArea {
 public:
  /// `boot` are the nodes of the boot files. Errors: Errc::does_not_fit with the file that stands
  /// across the end of what 32-bit block numbers reach.
  static Result<FileArea> make(const SourceTree& tree, BlockNo first_block,
                               std::span<const Duplicate> duplicates, std::span<const NodeNo> boot,
                               std::span<const Boot::File> boot_files);

  /// 0 for what has no bytes.
  BlockNo block_of(NodeNo no) const noexcept;
  struct Run {
    NodeNo node;
    BlockNo block;
    std::uint32_t blocks;

    BlockNo end() const noexcept { return block + blocks; }
  };
  /// The file, or of equal ones the first, that a block belongs to; nullopt: none, between boot
  /// files.
  std::optional<Run> run_at(BlockNo block) const noexcept;

  BlockNo first_block() const noexcept { return first_block_; }
  BlockNo end_block() const noexcept {
    return boot_.empty() ? starts_.end() : std::max(starts_.end(), boot_.back().end());
  }

 private:
  const Duplicate* duplicate_of(NodeNo no) const noexcept;  // nullptr: it is none

  BlockNo first_block_;
  Sequence sequence_;                  // of the nodes
  StartTable<BlockNo> starts_;         // by position in it
  std::vector<Run> boot_;              // sorted by block
  std::vector<Duplicate> duplicates_;  // sorted by node
};

}  // namespace mkvirtfs::iso9660
