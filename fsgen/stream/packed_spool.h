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

/// What a stream unpacks to, packed again so that it can be read at any offset: zstd frames of a
/// few chunks each, in a spool. One thread writes; meanwhile any thread may ask for what was
/// written.
class PackedSpool {
 public:
  static constexpr std::size_t kFrameBytes = std::size_t{256} << 10;

  PackedSpool(std::shared_ptr<SpoolSpace> space, std::string name,
              std::uint64_t index_memory_bytes);
  ~PackedSpool();
  PackedSpool(const PackedSpool&) = delete;
  PackedSpool& operator=(const PackedSpool&) = delete;

  /// The next bytes, at most kFrameBytes: a frame.
  Result<void> append(std::span<const std::byte> bytes);

  /// The frames that were appended, as SpoolWriter::source() has them; and the one that has the
  /// byte, or one before it. At least one was appended.
  Result<std::shared_ptr<ByteSource>> source() { return writer_.source(); }
  const IndexBuilder& frames() const noexcept { return builder_; }

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
