// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "fsgen/stream/chunk_store.h"
#include "fsgen/stream/compressed.h"
#include "fsgen/stream/decoder.h"
#include "fsgen/stream/packed_spool.h"
#include "fsgen/stream/stream_index.h"
#include "support/mutex.h"
#include "support/worker_pool.h"

namespace mkvirtfs {

/// The pass that makes the points of an index again when only its checksums were kept: states of
/// zstd's decoder, or a spool. It runs on a thread of its own while the stream is read. Reads of
/// what it has passed go on at once; reads further on wait until it comes there.
///
/// Readers come first. Chunks around the furthest one that was asked for go into the cache as the
/// pass decodes them, and while there are reads it stays near to there and goes very slowly. So a
/// reader in sequence gets what the pass decodes, and no chunk is decoded twice. When there are no
/// reads, and when a read waits, it goes as fast as it can.
///
/// Every chunk is compared with its checksum. At the first that differs, or that cannot be decoded
/// or spooled, the pass ends with a line in the log, and all reads behind it return that error.
class IndexRebuild final : private StreamObserver {
 public:
  using ChunkRef = ChunkCache::Store::Ref;

  /// `index` says what is to be made again; it must outlive this, as what begin() is given.
  /// Errors: Errc::unsupported and Errc::no_space when it needs a spool that there is not or that
  /// has no room.
  static Result<std::unique_ptr<IndexRebuild>> make(const DecoderInput& stream,
                                                    const StreamIndex& index,
                                                    const StreamOptions& options);
  ~IndexRebuild();
  IndexRebuild(const IndexRebuild&) = delete;
  IndexRebuild& operator=(const IndexRebuild&) = delete;

  /// What decoders that begin at its points are made of.
  const DecoderInput& input() const noexcept { return points_input_; }

  /// Starts the pass; without a thread to be had it is gone through here. `checksums` are those of
  /// the chunks, and outlive this. Chunks that are read go to `store`, as of `stream`.
  void begin(std::span<const std::uint32_t> checksums, std::uint64_t unpacked_bytes,
             ChunkCache::Store& store, std::uint64_t stream);

  bool has_passed(std::uint64_t no) const noexcept {
    return no < passed_.load(std::memory_order_acquire);
  }
  /// A chunk was read. Costs next to nothing when the pass has ended.
  void note_read(std::uint64_t no);
  /// Waits until chunk `no` was passed; the chunk itself when that was meanwhile, or nullptr.
  Result<ChunkRef> wait_for(std::uint64_t no);
  /// The nearest point to begin at for what was passed.
  StreamIndex::Entry entry_before(std::uint64_t unpacked) const {
    return points().entry_before(unpacked);
  }
  /// Of the points so far.
  const IndexBuilder& points() const noexcept { return spool_ ? spool_->frames() : builder_; }

 private:
  class Pass final : public Task {
   public:
    explicit Pass(IndexRebuild& rebuild) : rebuild_(rebuild) {}
    void run() noexcept override { rebuild_.go_on(); }

   private:
    IndexRebuild& rebuild_;
  };
  struct Waiter {
    std::uint64_t no = 0;
    ChunkRef chunk;
  };

  IndexRebuild(const DecoderInput& stream, const StreamIndex& index, const StreamOptions& options);

  bool wants_state_at(std::uint64_t unpacked) override {
    return !spool_ && builder_.wants_state_at(unpacked);
  }
  Result<void> point(const Point& point, std::span<const std::byte> state) override;
  void checksum(std::uint64_t, std::uint64_t, std::uint32_t, std::uint32_t) override {}

  /// On the thread: until the end, an error or the destructor.
  void go_on() noexcept;
  Result<void> pass_over_all();
  /// Fills `bytes` as far as the stream goes: how many.
  Result<std::size_t> decode(std::span<std::byte> bytes);
  /// Compares the checksums of chunks, spools them, and gives them to those that read there.
  Result<void> take(std::span<const std::byte> bytes);
  void hand_over(std::span<const std::byte> bytes);
  void let_readers_go_first();
  std::unexpected<Error> differs(std::uint64_t from, std::size_t length) const;

  DecoderInput stream_;        // the pass's
  DecoderInput points_input_;  // the readers'
  std::unique_ptr<PackedSpool> spool_;
  IndexBuilder builder_;  // without a spool
  std::unique_ptr<Decoder> decoder_;
  std::span<const std::uint32_t> checksums_;
  std::uint64_t unpacked_bytes_ = 0;
  ChunkCache::Store* store_ = nullptr;
  std::uint64_t stream_no_ = 0;
  std::uint64_t unpacked_ = 0;  // so far
  std::atomic<bool> is_ending_ = false;
  std::atomic<bool> has_ended_ = false;
  std::atomic<std::uint64_t> passed_ = 0;  // chunks

  Mutex mutex_;
  std::condition_variable_any went_on_;  // the pass
  std::condition_variable_any was_read_;
  /// The end of the furthest chunk that was read or is waited for, and when any last was.
  std::uint64_t read_to_ GUARDED_BY(mutex_) = 0;
  std::chrono::steady_clock::time_point last_read_ GUARDED_BY(mutex_);
  std::vector<Waiter*> waiters_ GUARDED_BY(mutex_);
  std::optional<Error> error_ GUARDED_BY(mutex_);

  WorkerPool thread_;  // the last member: its task uses the others
};

}  // namespace mkvirtfs
