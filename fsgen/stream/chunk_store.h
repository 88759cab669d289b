// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "fsgen/stream/chunk_cache.h"
#include "fsgen/stream/decoder.h"
#include "support/mutex.h"
#include "support/worker_pool.h"

namespace mkvirtfs {

/// Where large buffers come from and go back to, so that a busy cache does not have the allocator
/// take pages from the kernel and give them back for every chunk. Any thread.
class ChunkBuffers {
 public:
  explicit ChunkBuffers(std::size_t most_spare) : most_spare_(most_spare) {}

  std::unique_ptr<std::byte[]> take(std::size_t size);
  void give_back(std::unique_ptr<std::byte[]> bytes, std::size_t size) noexcept;

 private:
  const std::size_t most_spare_;
  Mutex mutex_;
  std::vector<std::unique_ptr<std::byte[]>> spare_ GUARDED_BY(mutex_);
};

/// One chunk: written once, by the thread that makes it.
class Chunk {
 public:
  Chunk(std::shared_ptr<ChunkBuffers> buffers, std::size_t size)
      : buffers_(std::move(buffers)), size_(size), bytes_(buffers_->take(size)) {}
  ~Chunk() { buffers_->give_back(std::move(bytes_), size_); }
  Chunk(const Chunk&) = delete;
  Chunk& operator=(const Chunk&) = delete;

  std::span<std::byte> bytes() noexcept { return {bytes_.get(), size_}; }
  std::span<const std::byte> bytes() const noexcept { return {bytes_.get(), size_}; }

 private:
  const std::shared_ptr<ChunkBuffers> buffers_;
  const std::size_t size_;
  std::unique_ptr<std::byte[]> bytes_;
};

/// What is behind ChunkCache.
class ChunkCache::Store {
 public:
  explicit Store(std::uint64_t capacity_bytes);
  ~Store();
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  using Ref = std::shared_ptr<const Chunk>;

  std::uint64_t capacity_bytes() const noexcept { return capacity_bytes_; }
  /// A number for a stream that no other has.
  std::uint64_t new_stream() noexcept { return next_stream_.fetch_add(1); }
  /// Forgets all of a stream that is no more; it has `chunk_count` chunks.
  void forget(std::uint64_t stream, std::uint64_t chunk_count) noexcept;

  std::shared_ptr<Chunk> new_chunk(std::size_t size) {
    return std::make_shared<Chunk>(buffers_, size);
  }
  /// Why a chunk is asked for: to read it, which keeps it longer, or to see whether it is here.
  enum class Purpose : std::uint8_t { read, look };
  /// nullptr when it is not here.
  Ref find(std::uint64_t stream, std::uint64_t no, Purpose purpose);
  void put(std::uint64_t stream, std::uint64_t no, Ref chunk);

  /// A decoder and the unpacked offset at which it stands.
  struct IdleDecoder {
    std::unique_ptr<Decoder> decoder;
    std::uint64_t at = 0;
    unsigned read_on = 0;  ///< how many chunks it was continued for, one after the other
  };
  /// The decoder of the stream that stands furthest on within [from, to]; none: empty.
  IdleDecoder take_decoder(std::uint64_t stream, std::uint64_t from, std::uint64_t to);
  /// Keeps it for the next reader, as far as there is room.
  void keep_decoder(std::uint64_t stream, IdleDecoder idle);

  /// For what may be decoded before it is asked for.
  WorkerPool& readahead() noexcept { return readahead_; }

 private:
  struct Key {
    std::uint64_t stream = 0;
    std::uint64_t no = 0;
    friend bool operator==(const Key&, const Key&) = default;
  };
  struct KeyHash {
    std::size_t operator()(const Key& key) const noexcept {
      return static_cast<std::size_t>(
          (key.stream * 0x9e3779b97f4a7c15U + key.no) * 0xff51afd7ed558ccdU >> 20);
    }
  };
  struct Entry {
    Key key;
    Ref chunk;
  };
  using Entries = std::list<Entry>;
  struct alignas(64) Shard {
    Mutex mutex;
    Entries entries GUARDED_BY(mutex);  // the most recently used first
    std::unordered_map<Key, Entries::iterator, KeyHash> by_key GUARDED_BY(mutex);
    std::uint64_t used_bytes GUARDED_BY(mutex) = 0;
  };
  struct Idle {
    std::uint64_t stream = 0;
    IdleDecoder idle;
  };

  static Entries::iterator drop(Shard& shard, Entries::iterator entry) REQUIRES(shard.mutex);
  Shard& shard_of(const Key& key) noexcept { return shards_[KeyHash()(key) % shard_count_]; }

  const std::uint64_t capacity_bytes_;
  const std::size_t shard_count_;
  const std::unique_ptr<Shard[]> shards_;
  const std::shared_ptr<ChunkBuffers> buffers_;
  std::atomic<std::uint64_t> next_stream_ = 1;

  Mutex idle_mutex_;
  std::list<Idle> idle_ GUARDED_BY(idle_mutex_);  // the most recently used first

  WorkerPool readahead_;  // the last member: its tasks use the others
};

}  // namespace mkvirtfs
