// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "block/extent.h"

namespace mkvirtfs {

/// Chunks of unpacked bytes of all streams of the process, of which the least recently used are
/// given up; and a few decoders that stay where they stopped, so that a reader that goes on does
/// not begin again.
///
/// Any thread, any time; chunks stand in shards, each with its lock.
class ChunkCache {
 public:
  /// Chunk n of a source is its bytes from n * kChunkBytes on; the last one may be shorter.
  static constexpr std::size_t kChunkBytes = std::size_t{64} << 10;
  static constexpr std::uint64_t kDefaultBytes = std::uint64_t{48} << 20;

  /// At least a few chunks are kept, however small `capacity_bytes` is.
  explicit ChunkCache(std::uint64_t capacity_bytes = kDefaultBytes);
  ~ChunkCache();
  ChunkCache(const ChunkCache&) = delete;
  ChunkCache& operator=(const ChunkCache&) = delete;

  std::uint64_t capacity_bytes() const noexcept;

  /// For the streams of this room.
  class Store;
  Store& store() noexcept { return *store_; }

 private:
  const std::unique_ptr<Store> store_;
};

}  // namespace mkvirtfs
