// SPDX-License-Identifier: BSD-3-Clause
//
// The chunks of a file are such that its map and its data together are the least: small ones leave
// out all of a hole, large ones have a short map. A file in which every chunk has
// data is stored as a whole, which every kernel reads.
#include "fsgen/erofs/chunks.h"

#include <algorithm>
#include <bit>
#include <iterator>
#include <limits>

#include "support/arithmetic.h"

namespace mkvirtfs::erofs {
namespace {

constexpr std::uint32_t kMostChunkByteBits = 30;  // Linux on 32 bits counts the bytes of a chunk
constexpr std::uint32_t kHole = 0xFFFFFFFF;

struct BlockRun {
  std::uint64_t begin;
  std::uint64_t end;
};

/// Data runs in units of `unit_bytes`, joined where they touch.
std::vector<BlockRun> in_units(std::span<const Range> runs, std::uint64_t unit_bytes) {
  std::vector<BlockRun> found;
  for (const Range& run : runs) {
    const std::uint64_t begin = run.offset / unit_bytes;
    const std::uint64_t end = ceil_div(run.end(), unit_bytes);
    if (!found.empty() && begin <= found.back().end) {
      found.back().end = std::max(found.back().end, end);
    } else {
      found.push_back({begin, end});
    }
  }
  return found;
}

/// Blocks of chunks of `1 << bits` blocks, if those with data are stored, of a file of `blocks`.
std::uint64_t stored_blocks(std::span<const BlockRun> chunks, std::uint32_t bits,
                            std::uint64_t blocks) {
  std::uint64_t stored = 0;
  for (const BlockRun& run : chunks) {
    stored += std::min(run.end << bits, blocks) - (run.begin << bits);
  }
  return stored;
}

/// Of the chunks for which the map and the data are the least, the smallest.
std::uint32_t chunk_bits_of(std::span<const Range> data, std::uint64_t blocks,
                            std::uint32_t block_bytes) {
  const auto block_bits = static_cast<std::uint32_t>(std::countr_zero(block_bytes));
  // Where there is no hole, one chunk is the whole file.
  const std::uint32_t most = std::min(static_cast<std::uint32_t>(std::bit_width(blocks - 1)),
                                      kMostChunkByteBits - block_bits);
  std::uint32_t best = most;
  std::uint64_t least = std::numeric_limits<std::uint64_t>::max();
  for (std::uint32_t bits = 0; bits <= most; ++bits) {
    const std::uint64_t chunks = ((blocks - 1) >> bits) + 1;
    const std::uint64_t map_bytes = chunks * kChunkEntryBytes;
    if (map_bytes >= least) continue;
    const std::vector<BlockRun> runs = in_units(data, std::uint64_t{block_bytes} << bits);
    const std::uint64_t bytes = map_bytes + stored_blocks(runs, bits, blocks) * block_bytes;
    if (bytes >= least) continue;
    least = bytes;
    best = bits;
  }
  return best;
}

}  // namespace

Chunks::Chunks(const SourceTree& tree, std::uint32_t block_bytes) : block_bytes_(block_bytes) {
  for (NodeNo no; no < tree.node_count(); ++no) {
    if (tree.is_sparse(no) && tree.node(no).size_bytes != 0) add(tree, no);
  }
}

void Chunks::add(const SourceTree& tree, NodeNo no) {
  Range dense;
  const std::uint64_t size = tree.node(no).size_bytes;
  const std::uint64_t blocks = ceil_div<std::uint64_t>(size, block_bytes_);
  const std::span<const Range> data = tree.data_runs(no, dense);
  const std::uint32_t bits = chunk_bits_of(data, blocks, block_bytes_);
  const std::uint64_t chunks = ((blocks - 1) >> bits) + 1;
  File file{.node = no,
            .chunk_bits = static_cast<std::uint8_t>(bits),
            .chunk_count = static_cast<std::uint32_t>(chunks),
            .first_run = runs_.size()};
  const std::vector<BlockRun> stored = in_units(data, std::uint64_t{block_bytes_} << bits);
  file.data_blocks = stored_blocks(stored, bits, blocks);
  for (const BlockRun& run : stored) {
    runs_.push_back({static_cast<std::uint32_t>(run.begin), file.data_chunk_count});
    file.data_chunk_count += static_cast<std::uint32_t>(run.end - run.begin);
  }
  file.run_count = runs_.size() - file.first_run;
  if (file.data_chunk_count == file.chunk_count) {
    runs_.resize(file.first_run);
  } else {
    files_.push_back(file);
  }
}

const Chunks::File* Chunks::find(NodeNo no) const noexcept {
  const auto file = std::ranges::lower_bound(files_, no, {}, &File::node);
  return file != files_.end() && file->node == no ? &*file : nullptr;
}

Chunks::Place Chunks::place_of_run(const File& file, std::size_t run) const noexcept {
  const std::span<const Run> runs = runs_of(file);
  const std::uint64_t begin = std::uint64_t{runs[run].rank} << file.chunk_bits;
  const std::uint64_t end = run + 1 < runs.size()
                                ? std::uint64_t{runs[run + 1].rank} << file.chunk_bits
                                : file.data_blocks;
  return {begin, end - begin, (std::uint64_t{runs[run].first} << file.chunk_bits) * block_bytes_};
}

Chunks::Place Chunks::place_of(const File& file, std::uint64_t block) const noexcept {
  const std::span<const Run> runs = runs_of(file);
  const auto rank = static_cast<std::uint32_t>(block >> file.chunk_bits);
  const auto after = std::ranges::upper_bound(runs, rank, {}, &Run::rank);
  return place_of_run(file, static_cast<std::size_t>(after - runs.begin()) - 1);
}

void Chunks::write_map(const File& file, BlockNo start, std::uint64_t at, Window& out) const {
  const Range wanted = out.common({at, std::uint64_t{file.chunk_count} * kChunkEntryBytes});
  if (wanted.length == 0) return;
  const std::uint64_t from = (wanted.offset - at) / kChunkEntryBytes;
  const std::uint64_t to = ceil_div<std::uint64_t>(wanted.end() - at, kChunkEntryBytes);
  const std::span<const Run> runs = runs_of(file);
  for (std::uint64_t chunk = from; chunk < to; ++chunk) {
    const auto after = std::ranges::upper_bound(runs, chunk, {}, &Run::first);
    std::uint32_t block = kHole;
    if (after != runs.begin()) {
      const Run& run = *std::prev(after);
      const std::uint32_t end_rank = after == runs.end() ? file.data_chunk_count : after->rank;
      const std::uint64_t rank = run.rank + (chunk - run.first);
      if (rank < end_rank) {
        block = narrow<std::uint32_t>(start.value() + (rank << file.chunk_bits));
      }
    }
    out.put(at + chunk * kChunkEntryBytes, block);
  }
}

}  // namespace mkvirtfs::erofs
