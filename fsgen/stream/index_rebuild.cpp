// SPDX-License-Identifier: BSD-3-Clause
// The pass decodes piece by piece on its own thread. Between pieces it looks at where readers
// are: it holds back while they are busy elsewhere, and hands chunks that are waited for over as
// it passes them.
#include "fsgen/stream/index_rebuild.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <exception>
#include <utility>

#include "fsgen/stream/indexing_reader.h"
#include "support/arithmetic.h"
#include "support/message.h"

namespace mkvirtfs {
namespace {

constexpr std::size_t kPieceBytes = PackedSpool::kFrameBytes;
// How far the pass goes ahead of a reader, and how long a pause between two reads may be. A piece
// is put off as long.
constexpr std::uint64_t kAheadBytes = std::uint64_t{4} << 20;
constexpr std::chrono::milliseconds kPause{20};

}  // namespace

Result<std::unique_ptr<IndexRebuild>> IndexRebuild::make(const DecoderInput& stream,
                                                         const StreamIndex& index,
                                                         const StreamOptions& options) {
  DecoderInput input = stream;
  if (index.passing->window_bytes != 0) {
    input.zstd_workspace = make_zstd_workspace(index.passing->window_bytes);
  }
  std::unique_ptr<IndexRebuild> rebuild(new IndexRebuild(input, index, options));
  const std::uint64_t spool_bytes = index.passing->spool_bytes;
  if (spool_bytes == 0) return rebuild;
  const std::string name = input.packed->name();
  if (!options.spool) {
    return fail(Errc::unsupported, fmt::format("{} needs a spool, and there is none", name));
  }
  // Room is reserved as it is filled. This only refuses at once a spool that is too large.
  if (!options.spool->reserve(spool_bytes)) {
    return fail(Errc::no_space, fmt::format("{} needs a larger spool than the limit allows", name));
  }
  options.spool->release(spool_bytes);
  rebuild->spool_ = std::make_unique<PackedSpool>(options.spool, name, options.index_memory_bytes);
  Result<std::shared_ptr<ByteSource>> frames = rebuild->spool_->source();
  if (!frames) return propagate(frames);
  rebuild->points_input_.packed = std::move(*frames);
  rebuild->points_input_.compression = Compression::zstd;
  return rebuild;
}

IndexRebuild::IndexRebuild(const DecoderInput& stream, const StreamIndex& index,
                           const StreamOptions& options)
    : stream_(stream),
      points_input_(stream),
      builder_(span_of_states(stream, options), options.index_memory_bytes,
               stream.zstd_workspace ? state_bytes_of(*stream.zstd_workspace) : 0),
      thread_(1) {
  stream_.compression = index.compression;
  points_input_.compression = index.compression;
}

IndexRebuild::~IndexRebuild() {
  {
    const MutexLock lock(mutex_);
    is_ending_.store(true, std::memory_order_relaxed);
  }
  was_read_.notify_all();
}

void IndexRebuild::begin(std::span<const std::uint32_t> checksums, std::uint64_t unpacked_bytes,
                         ChunkCache::Store& store, std::uint64_t stream) {
  checksums_ = checksums;
  unpacked_bytes_ = unpacked_bytes;
  store_ = &store;
  stream_no_ = stream;
  const auto pass = std::make_shared<Pass>(*this);
  if (!thread_.submit(pass)) pass->run();
}

void IndexRebuild::note_read(std::uint64_t no) {
  if (has_ended_.load(std::memory_order_relaxed)) return;
  {
    const MutexLock lock(mutex_);
    read_to_ = std::max(read_to_, (no + 1) * ChunkCache::kChunkBytes);
    last_read_ = std::chrono::steady_clock::now();
  }
  was_read_.notify_all();
}

Result<IndexRebuild::ChunkRef> IndexRebuild::wait_for(std::uint64_t no) {
  note_read(no);
  Waiter waiter{no, nullptr};
  MutexLock lock(mutex_);
  if (has_passed(no)) return nullptr;
  waiters_.push_back(&waiter);
  was_read_.notify_all();
  while (!has_passed(no) && !error_) lock.wait(went_on_);
  waiters_.erase(std::ranges::find(waiters_, &waiter));
  if (!has_passed(no)) return std::unexpected(*error_);
  return std::move(waiter.chunk);
}

Result<void> IndexRebuild::point(const Point& point, std::span<const std::byte> state) {
  if (!spool_) builder_.add(point, state);
  return {};
}

void IndexRebuild::go_on() noexcept {
  Result<void> done;
  try {
    done = pass_over_all();
  } catch (...) {
    done = std::unexpected(error_of_exception("decode " + stream_.packed->name()));
  }
  decoder_.reset();
  has_ended_.store(true, std::memory_order_relaxed);
  if (done) return;
  // A changed source has said so itself.
  if (done.error().code != Errc::source_changed) {
    stream_.log->write_with_hints(
        LogLevel::warning,
        fmt::format("{}; reads from byte {} of what it unpacks to on fail", done.error().what,
                    passed_.load() * ChunkCache::kChunkBytes),
        done.error().hints);
  }
  {
    const MutexLock lock(mutex_);
    error_ = std::move(done.error());
  }
  went_on_.notify_all();
}

Result<void> IndexRebuild::pass_over_all() {
  if (!spool_) builder_.add({}, {});
  Result<std::unique_ptr<Decoder>> decoder = make_forward_decoder(stream_, *this);
  if (!decoder) return propagate(decoder);
  decoder_ = std::move(*decoder);
  const auto buffer = std::make_unique_for_overwrite<std::byte[]>(kPieceBytes);
  while (!is_ending_.load(std::memory_order_relaxed)) {
    const Result<std::size_t> count = decode({buffer.get(), kPieceBytes});
    if (!count) return propagate(count);
    if (*count > 0) {
      if (Result<void> taken = take({buffer.get(), *count}); !taken) return taken;
      let_readers_go_first();
    }
    if (*count < kPieceBytes) {
      if (unpacked_ < unpacked_bytes_) return differs(unpacked_, 0);
      return {};
    }
  }
  return {};
}

Result<std::size_t> IndexRebuild::decode(std::span<std::byte> bytes) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const Result<std::size_t> count = decoder_->decode(bytes.subspan(done));
    if (!count) return propagate(count);
    if (*count == 0) break;
    done += *count;
  }
  return done;
}

Result<void> IndexRebuild::take(std::span<const std::byte> bytes) {
  if (bytes.size() > unpacked_bytes_ - unpacked_) return differs(unpacked_, bytes.size());
  std::uint64_t no = unpacked_ / ChunkCache::kChunkBytes;
  for (std::size_t at = 0; at < bytes.size(); at += ChunkCache::kChunkBytes, ++no) {
    const auto chunk = bytes.subspan(at, std::min(ChunkCache::kChunkBytes, bytes.size() - at));
    if (crc32_z(0, reinterpret_cast<const Bytef*>(chunk.data()), chunk.size()) !=
        checksums_[static_cast<std::size_t>(no)]) {
      return differs(unpacked_ + at, chunk.size());
    }
  }
  if (spool_) {
    if (Result<void> spooled = spool_->append(bytes); !spooled) return spooled;
  }
  hand_over(bytes);
  return {};
}

void IndexRebuild::hand_over(std::span<const std::byte> bytes) {
  const std::uint64_t first = unpacked_ / ChunkCache::kChunkBytes;
  unpacked_ += bytes.size();
  const std::uint64_t end = ceil_div<std::uint64_t>(unpacked_, ChunkCache::kChunkBytes);
  std::vector<std::shared_ptr<Chunk>> chunks;
  bool is_read_near = false;
  {
    const MutexLock lock(mutex_);
    is_read_near = first * ChunkCache::kChunkBytes < read_to_ + kAheadBytes;
  }
  if (is_read_near) {
    for (std::uint64_t no = first; no < end; ++no) {
      const std::size_t at = static_cast<std::size_t>(no - first) * ChunkCache::kChunkBytes;
      const auto its_bytes =
          bytes.subspan(at, std::min(ChunkCache::kChunkBytes, bytes.size() - at));
      chunks.push_back(store_->new_chunk(its_bytes.size()));
      std::ranges::copy(its_bytes, chunks.back()->bytes().begin());
    }
  }
  bool is_awaited = false;
  {
    const MutexLock lock(mutex_);
    for (Waiter* const waiter : waiters_) {
      if (waiter->no >= end) continue;
      is_awaited = true;
      // A reader that came after that was asked decodes it from a point.
      if (waiter->no >= first && is_read_near) {
        waiter->chunk = chunks[static_cast<std::size_t>(waiter->no - first)];
      }
    }
    passed_.store(end, std::memory_order_release);
  }
  if (is_awaited) went_on_.notify_all();
  for (std::uint64_t no = first; is_read_near && no < end; ++no) {
    store_->put(stream_no_, no, std::move(chunks[static_cast<std::size_t>(no - first)]));
  }
}

void IndexRebuild::let_readers_go_first() {
  MutexLock lock(mutex_);
  const auto now = std::chrono::steady_clock::now();
  if (now - last_read_ >= kPause) return;
  while (waiters_.empty() && unpacked_ >= read_to_ + kAheadBytes &&
         !is_ending_.load(std::memory_order_relaxed)) {
    if (lock.wait_until(was_read_, now + kPause) == std::cv_status::timeout) return;
  }
}

std::unexpected<Error> IndexRebuild::differs(std::uint64_t from, std::size_t length) const {
  return fail(Errc::io,
              length == 0
                  ? fmt::format("{} is damaged: it unpacks to {} bytes, and should to {}",
                                stream_.packed->name(), from, unpacked_bytes_)
                  : fmt::format("{} is damaged before byte {}: the {} bytes from {} on that it "
                                "unpacks to are not those of its kept index",
                                stream_.packed->name(), decoder_->packed_position(), length, from));
}

}  // namespace mkvirtfs
