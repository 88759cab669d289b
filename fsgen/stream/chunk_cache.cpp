// SPDX-License-Identifier: BSD-3-Clause
// Chunks are spread over shards by a hash, each with a list in the order of use and an index of
// it. Decoders that stopped are one short list for all streams.
#include "fsgen/stream/chunk_cache.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "fsgen/stream/chunk_store.h"

namespace mkvirtfs {
namespace {

// Readers that go on where they stopped, of all streams, and of one.
constexpr std::size_t kMostIdle = 32;
constexpr std::size_t kMostIdleOfStream = 8;
// What their windows may take (xz has 8 MiB at its default level); one is kept, however large.
constexpr std::uint64_t kMostIdleBytes = std::uint64_t{48} << 20;

constexpr std::size_t kMostShards = 16;
constexpr std::uint64_t kLeastPerShard = 32 * ChunkCache::kChunkBytes;
constexpr std::uint64_t kLeastCapacity = 8 * ChunkCache::kChunkBytes;
// What readers decode into while others give up theirs.
constexpr std::size_t kMostSpare = 32;

std::size_t shards_for(std::uint64_t capacity_bytes) {
  return static_cast<std::size_t>(
      std::clamp<std::uint64_t>(capacity_bytes / kLeastPerShard, 1, kMostShards));
}

}  // namespace

std::unique_ptr<std::byte[]> ChunkBuffers::take(std::size_t size) {
  if (size == ChunkCache::kChunkBytes) {
    const MutexLock lock(mutex_);
    if (!spare_.empty()) {
      std::unique_ptr<std::byte[]> bytes = std::move(spare_.back());
      spare_.pop_back();
      return bytes;
    }
  }
  return std::make_unique_for_overwrite<std::byte[]>(size);
}

void ChunkBuffers::give_back(std::unique_ptr<std::byte[]> bytes, std::size_t size) noexcept {
  if (size != ChunkCache::kChunkBytes || !bytes) return;
  const MutexLock lock(mutex_);
  // Its memory was reserved when the first spare came: push_back() throws nothing after that.
  if (spare_.capacity() < most_spare_) {
    try {
      spare_.reserve(most_spare_);
    } catch (const std::exception&) {
      return;
    }
  }
  if (spare_.size() < most_spare_) spare_.push_back(std::move(bytes));
}

ChunkCache::ChunkCache(std::uint64_t capacity_bytes)
    : store_(std::make_unique<Store>(capacity_bytes)) {}
ChunkCache::~ChunkCache() = default;

std::uint64_t ChunkCache::capacity_bytes() const noexcept { return store_->capacity_bytes(); }

ChunkCache::Store::Store(std::uint64_t capacity_bytes)
    : capacity_bytes_(std::max(capacity_bytes, kLeastCapacity)),
      shard_count_(shards_for(capacity_bytes_)),
      shards_(std::make_unique<Shard[]>(shard_count_)),
      buffers_(std::make_shared<ChunkBuffers>(kMostSpare)),
      readahead_(2) {}

ChunkCache::Store::~Store() = default;

ChunkCache::Store::Entries::iterator ChunkCache::Store::drop(Shard& shard,
                                                             Entries::iterator entry) {
  shard.used_bytes -= entry->chunk->bytes().size();
  shard.by_key.erase(entry->key);
  return shard.entries.erase(entry);
}

void ChunkCache::Store::forget(std::uint64_t stream, std::uint64_t chunk_count) noexcept {
  std::list<Idle> idle;  // destroyed without the lock
  {
    const MutexLock lock(idle_mutex_);
    for (auto at = idle_.begin(); at != idle_.end();) {
      const auto next = std::next(at);
      if (at->stream == stream) idle.splice(idle.end(), idle_, at);
      at = next;
    }
  }
  // Whichever is less: all that it may have, or all that is here.
  if (chunk_count <= 64) {
    for (std::uint64_t no = 0; no < chunk_count; ++no) {
      const Key key{stream, no};
      Shard& shard = shard_of(key);
      const MutexLock lock(shard.mutex);
      if (const auto found = shard.by_key.find(key); found != shard.by_key.end()) {
        drop(shard, found->second);
      }
    }
    return;
  }
  for (std::size_t i = 0; i < shard_count_; ++i) {
    Shard& shard = shards_[i];
    const MutexLock lock(shard.mutex);
    for (auto at = shard.entries.begin(); at != shard.entries.end();) {
      at = at->key.stream == stream ? drop(shard, at) : std::next(at);
    }
  }
}

ChunkCache::Store::Ref ChunkCache::Store::find(std::uint64_t stream, std::uint64_t no,
                                               Purpose purpose) {
  const Key key{stream, no};
  Shard& shard = shard_of(key);
  const MutexLock lock(shard.mutex);
  const auto found = shard.by_key.find(key);
  if (found == shard.by_key.end()) return nullptr;
  if (purpose == Purpose::read)
    shard.entries.splice(shard.entries.begin(), shard.entries, found->second);
  return found->second->chunk;
}

void ChunkCache::Store::put(std::uint64_t stream, std::uint64_t no, Ref chunk) {
  const Key key{stream, no};
  Shard& shard = shard_of(key);
  Entries given_up;  // destroyed without the lock
  const std::uint64_t most = capacity_bytes_ / shard_count_;
  const MutexLock lock(shard.mutex);
  if (shard.by_key.contains(key)) return;
  shard.used_bytes += chunk->bytes().size();
  shard.entries.push_front({key, std::move(chunk)});
  shard.by_key.emplace(key, shard.entries.begin());
  while (shard.used_bytes > most && shard.entries.size() > 1) {
    const auto last = std::prev(shard.entries.end());
    shard.used_bytes -= last->chunk->bytes().size();
    shard.by_key.erase(last->key);
    given_up.splice(given_up.end(), shard.entries, last);
  }
}

ChunkCache::Store::IdleDecoder ChunkCache::Store::take_decoder(std::uint64_t stream,
                                                               std::uint64_t from,
                                                               std::uint64_t to) {
  const MutexLock lock(idle_mutex_);
  auto best = idle_.end();
  for (auto at = idle_.begin(); at != idle_.end(); ++at) {
    if (at->stream != stream || at->idle.at < from || at->idle.at > to) continue;
    if (best == idle_.end() || at->idle.at > best->idle.at) best = at;
  }
  if (best == idle_.end()) return {};
  IdleDecoder idle = std::move(best->idle);
  idle_.erase(best);
  return idle;
}

void ChunkCache::Store::keep_decoder(std::uint64_t stream, IdleDecoder idle) {
  std::list<Idle> given_up;  // destroyed without the lock
  std::list<Idle> kept;
  kept.push_back({stream, std::move(idle)});
  const MutexLock lock(idle_mutex_);
  idle_.splice(idle_.begin(), kept);
  std::size_t count = 0;
  std::size_t of_stream = 0;
  std::uint64_t memory_bytes = 0;
  for (auto at = idle_.begin(); at != idle_.end();) {
    const auto next = std::next(at);
    const bool is_of_stream = at->stream == stream;
    const std::uint64_t its_bytes = at->idle.decoder->memory_bytes();
    if (count > 0 && (count >= kMostIdle || memory_bytes + its_bytes > kMostIdleBytes ||
                      (is_of_stream && of_stream >= kMostIdleOfStream))) {
      given_up.splice(given_up.end(), idle_, at);
    } else {
      ++count;
      of_stream += is_of_stream ? 1 : 0;
      memory_bytes += its_bytes;
    }
    at = next;
  }
}

}  // namespace mkvirtfs
