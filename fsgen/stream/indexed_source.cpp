// SPDX-License-Identifier: BSD-3-Clause
// A chunk comes from the cache, or from a decoder: one that stands before it, else a new one at
// the nearest point. Threads announce where they decode, so that another one waits instead of
// decoding the same. A reader in sequence has the next chunks decoded ahead.
#include "fsgen/stream/indexed_source.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <cassert>
#include <exception>
#include <memory>
#include <utility>

#include "support/arithmetic.h"

namespace mkvirtfs {
namespace {

constexpr std::uint64_t kAheadChunks = (std::uint64_t{1} << 20) / ChunkCache::kChunkBytes;
// A single read spans a few chunks. A reader that went on for more is reading in sequence.
constexpr unsigned kReadOnChunks = 5;
// On the way from a point to a chunk, the last chunks are kept, too: a reader of a file often wants
// what is near. More would drive chunks that were asked for out of the cache.
constexpr std::uint64_t kKeptBefore = 4;
// Where several readers follow each other, as when all of it is copied, the one that is furthest
// may come first: then so many.
constexpr std::uint64_t kKeptBeforeOfMany = 64;

}  // namespace

/// Uses the source without owning it: the last owner must not be the cache's own thread.
class IndexedSource::ReadAhead final : public Task {
 public:
  ReadAhead(IndexedSource& source, std::uint64_t first) : source_(source), first_(first) {}
  void run() noexcept override { source_.read_ahead(first_); }

 private:
  IndexedSource& source_;
  const std::uint64_t first_;
};

/// While it lives these chunks are wanted.
class IndexedSource::Wanted {
 public:
  Wanted(IndexedSource& source, Chunks chunks) : source_(source), chunks_(chunks) {
    const MutexLock lock(source_.mutex_);
    source_.wanted_.push_back(chunks);
  }
  ~Wanted() {
    const MutexLock lock(source_.mutex_);
    source_.wanted_.erase(std::ranges::find(source_.wanted_, chunks_));
  }
  Wanted(const Wanted&) = delete;
  Wanted& operator=(const Wanted&) = delete;

 private:
  IndexedSource& source_;
  const Chunks chunks_;
};

/// Takes a run off the list, and wakes those that wait for it.
class IndexedSource::EndOfRun {
 public:
  EndOfRun(IndexedSource& source, std::uint64_t from) : source_(source), from_(from) {}
  ~EndOfRun() {
    {
      const MutexLock lock(source_.mutex_);
      source_.runs_.erase(std::ranges::find(source_.runs_, from_));
      ++source_.ended_runs_;
    }
    source_.run_ended_.notify_all();
  }
  EndOfRun(const EndOfRun&) = delete;
  EndOfRun& operator=(const EndOfRun&) = delete;

 private:
  IndexedSource& source_;
  const std::uint64_t from_;
};

IndexedSource::IndexedSource(const DecoderInput& input, StreamIndex index,
                             std::shared_ptr<ChunkCache> cache,
                             std::unique_ptr<IndexRebuild> rebuild)
    : input_(input),
      index_(std::move(index)),
      cache_(std::move(cache)),
      name_(input_.packed->name()),
      store_(cache_->store()),
      stream_(store_.new_stream()),
      rebuild_(std::move(rebuild)) {
  if (rebuild_) rebuild_->begin(index_.chunk_crc32, index_.unpacked_bytes, store_, stream_);
}

IndexedSource::~IndexedSource() {
  {
    MutexLock lock(mutex_);
    is_ending_ = true;
    while (ahead_is_running_) lock.wait(run_ended_);
  }
  rebuild_.reset();
  store_.forget(stream_, ceil_div<std::uint64_t>(index_.unpacked_bytes, ChunkCache::kChunkBytes));
}

std::size_t IndexedSource::chunk_bytes(std::uint64_t no) const noexcept {
  return static_cast<std::size_t>(
      std::min<std::uint64_t>(ChunkCache::kChunkBytes, index_.unpacked_bytes - chunk_offset(no)));
}

Result<void> IndexedSource::read(std::uint64_t offset, std::span<std::byte> out) {
  if (out.empty()) return {};
  const Wanted wanted(*this, {offset / ChunkCache::kChunkBytes,
                              (offset + out.size() - 1) / ChunkCache::kChunkBytes});
  while (!out.empty()) {
    const std::uint64_t no = offset / ChunkCache::kChunkBytes;
    const Result<ChunkRef> chunk = this->chunk(no, AskedBy::reader);
    if (!chunk) return propagate(chunk);
    const auto bytes =
        (*chunk)->bytes().subspan(static_cast<std::size_t>(offset - chunk_offset(no)));
    const std::size_t count = std::min(bytes.size(), out.size());
    std::ranges::copy(bytes.first(count), out.begin());
    out = out.subspan(count);
    offset += count;
  }
  return {};
}

Result<bool> IndexedSource::read_at_once(std::uint64_t offset, std::span<std::byte> out) {
  while (!out.empty()) {
    const std::uint64_t no = offset / ChunkCache::kChunkBytes;
    const ChunkRef chunk = find(no);
    if (!chunk) return false;
    const auto bytes = chunk->bytes().subspan(static_cast<std::size_t>(offset - chunk_offset(no)));
    const std::size_t count = std::min(bytes.size(), out.size());
    std::ranges::copy(bytes.first(count), out.begin());
    out = out.subspan(count);
    offset += count;
  }
  return true;
}

bool IndexedSource::is_at_hand(Range range) {
  if (range.length == 0) return true;
  const std::uint64_t last = (range.end() - 1) / ChunkCache::kChunkBytes;
  for (std::uint64_t no = range.offset / ChunkCache::kChunkBytes; no <= last; ++no) {
    if (!store_.find(stream_, no, Purpose::look)) return false;
  }
  return true;
}

void IndexedSource::fetch(Range range) {
  if (range.length == 0) return;
  // More than the cache keeps would only drive out what was decoded first.
  const std::uint64_t most =
      std::max<std::uint64_t>(store_.capacity_bytes() / 2 / ChunkCache::kChunkBytes, 1);
  const std::uint64_t first = range.offset / ChunkCache::kChunkBytes;
  const std::uint64_t last =
      std::min((range.end() - 1) / ChunkCache::kChunkBytes, first + most - 1);
  const Wanted wanted(*this, {first, last});
  for (std::uint64_t no = first; no <= last; ++no) {
    if (!chunk(no, AskedBy::reader)) return;
  }
}

IndexedSource::ChunkRef IndexedSource::find(std::uint64_t no) {
  ChunkRef found = store_.find(stream_, no, Purpose::read);
  if (rebuild_ && found) rebuild_->note_read(no);
  // A reader near the end of what was decoded ahead reads on.
  const std::uint64_t end = ahead_end_.load(std::memory_order_relaxed);
  if (found && no < end && no + kAheadChunks / 2 >= end) start_ahead(end);
  return found;
}

Result<IndexedSource::ChunkRef> IndexedSource::chunk(std::uint64_t no, AskedBy asked_by) {
  if (ChunkRef found =
          asked_by == AskedBy::read_ahead ? store_.find(stream_, no, Purpose::read) : find(no))
    return found;
  const std::uint64_t offset = chunk_offset(no);
  if (rebuild_ && !rebuild_->has_passed(no)) {
    Result<ChunkRef> passed = rebuild_->wait_for(no);
    if (!passed || *passed) return passed;
  }
  const std::uint64_t nearest = entry_before(offset).point.unpacked;
  IdleDecoder idle;
  std::uint64_t from = 0;
  {
    MutexLock lock(mutex_);
    // A thread that began nearer to the chunk than this one could comes by, or leaves a decoder
    // that is nearer. A cache that forgets chunks before they were seen must not make a thread wait
    // for ever: it waits only while another one comes nearer.
    constexpr int kMostWaits = 8;
    std::uint64_t nearest_run = 0;
    std::uint64_t ended_runs = ended_runs_;
    for (int waits = 0;;) {
      if (ended_runs != ended_runs_) ++waits;
      ended_runs = ended_runs_;
      if (ChunkRef found = store_.find(stream_, no, Purpose::read)) return found;
      idle = store_.take_decoder(stream_, nearest, offset);
      from = idle.decoder ? idle.at : nearest;
      bool is_coming = false;
      for (const std::uint64_t other : runs_) {
        if (other < from || other > offset) continue;
        is_coming = true;
        if (other > nearest_run) {
          nearest_run = other;
          waits = 0;
        }
      }
      if (!is_coming || waits >= kMostWaits) break;
      if (idle.decoder) store_.keep_decoder(stream_, std::move(idle));
      lock.wait(run_ended_);
    }
    runs_.push_back(from);
  }
  const EndOfRun end(*this, from);
  return make_chunk(no, std::move(idle), asked_by);
}

Result<IndexedSource::ChunkRef> IndexedSource::make_chunk(std::uint64_t no, IdleDecoder idle,
                                                          AskedBy asked_by) {
  const bool reads_on = idle.decoder && idle.at == chunk_offset(no);
  idle.read_on = reads_on ? idle.read_on + 1 : 0;
  const bool is_reader = idle.read_on >= kReadOnChunks;
  Result<ChunkRef> made = decode_to(no, idle);
  if (made && idle.decoder) store_.keep_decoder(stream_, std::move(idle));
  if (made && is_reader && asked_by == AskedBy::reader) start_ahead(no + 1);
  return made;
}

bool IndexedSource::is_wanted(std::uint64_t passed, std::uint64_t no) {
  const MutexLock lock(mutex_);
  std::size_t near = 0;
  for (const Chunks& chunks : wanted_) {
    if (chunks.first <= passed && passed <= chunks.last) return true;
    if (chunks.last + kKeptBeforeOfMany >= no && chunks.first <= no + kKeptBeforeOfMany) ++near;
  }
  return near > 1 && passed + kKeptBeforeOfMany >= no;
}

void IndexedSource::start_ahead(std::uint64_t first) {
  if (input_.threads == 1 || chunk_offset(first) >= index_.unpacked_bytes) return;
  {
    const MutexLock lock(mutex_);
    if (ahead_is_running_ || is_ending_) return;
    ahead_is_running_ = true;
  }
  ahead_end_.store(first + kAheadChunks, std::memory_order_relaxed);
  if (store_.readahead().submit(std::make_shared<ReadAhead>(*this, first))) return;
  const MutexLock lock(mutex_);
  ahead_is_running_ = false;
  run_ended_.notify_all();
}

void IndexedSource::read_ahead(std::uint64_t first) noexcept {
  try {
    for (std::uint64_t no = first; no < first + kAheadChunks; ++no) {
      if (chunk_offset(no) >= index_.unpacked_bytes) break;
      if (rebuild_ && !rebuild_->has_passed(no)) break;
      if (!chunk(no, AskedBy::read_ahead)) break;
      const MutexLock lock(mutex_);
      if (is_ending_) break;
    }
  } catch (const std::exception&) {
    // Memory is short. A reader that wants the chunk tries again, and reports it.
  }
  // Under the lock: behind it the source may be gone.
  const MutexLock lock(mutex_);
  ahead_is_running_ = false;
  run_ended_.notify_all();
}

Result<IndexedSource::ChunkRef> IndexedSource::decode_to(std::uint64_t no, IdleDecoder& idle) {
  const std::uint64_t offset = chunk_offset(no);
  if (!idle.decoder) {
    Result<IdleDecoder> begun = begin_at(offset);
    if (!begun) return propagate(begun);
    idle = std::move(*begun);
  }
  std::shared_ptr<Chunk> passed;  // what is not kept is decoded into this
  while (true) {
    const std::uint64_t at_no = idle.at / ChunkCache::kChunkBytes;
    const std::uint64_t skip = idle.at - chunk_offset(at_no);
    const bool is_awaited = at_no < no && is_wanted(at_no, no);
    if (skip != 0 || (at_no + kKeptBefore < no && !is_awaited)) {
      if (!passed) passed = store_.new_chunk(ChunkCache::kChunkBytes);
      const Result<void> decoded =
          decode(idle, passed->bytes().first(chunk_bytes(at_no) - static_cast<std::size_t>(skip)));
      if (!decoded) return propagate(decoded);
      continue;
    }
    std::shared_ptr<Chunk> chunk = store_.new_chunk(chunk_bytes(at_no));
    const auto bytes = chunk->bytes();
    const Result<void> decoded = decode(idle, bytes);
    if (!decoded) return propagate(decoded);
    if (crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()) !=
        index_.chunk_crc32[static_cast<std::size_t>(at_no)]) {
      return fail(
          Errc::io,
          fmt::format("{} is damaged before byte {}: the {} bytes from {} on that "
                      "it unpacks to have a wrong checksum",
                      name_, idle.decoder->packed_position(), bytes.size(), chunk_offset(at_no)));
    }
    store_.put(stream_, at_no, chunk);
    if (at_no == no) return chunk;
    if (is_awaited) run_ended_.notify_all();
  }
}

Result<void> IndexedSource::decode(IdleDecoder& idle, std::span<std::byte> out) {
  bool is_new = false;
  while (!out.empty()) {
    const Result<std::size_t> count = idle.decoder->decode(out);
    if (!count) return propagate(count);
    if (*count == 0) {
      // The end of a stretch, behind which the next one begins.
      const StreamIndex::Entry next = entry_before(idle.at);
      if (is_new || next.point.unpacked != idle.at) {
        return fail(Errc::io, fmt::format("{} is damaged before byte {}: it unpacks to {} bytes, "
                                          "and should to {}",
                                          name_, idle.decoder->packed_position(), idle.at,
                                          index_.unpacked_bytes));
      }
      Result<IdleDecoder> begun = begin_at(idle.at);
      if (!begun) return propagate(begun);
      begun->read_on = idle.read_on;
      idle = std::move(*begun);
      is_new = true;
      continue;
    }
    is_new = false;
    idle.at += *count;
    out = out.subspan(*count);
  }
  return {};
}

Result<IndexedSource::IdleDecoder> IndexedSource::begin_at(std::uint64_t unpacked) {
  const StreamIndex::Entry entry = entry_before(unpacked);
  std::vector<std::byte> state;
  if (entry.state) {
    Result<std::vector<std::byte>> unpacked_state =
        unpack_state(*entry.state, input_.zstd_workspace ? state_bytes_of(*input_.zstd_workspace)
                                                         : kMostKeptStateBytes);
    if (!unpacked_state) return propagate(name_, unpacked_state);
    state = std::move(*unpacked_state);
  }
  Result<std::unique_ptr<Decoder>> decoder = make_decoder(input_, entry.point, state);
  if (!decoder) return propagate(decoder);
  return IdleDecoder{std::move(*decoder), entry.point.unpacked, 0};
}

StreamIndex::Entry IndexedSource::entry_before(std::uint64_t unpacked) const {
  return rebuild_ ? rebuild_->entry_before(unpacked) : index_.entry_before(unpacked);
}

StreamFacts IndexedSource::facts() const {
  StreamFacts facts;
  facts.compression = index_.compression;
  facts.spool_bytes = index_.passing ? index_.passing->spool_bytes : 0;
  facts.index_bytes = index_.memory_bytes();
  if (rebuild_) {
    // Until the pass has ended it is unknown how far apart they will be.
    facts.points = rebuild_->points().count();
    facts.index_bytes += rebuild_->points().memory_bytes();
    return facts;
  }
  facts.points = index_.entries.size();
  for (std::size_t i = 0; i < index_.entries.size(); ++i) {
    const std::uint64_t end = i + 1 < index_.entries.size() ? index_.entries[i + 1].point.unpacked
                                                            : index_.unpacked_bytes;
    facts.span_bytes = std::max(facts.span_bytes, end - index_.entries[i].point.unpacked);
  }
  return facts;
}

std::shared_ptr<IndexedSource> make_indexed_source(const DecoderInput& input, StreamIndex index,
                                                   const StreamOptions& options) {
  return std::make_shared<IndexedSource>(
      input, std::move(index), options.cache ? options.cache : std::make_shared<ChunkCache>(),
      nullptr);
}

Result<std::shared_ptr<ByteSource>> make_rebuilt_source(const DecoderInput& stream,
                                                        StreamIndex index,
                                                        const StreamOptions& options) {
  Result<std::unique_ptr<IndexRebuild>> rebuild = IndexRebuild::make(stream, index, options);
  if (!rebuild) return propagate(rebuild);
  const DecoderInput input = (*rebuild)->input();
  return std::make_shared<IndexedSource>(
      input, std::move(index), options.cache ? options.cache : std::make_shared<ChunkCache>(),
      std::move(*rebuild));
}

}  // namespace mkvirtfs
