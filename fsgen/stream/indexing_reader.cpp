// SPDX-License-Identifier: BSD-3-Clause
// A producer decodes pieces, on a thread of its own when there is one; the reader takes them,
// compares checksums, makes those of the chunks, and writes them to the spool if one is needed.
// Points come from the decoder as it goes.
#include "fsgen/stream/indexing_reader.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <utility>
#include <vector>

#include "fsgen/stream/indexed_source.h"
#include "fsgen/stream/packed_spool.h"
#include "fsgen/stream/stream_index.h"
#include "support/message.h"
#include "support/mutex.h"
#include "support/text.h"
#include "support/worker_pool.h"

namespace mkvirtfs {
namespace {

// What goes from the decoder to the reader at a time: a few chunks, so that threads are woken less
// often.
constexpr std::size_t kPieceBytes = PackedSpool::kFrameBytes;
static_assert(kPieceBytes % ChunkCache::kChunkBytes == 0);
// How many pieces are decoded ahead of the reader.
constexpr std::size_t kMostAhead = 6;

std::uint32_t crc32_of(std::uint32_t before, std::span<const std::byte> bytes) noexcept {
  return static_cast<std::uint32_t>(
      crc32_z(before, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

/// What is known of the index before the pass.
struct IndexPlan {
  std::vector<StreamIndex::Entry> entries;  // the format has an index of its own
  bool needs_spool = false;
};

/// Gives `input` a workspace when one is needed.
Result<IndexPlan> make_plan(DecoderInput& input, const StreamOptions& options) {
  IndexPlan plan;
  switch (input.compression) {
    case Compression::gzip:
    case Compression::deflate:
    case Compression::bzip2:
      break;
    case Compression::xz: {
      const Result<XzBlocks> blocks = find_xz_blocks(input, options.index_memory_bytes);
      if (!blocks) return propagate(blocks);
      const std::vector<Point>& points = blocks->points;
      for (std::size_t i = 0; i < points.size(); ++i) {
        const std::uint64_t end =
            i + 1 < points.size() ? points[i + 1].unpacked : blocks->unpacked_bytes;
        if (end - points[i].unpacked > most_stretch_bytes(options)) plan.needs_spool = true;
        plan.entries.push_back({points[i], nullptr});
      }
      if (points.empty() ||
          plan.entries.size() * sizeof(StreamIndex::Entry) > options.index_memory_bytes) {
        plan.needs_spool = true;
      }
      if (plan.needs_spool) plan.entries.clear();
      break;
    }
    case Compression::zstd: {
      const Result<ZstdFrames> frames = find_zstd_frames(*input.packed);
      if (!frames) return propagate(frames);
      // Not all frames say how long they are.
      const std::uint64_t most_bytes = most_stretch_bytes(options);
      if (frames->largest_packed_bytes > most_bytes / 4 ||
          frames->largest_unpacked_bytes > most_bytes) {
        plan.needs_spool = frames->largest_window_bytes > kMostZstdWindowBytes;
        if (!plan.needs_spool) {
          input.zstd_workspace = make_zstd_workspace(frames->largest_window_bytes);
        }
      }
      break;
    }
    default:
      plan.needs_spool = true;
      break;
  }
  return plan;
}

/// A checksum that the stream itself has.
struct Checksum {
  std::uint64_t unpacked_end = 0;
  std::uint64_t packed_end = 0;
  std::uint32_t size = 0;
  std::uint32_t crc32 = 0;
};

/// Some bytes on their way from the decoder to the reader.
struct DecodedPiece {
  std::unique_ptr<std::byte[]> bytes;
  std::size_t size = 0;
  std::vector<Checksum> checksums;
  bool is_last = false;
  std::uint64_t packed_end = 0;  // is_last: where the stream ended
  std::optional<Error> error;    // behind these bytes
};

/// Decodes one piece after the other; run by one thread at a time.
class Producer final : public StreamObserver {
 public:
  Producer(const DecoderInput& input, const StreamOptions& options)
      : name_(input.packed->name()),
        packed_bytes_(input.packed->size_bytes()),
        options_(options),
        builder_(
            span_of_states(input, options), options.index_memory_bytes,
            input.zstd_workspace ? state_bytes_of(*input.zstd_workspace) : kMostKeptStateBytes) {}

  Result<void> begin(const DecoderInput& input) {
    Result<std::unique_ptr<Decoder>> decoder = make_forward_decoder(input, *this);
    if (!decoder) return propagate(decoder);
    decoder_ = std::move(*decoder);
    builder_.add({}, {});
    return {};
  }
  DecodedPiece produce(std::unique_ptr<std::byte[]> bytes);
  std::uint64_t unpacked_bytes() const noexcept { return unpacked_; }
  std::vector<StreamIndex::Entry> take_entries() { return builder_.take_entries(); }

  bool wants_state_at(std::uint64_t unpacked) override { return builder_.wants_state_at(unpacked); }
  Result<void> point(const Point& point, std::span<const std::byte> state) override {
    builder_.add(point, state);
    return {};
  }
  void checksum(std::uint64_t unpacked_end, std::uint64_t packed_end, std::uint32_t size,
                std::uint32_t crc32) override {
    checksums_.push_back({unpacked_end, packed_end, size, crc32});
  }

 private:
  Result<void> decode(DecodedPiece& piece);
  Result<void> check_limits() const;

  const std::string name_;
  const std::uint64_t packed_bytes_;
  const StreamOptions& options_;
  IndexBuilder builder_;
  std::unique_ptr<Decoder> decoder_;
  std::uint64_t unpacked_ = 0;
  std::vector<Checksum> checksums_;
};

DecodedPiece Producer::produce(std::unique_ptr<std::byte[]> bytes) {
  DecodedPiece piece;
  piece.bytes = std::move(bytes);
  try {
    if (!piece.bytes) piece.bytes = std::make_unique_for_overwrite<std::byte[]>(kPieceBytes);
    if (const Result<void> result = decode(piece); !result) piece.error = result.error();
  } catch (...) {
    piece.error = error_of_exception("decode " + name_);
  }
  piece.checksums = std::move(checksums_);
  checksums_.clear();
  piece.is_last = piece.is_last || piece.error.has_value();
  if (piece.is_last) piece.packed_end = decoder_->packed_position();
  return piece;
}

Result<void> Producer::decode(DecodedPiece& piece) {
  while (piece.size < kPieceBytes) {
    const Result<std::size_t> count =
        decoder_->decode({piece.bytes.get() + piece.size, kPieceBytes - piece.size});
    if (!count) return propagate(count);
    if (*count == 0) {
      piece.is_last = true;
      return {};
    }
    piece.size += *count;
    unpacked_ += *count;
  }
  return check_limits();
}

Result<void> Producer::check_limits() const {
  if (options_.most_unpacked_bytes != 0 && unpacked_ > options_.most_unpacked_bytes) {
    return fail(
        Errc::does_not_fit,
        fmt::format("{} unpacks to more than {}", name_, human_size(options_.most_unpacked_bytes)),
        {{"max-size"}});
  }
  const std::uint64_t packed = std::max<std::uint64_t>(decoder_->packed_position(), 1);
  if (options_.most_ratio != 0 && unpacked_ > options_.ratio_free_bytes &&
      unpacked_ / packed > options_.most_ratio) {
    return fail(Errc::does_not_fit,
                fmt::format("the first {} bytes of {} unpack to {}, more than {} times as much",
                            packed, name_, human_size(unpacked_), options_.most_ratio),
                {{"max-ratio"}});
  }
  return {};
}

/// IndexingReader over a thread that decodes ahead, or without one where the options or the host
/// give none.
class AheadReader final : public IndexingReader {
 public:
  AheadReader(const DecoderInput& input, const StreamOptions& options,
              const std::optional<Expected>& expected, IndexPlan plan)
      : input_(input),
        options_(options),
        expected_(expected),
        plan_(std::move(plan)),
        producer_(input_, options_),
        thread_(1) {}
  ~AheadReader() override { stop(); }

  Result<void> begin() {
    if (Result<void> begun = producer_.begin(input_); !begun) return begun;
    if (plan_.needs_spool && options_.spool) {
      spool_ = std::make_unique<PackedSpool>(options_.spool, input_.packed->name(),
                                             options_.index_memory_bytes);
    }
    {
      const MutexLock lock(mutex_);
      ready_.reserve(kMostAhead);
    }
    has_thread_ = options_.threads != 1 && thread_.submit(std::make_shared<DecodeAhead>(*this));
    return {};
  }
  Result<std::shared_ptr<ByteSource>> finish() override;
  std::uint64_t packed_end() const noexcept override { return current_.packed_end; }

 protected:
  Result<std::span<const std::byte>> make_more() override;

 private:
  class DecodeAhead final : public Task {
   public:
    explicit DecodeAhead(AheadReader& reader) : reader_(reader) {}
    void run() noexcept override { reader_.decode_ahead(); }

   private:
    AheadReader& reader_;
  };

  /// On the thread: until the end, or stop().
  void decode_ahead() noexcept;
  void stop() noexcept;
  DecodedPiece take_piece();
  /// Checks what the stream says of itself, and notes the checksums of chunks.
  Result<void> check(const DecodedPiece& piece);
  Result<void> spool(const DecodedPiece& piece);

  const DecoderInput input_;
  const StreamOptions options_;
  const std::optional<Expected> expected_;
  IndexPlan plan_;
  Producer producer_;

  // The reader's own.
  bool has_thread_ = false;
  DecodedPiece current_;
  std::optional<Error> error_;
  std::vector<std::uint32_t> chunk_crc32_;
  std::uint64_t unpacked_ = 0;
  std::uint64_t member_begin_ = 0;
  std::uint32_t member_crc32_ = 0;
  std::unique_ptr<PackedSpool> spool_;

  Mutex mutex_;
  std::condition_variable_any changed_;
  std::vector<DecodedPiece> ready_
      GUARDED_BY(mutex_);  // has room for kMostAhead: the thread throws nothing
  std::vector<std::unique_ptr<std::byte[]>> spare_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;

  WorkerPool thread_;  // the last member: its task uses the others
};

void AheadReader::decode_ahead() noexcept {
  while (true) {
    std::unique_ptr<std::byte[]> bytes;
    {
      MutexLock lock(mutex_);
      while (!stopping_ && ready_.size() >= kMostAhead) lock.wait(changed_);
      if (stopping_) return;
      if (!spare_.empty()) {
        bytes = std::move(spare_.back());
        spare_.pop_back();
      }
    }
    DecodedPiece piece = producer_.produce(std::move(bytes));
    const bool is_last = piece.is_last;
    {
      const MutexLock lock(mutex_);
      ready_.push_back(std::move(piece));
    }
    changed_.notify_all();
    if (is_last) return;
  }
}

void AheadReader::stop() noexcept {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
}

DecodedPiece AheadReader::take_piece() {
  std::unique_ptr<std::byte[]> bytes = std::move(current_.bytes);
  if (!has_thread_) {
    return producer_.produce(std::move(bytes));
  }
  DecodedPiece piece;
  {
    MutexLock lock(mutex_);
    if (bytes) spare_.push_back(std::move(bytes));
    while (ready_.empty()) lock.wait(changed_);
    piece = std::move(ready_.front());
    ready_.erase(ready_.begin());
  }
  changed_.notify_all();
  return piece;
}

Result<std::span<const std::byte>> AheadReader::make_more() {
  if (error_) return std::unexpected(*error_);
  if (current_.error) {
    error_ = std::move(current_.error);
    return std::unexpected(*error_);
  }
  if (current_.is_last) return std::span<const std::byte>();
  current_ = take_piece();
  Result<void> taken = check(current_);
  if (taken && plan_.needs_spool) taken = spool(current_);
  if (!taken) {
    error_ = std::move(taken.error());
    return std::unexpected(*error_);
  }
  if (current_.size == 0) return make_more();  // an error, or the end
  return std::span<const std::byte>(current_.bytes.get(), current_.size);
}

Result<void> AheadReader::check(const DecodedPiece& piece) {
  const std::span<const std::byte> bytes(piece.bytes.get(), piece.size);
  std::uint32_t chunk_crc32 = 0;  // a piece begins with a chunk
  std::uint64_t at = unpacked_;
  // Each byte is summed once: the sum of a stretch is appended to those of member and chunk.
  const auto append = [&](std::uint64_t end) {
    while (at < end) {
      const std::uint64_t chunk_left = ChunkCache::kChunkBytes - at % ChunkCache::kChunkBytes;
      const auto part = bytes.subspan(static_cast<std::size_t>(at - unpacked_),
                                      static_cast<std::size_t>(std::min(end - at, chunk_left)));
      const std::uint32_t sum = crc32_of(0, part);
      const auto length = static_cast<z_off_t>(part.size());
      chunk_crc32 = static_cast<std::uint32_t>(crc32_combine(chunk_crc32, sum, length));
      member_crc32_ = static_cast<std::uint32_t>(crc32_combine(member_crc32_, sum, length));
      at += part.size();
      if (part.size() < chunk_left) continue;
      chunk_crc32_.push_back(chunk_crc32);
      chunk_crc32 = 0;
    }
  };
  for (const Checksum& checksum : piece.checksums) {
    append(checksum.unpacked_end);
    const auto size = static_cast<std::uint32_t>(at - member_begin_);
    if (checksum.crc32 != member_crc32_ || checksum.size != size) {
      return fail(Errc::io,
                  fmt::format("{} is damaged before byte {}: the {} bytes that it unpacks to from "
                              "byte {} on have a wrong {}",
                              input_.packed->name(), checksum.packed_end, at - member_begin_,
                              member_begin_, checksum.size != size ? "length" : "checksum"));
    }
    member_begin_ = at;
    member_crc32_ = 0;
  }
  append(unpacked_ + piece.size);
  unpacked_ = at;
  if (at % ChunkCache::kChunkBytes != 0) chunk_crc32_.push_back(chunk_crc32);  // the last one
  if (!expected_) return {};
  if (unpacked_ > expected_->unpacked_bytes ||
      (piece.is_last && !piece.error &&
       (unpacked_ != expected_->unpacked_bytes || member_crc32_ != expected_->crc32))) {
    return fail(
        Errc::io,
        fmt::format("{} is damaged: what it unpacks to has a wrong {}", input_.packed->name(),
                    unpacked_ != expected_->unpacked_bytes ? "length" : "checksum"));
  }
  return {};
}

Result<void> AheadReader::spool(const DecodedPiece& piece) {
  if (piece.size == 0) return {};
  if (spool_) return spool_->append({piece.bytes.get(), piece.size});
  if (unpacked_ <= most_stretch_bytes(options_)) return {};
  return fail(
      Errc::unsupported,
      fmt::format("{} is {} that can only be read from its beginning on: it must be spooled, "
                  "and there is no spool",
                  input_.packed->name(), to_string(input_.compression)));
}

Result<std::shared_ptr<ByteSource>> AheadReader::finish() {
  while (true) {
    const auto more = next();
    if (!more) return propagate(more);
    if (more->empty()) break;
  }
  StreamIndex index;
  index.unpacked_bytes = unpacked_;
  chunk_crc32_.shrink_to_fit();
  index.chunk_crc32 = std::move(chunk_crc32_);
  index.compression = input_.compression;
  index.packed_bytes = input_.packed->size_bytes();
  DecoderInput input = input_;
  // What is short is decoded from its beginning again.
  if (spool_ && unpacked_ > most_stretch_bytes(options_)) {
    Result<PackedSpool::Frames> frames = spool_->finish();
    if (!frames) return propagate(frames);
    input.packed = std::move(frames->packed);
    input.compression = Compression::zstd;
    input.zstd_workspace = nullptr;
    index.entries = std::move(frames->entries);
    index.passing = {.spool_bytes = input.packed->size_bytes(), .window_bytes = 0};
  } else if (plan_.entries.empty()) {
    index.entries = producer_.take_entries();
  } else {
    index.entries = std::move(plan_.entries);
  }
  spool_.reset();
  if (input.zstd_workspace) {
    index.passing = {.spool_bytes = 0, .window_bytes = window_bytes_of(*input.zstd_workspace)};
  }
  return make_indexed_source(input, std::move(index), options_);
}

}  // namespace

std::uint64_t most_stretch_bytes(const StreamOptions& options) noexcept {
  constexpr std::uint64_t kSpans = 16;
  return options.span_bytes * kSpans;
}

std::uint64_t span_of_states(const DecoderInput& input, const StreamOptions& options) noexcept {
  if (input.zstd_workspace) return most_stretch_bytes(options);
  // A point of deflate stands where a block ends, which may be a megabyte later.
  return options.span_bytes - options.span_bytes / 4;
}

Result<std::unique_ptr<IndexingReader>> begin_pass(const DecoderInput& input,
                                                   const StreamOptions& options,
                                                   const std::optional<Expected>& expected) {
  DecoderInput own_input = input;
  Result<IndexPlan> plan = make_plan(own_input, options);
  if (!plan) return propagate(plan);
  auto reader = std::make_unique<AheadReader>(own_input, options, expected, std::move(*plan));
  const Result<void> begun = reader->begin();
  if (!begun) return propagate(begun);
  return reader;
}

}  // namespace mkvirtfs
