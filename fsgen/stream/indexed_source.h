// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "fsgen/stream/byte_source.h"
#include "fsgen/stream/chunk_store.h"
#include "fsgen/stream/compressed.h"
#include "fsgen/stream/decoder.h"
#include "fsgen/stream/index_rebuild.h"
#include "fsgen/stream/stream_index.h"
#include "support/mutex.h"

namespace mkvirtfs {

/// The unpacked bytes of a compressed stream at any offset, by its index.
///
/// Reads take whole chunks from the cache. A chunk that is not there is decoded by the thread that
/// wants it: by a decoder that stands before it, or from the nearest point. Threads whose chunk
/// another one is on its way to wait for that one, so nothing is decoded twice at the same time.
/// When a reader goes on where a decoder stopped, the next chunks are decoded meanwhile, on a
/// thread of the cache's. While the points are made again, reads wait for them.
class IndexedSource final : public ByteSource {
 public:
  /// `input` is the stream, or its spool. With a `rebuild`, which is begun here, it is what that
  /// says, and of the index the points are not used.
  IndexedSource(const DecoderInput& input, StreamIndex index, std::shared_ptr<ChunkCache> cache,
                std::unique_ptr<IndexRebuild> rebuild);
  ~IndexedSource() override;

  std::uint64_t size_bytes() const noexcept override { return index_.unpacked_bytes; }
  Result<void> read(std::uint64_t offset, std::span<std::byte> out) override;
  Result<bool> read_at_once(std::uint64_t offset, std::span<std::byte> out) override;
  bool is_at_hand(Range range) override;
  void fetch(Range range) override;
  bool keeps_fetched() override { return true; }
  std::string name() const override { return name_; }

  const StreamIndex& index() const noexcept { return index_; }
  StreamFacts facts() const;

 private:
  using ChunkRef = ChunkCache::Store::Ref;
  using Purpose = ChunkCache::Store::Purpose;
  using IdleDecoder = ChunkCache::Store::IdleDecoder;

  std::uint64_t chunk_offset(std::uint64_t no) const noexcept {
    return no * ChunkCache::kChunkBytes;
  }
  std::size_t chunk_bytes(std::uint64_t no) const noexcept;
  enum class AskedBy : std::uint8_t { reader, read_ahead };
  /// From the cache, or decoded.
  Result<ChunkRef> chunk(std::uint64_t no, AskedBy asked_by);
  ChunkRef find(std::uint64_t no);
  Result<ChunkRef> make_chunk(std::uint64_t no, IdleDecoder idle, AskedBy asked_by);

  struct Chunks {
    std::uint64_t first = 0;
    std::uint64_t last = 0;
    friend bool operator==(const Chunks&, const Chunks&) = default;
  };
  class Wanted;
  class EndOfRun;
  /// Whether chunk `passed`, on the way to `no`, is of use to another reader.
  bool is_wanted(std::uint64_t passed, std::uint64_t no) EXCLUDES(mutex_);
  class ReadAhead;
  /// Has a few chunks decoded from `first` on, unless some are just being.
  void start_ahead(std::uint64_t first);
  void read_ahead(std::uint64_t first) noexcept;
  /// Decodes on from where `idle` is to the end of chunk `no`.
  Result<ChunkRef> decode_to(std::uint64_t no, IdleDecoder& idle);
  /// Fills `out`, over the ends of stretches.
  Result<void> decode(IdleDecoder& idle, std::span<std::byte> out);
  Result<IdleDecoder> begin_at(std::uint64_t unpacked);
  StreamIndex::Entry entry_before(std::uint64_t unpacked) const;

  const DecoderInput input_;
  const StreamIndex index_;
  const std::shared_ptr<ChunkCache> cache_;
  const std::string name_;
  ChunkCache::Store& store_;
  const std::uint64_t stream_;

  Mutex mutex_;
  std::condition_variable_any run_ended_;
  /// Threads that decode: where each of them began.
  std::vector<std::uint64_t> runs_ GUARDED_BY(mutex_);
  std::uint64_t ended_runs_ GUARDED_BY(mutex_) = 0;
  /// What is just being read, which no run passes over without keeping it.
  std::vector<Chunks> wanted_ GUARDED_BY(mutex_);
  bool ahead_is_running_ GUARDED_BY(mutex_) = false;
  bool is_ending_ GUARDED_BY(mutex_) = false;
  std::atomic<std::uint64_t> ahead_end_ = 0;  // the chunk behind those that were decoded ahead

  std::unique_ptr<IndexRebuild> rebuild_;  // until the end; it uses the others
};

/// The source of an index that a pass just made, or that was kept with its points.
std::shared_ptr<IndexedSource> make_indexed_source(const DecoderInput& input, StreamIndex index,
                                                   const StreamOptions& options);
/// The source of a kept index whose points are made again. Errors: as of IndexRebuild::make().
Result<std::shared_ptr<ByteSource>> make_rebuilt_source(const DecoderInput& stream,
                                                        StreamIndex index,
                                                        const StreamOptions& options);

}  // namespace mkvirtfs
