// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fsgen/stream/compressed.h"
#include "fsgen/stream/decoder.h"
#include "support/error.h"
#include "support/mutex.h"

namespace mkvirtfs {

/// The data for random access to a stream: where decoding can begin, and a checksum for each chunk
/// of what comes out. Frozen when it is made; docs/layout-stream-index.md has its bytes.
struct StreamIndex {
  /// A point, and its state, compressed with zstd; nullptr when it has none.
  struct Entry {
    Point point;
    std::shared_ptr<const std::vector<std::byte>> state;
  };
  /// Why points are good in this process only: they are in a spool, or are states of a decoder of
  /// zstd. Of such an index the checksums are kept, and the point at 0; a pass makes the others
  /// again (IndexRebuild).
  struct Passing {
    std::uint64_t spool_bytes = 0;   ///< of the spool, or 0
    std::uint64_t window_bytes = 0;  ///< the largest of zstd's frames, or 0
  };

  Compression compression = Compression::none;  ///< of the stream, not of its spool
  std::uint64_t packed_bytes = 0;               ///< of the stream, too
  std::uint64_t unpacked_bytes = 0;
  std::vector<Entry> entries;              ///< by Point::unpacked; the first stands at 0
  std::vector<std::uint32_t> chunk_crc32;  ///< of every ChunkCache::kChunkBytes
  std::optional<Passing> passing;          ///< `entries` cannot be kept

  std::uint64_t memory_bytes() const noexcept;
  /// The last entry at or before `unpacked`.
  const Entry& entry_before(std::uint64_t unpacked) const noexcept;
};

/// Makes the entries of an index as the points come, and keeps them within their memory. One thread
/// adds; meanwhile any thread may ask.
class IndexBuilder {
 public:
  /// No state is longer than `most_state_bytes`.
  IndexBuilder(std::uint64_t span_bytes, std::uint64_t most_memory_bytes,
               std::size_t most_state_bytes);
  ~IndexBuilder();
  IndexBuilder(const IndexBuilder&) = delete;
  IndexBuilder& operator=(const IndexBuilder&) = delete;

  /// The adding thread's.
  bool wants_state_at(std::uint64_t unpacked) const noexcept {
    return unpacked >= last_state_ + span_bytes_;
  }
  void add(const Point& point, std::span<const std::byte> state);
  std::vector<StreamIndex::Entry> take_entries();

  /// Any thread's. The last entry so far at or before `unpacked`; the first one must be there.
  StreamIndex::Entry entry_before(std::uint64_t unpacked) const;
  /// How many entries there are so far, and what they take.
  std::uint64_t count() const;
  std::uint64_t memory_bytes() const;

 private:
  struct Compressor;
  void thin_out() REQUIRES(mutex_);

  const std::uint64_t most_memory_bytes_;
  std::uint64_t span_bytes_;
  std::uint64_t free_span_bytes_;  // of points without state
  bool has_first_ = false;
  std::uint64_t last_ = 0;        // the unpacked offset of the last point
  std::uint64_t last_state_ = 0;  // and from where on a reader has to decode
  mutable Mutex mutex_;
  std::uint64_t memory_bytes_ GUARDED_BY(mutex_) = 0;
  std::vector<StreamIndex::Entry> entries_ GUARDED_BY(mutex_);
  const std::unique_ptr<Compressor> compressor_;
};

/// The state as the decoder gave it. A longer one than `most_bytes` is none.
Result<std::vector<std::byte>> unpack_state(std::span<const std::byte> state,
                                            std::size_t most_bytes);

/// The largest state that is kept: deflate's window.
inline constexpr std::size_t kMostKeptStateBytes = std::size_t{32} << 10;

std::vector<std::byte> to_bytes(const StreamIndex& index);
/// Errors: Errc::unreadable, `name` is whose index it is.
Result<StreamIndex> parse_index(std::span<const std::byte> bytes, std::uint64_t packed_bytes,
                                const std::string& name);

}  // namespace mkvirtfs
