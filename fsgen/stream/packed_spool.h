// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "fsgen/stream/spool.h"
#include "fsgen/stream/stream_index.h"
#include "support/error.h"

namespace mkvirtfs {

/// What a stream unpacks to, packed again so that it can be read at any offset: a zstd frame for
/// each chunk, in a spool. One thread at a time.
class PackedSpool {
 public:
  PackedSpool(std::shared_ptr<SpoolSpace> space, std::string name,
              std::uint64_t index_memory_bytes);
  ~PackedSpool();
  PackedSpool(const PackedSpool&) = delete;
  PackedSpool& operator=(const PackedSpool&) = delete;

  /// The next chunk. Only the last one may be shorter than ChunkCache::kChunkBytes.
  Result<void> append(std::span<const std::byte> chunk);

  /// The frames, and where they begin. It is used up.
  struct Frames {
    std::shared_ptr<ByteSource> packed;
    std::vector<StreamIndex::Entry> entries;
  };
  Result<Frames> finish();

 private:
  struct Compressor;

  SpoolWriter writer_;
  IndexBuilder builder_;
  std::uint64_t unpacked_ = 0;
  const std::unique_ptr<Compressor> compressor_;
};

}  // namespace mkvirtfs
