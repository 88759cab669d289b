// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "fsgen/image/start_table.h"
#include "fsgen/iso9660/plan.h"
#include "fsgen/tree/sequence.h"
#include "fsgen/tree/source_tree.h"
#include "support/error.h"

namespace mkvirtfs::iso9660 {

/// Where the files' bytes stand: the boot files first, then one after the other in the tree's data
/// order, each in one run of whole blocks. Keeps 4 bytes a node, and the order. Immutable.
class FilePlaces {
 public:
  /// `boot` are the nodes of the boot files. Errors: Errc::does_not_fit with the file that stands
  /// across the end of what 32-bit block numbers reach.
  static Result<FilePlaces> make(const SourceTree& tree, std::uint32_t first_block,
                                 std::span<const Duplicate> duplicates,
                                 std::span<const NodeNo> boot,
                                 std::span<const Boot::File> boot_files);

  /// 0 for what has no bytes.
  std::uint32_t block_of(NodeNo no) const noexcept;
  struct Run {
    NodeNo node;
    std::uint32_t block;
    std::uint32_t blocks;
  };
  /// The file, or of equal ones the first, that a block belongs to; nullopt: none, between boot
  /// files.
  std::optional<Run> run_at(std::uint32_t block) const noexcept;

  std::uint32_t first_block() const noexcept { return first_block_; }
  std::uint32_t end_block() const noexcept { return starts_.end(); }

 private:
  const Duplicate* duplicate_of(NodeNo no) const noexcept;  // nullptr: it is none

  std::uint32_t first_block_ = 0;
  Sequence sequence_;                  // of the nodes
  StartTable<std::uint32_t> starts_;   // by position in it
  std::vector<Run> boot_;              // sorted by block
  std::vector<Duplicate> duplicates_;  // sorted by node
};

/// Blocks for so many bytes.
std::uint64_t blocks_for(std::uint64_t bytes) noexcept;

}  // namespace mkvirtfs::iso9660
