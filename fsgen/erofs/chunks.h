// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "fsgen/erofs/numbers.h"
#include "fsgen/erofs/window.h"
#include "fsgen/tree/source_tree.h"

namespace mkvirtfs::erofs {

/// Files that are stored in chunks, because they have holes: which chunks of each have data. All
/// chunks with data stand one behind the other. Immutable.
class Chunks {
 public:
  /// Chunks of a file that have data, one behind the other.
  struct Run {
    std::uint32_t first = 0;  ///< in the file
    std::uint32_t rank = 0;   ///< how many chunks with data are before it
  };
  struct File {
    NodeNo node{};
    std::uint8_t chunk_bits = 0;  ///< a chunk is so many doublings of a block
    std::uint32_t chunk_count = 0;
    std::uint32_t data_chunk_count = 0;
    std::uint64_t data_blocks = 0;  ///< the last chunk ends with the file
    std::size_t first_run = 0;
    std::size_t run_count = 0;
  };

  /// No file is larger.
  static constexpr std::uint64_t kMostFileBytes = std::uint64_t{1} << 60;

  /// None at all.
  Chunks() = default;
  Chunks(const SourceTree& tree, std::uint32_t block_bytes);

  /// nullptr: the node is stored as a whole.
  const File* find(NodeNo no) const noexcept;
  std::span<const File> files() const noexcept { return files_; }

  /// What stands at block `block` of the blocks of a file: a run of chunks.
  struct Place {
    std::uint64_t block = 0;  ///< where the run begins, in the file's blocks with data
    std::uint64_t blocks = 0;
    std::uint64_t file_offset = 0;  ///< of the byte that stands first
  };
  Place place_of(const File& file, std::uint64_t block) const noexcept;
  /// The run with that number, 0 being the file's first.
  Place place_of_run(const File& file, std::size_t run) const noexcept;

  /// The map of a file whose chunks begin at `start`: where each one is. It stands at `at`.
  void write_map(const File& file, BlockNo start, std::uint64_t at, Window& out) const;

 private:
  std::span<const Run> runs_of(const File& file) const noexcept {
    return std::span(runs_).subspan(file.first_run, file.run_count);
  }
  void add(const SourceTree& tree, NodeNo no);

  std::uint32_t block_bytes_ = 0;
  std::vector<File> files_;  // sorted by node
  std::vector<Run> runs_;
};

}  // namespace mkvirtfs::erofs
