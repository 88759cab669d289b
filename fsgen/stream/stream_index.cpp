// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/stream/stream_index.h"

#include <fmt/format.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <iterator>
#include <new>
#include <string_view>
#include <utility>

#include "support/arithmetic.h"
#include "support/byte_order.h"
#include "support/sha256.h"

namespace mkvirtfs {
namespace {

// docs/layout-stream-index.md
constexpr std::string_view kMagic = "MKVFSIDX";
constexpr std::uint32_t kVersion = 2;
constexpr std::size_t kHeaderBytes = 64;
// How its points come to be.
constexpr std::uint32_t kHere = 0;
constexpr std::uint32_t kByPass = 1;
constexpr std::size_t kEntryBytes = 24;
constexpr std::size_t kDigestBytes = 32;

// Points without state cost little.
constexpr std::uint64_t kFreeSpanBytes = std::uint64_t{256} << 10;

std::uint64_t cost_of(const StreamIndex::Entry& entry) noexcept {
  return sizeof entry +
         (entry.state ? sizeof(std::vector<std::byte>) + entry.state->capacity() : 0);
}

const StreamIndex::Entry& last_before(std::span<const StreamIndex::Entry> entries,
                                      std::uint64_t unpacked) noexcept {
  const auto after = std::ranges::upper_bound(
      entries, unpacked, {}, [](const StreamIndex::Entry& entry) { return entry.point.unpacked; });
  assert(after != entries.begin());
  return *std::prev(after);
}

std::size_t state_bytes(const StreamIndex::Entry& entry) noexcept {
  return entry.state ? entry.state->size() : 0;
}

}  // namespace

std::uint64_t StreamIndex::memory_bytes() const noexcept {
  std::uint64_t bytes = sizeof *this + chunk_crc32.capacity() * sizeof(std::uint32_t);
  for (const Entry& entry : entries) bytes += cost_of(entry);
  return bytes;
}

const StreamIndex::Entry& StreamIndex::entry_before(std::uint64_t unpacked) const noexcept {
  return last_before(entries, unpacked);
}

struct IndexBuilder::Compressor {
  explicit Compressor(std::size_t most_state_bytes)
      : context(ZSTD_createCCtx()), buffer(ZSTD_compressBound(most_state_bytes)) {
    if (context == nullptr) throw std::bad_alloc();
  }
  ~Compressor() { ZSTD_freeCCtx(context); }
  Compressor(const Compressor&) = delete;
  Compressor& operator=(const Compressor&) = delete;

  ZSTD_CCtx* const context;
  std::vector<std::byte> buffer;
};

IndexBuilder::IndexBuilder(std::uint64_t span_bytes, std::uint64_t most_memory_bytes,
                           std::size_t most_state_bytes)
    : most_memory_bytes_(most_memory_bytes),
      span_bytes_(std::max<std::uint64_t>(span_bytes, 1)),
      free_span_bytes_(std::min(span_bytes_, kFreeSpanBytes)),
      compressor_(std::make_unique<Compressor>(most_state_bytes)) {}
IndexBuilder::~IndexBuilder() = default;

void IndexBuilder::add(const Point& point, std::span<const std::byte> state) {
  assert(ZSTD_compressBound(state.size()) <= compressor_->buffer.size());
  const std::uint64_t span = state.empty() ? free_span_bytes_ : span_bytes_;
  if (has_first_ && point.unpacked < last_ + span) return;
  has_first_ = true;
  StreamIndex::Entry entry{point, nullptr};
  if (!state.empty()) {
    constexpr int kLevel = 1;
    const std::size_t size =
        ZSTD_compressCCtx(compressor_->context, compressor_->buffer.data(),
                          compressor_->buffer.size(), state.data(), state.size(), kLevel);
    if (ZSTD_isError(size) != 0) throw std::bad_alloc();  // there is room for any outcome
    entry.state = std::make_shared<const std::vector<std::byte>>(
        compressor_->buffer.begin(),
        compressor_->buffer.begin() + static_cast<std::ptrdiff_t>(size));
  }
  last_ = last_state_ = point.unpacked;
  const MutexLock lock(mutex_);
  memory_bytes_ += cost_of(entry);
  entries_.push_back(std::move(entry));
  while (memory_bytes_ > most_memory_bytes_ && entries_.size() > 2) thin_out();
}

void IndexBuilder::thin_out() {
  std::size_t kept = 0;
  memory_bytes_ = 0;
  for (std::size_t i = 0; i < entries_.size(); i += 2) {
    memory_bytes_ += cost_of(entries_[i]);
    if (kept != i) entries_[kept] = std::move(entries_[i]);
    ++kept;
  }
  entries_.resize(kept);
  last_ = last_state_ = entries_.back().point.unpacked;
  span_bytes_ *= 2;
  free_span_bytes_ *= 2;
}

std::vector<StreamIndex::Entry> IndexBuilder::take_entries() {
  const MutexLock lock(mutex_);
  entries_.shrink_to_fit();
  return std::move(entries_);
}

StreamIndex::Entry IndexBuilder::entry_before(std::uint64_t unpacked) const {
  const MutexLock lock(mutex_);
  return last_before(entries_, unpacked);
}

std::uint64_t IndexBuilder::count() const {
  const MutexLock lock(mutex_);
  return entries_.size();
}

std::uint64_t IndexBuilder::memory_bytes() const {
  const MutexLock lock(mutex_);
  return memory_bytes_;
}

Result<std::vector<std::byte>> unpack_state(std::span<const std::byte> state,
                                            std::size_t most_bytes) {
  std::vector<std::byte> bytes(most_bytes);
  const std::size_t size = ZSTD_decompress(bytes.data(), bytes.size(), state.data(), state.size());
  if (ZSTD_isError(size) != 0) return fail(Errc::io, "a broken index");
  bytes.resize(size);
  return bytes;
}

std::vector<std::byte> to_bytes(const StreamIndex& index) {
  // Of points that are made again only the first is kept, which is where the stream begins.
  const StreamIndex::Entry beginning;
  const auto entries = index.passing ? std::span(&beginning, 1) : std::span(index.entries);
  std::uint64_t states_bytes = 0;
  for (const StreamIndex::Entry& entry : entries) states_bytes += state_bytes(entry);
  std::vector<std::byte> bytes(kHeaderBytes + entries.size() * kEntryBytes);
  bytes.reserve(bytes.size() + static_cast<std::size_t>(states_bytes) +
                index.chunk_crc32.size() * sizeof(std::uint32_t) + kDigestBytes);
  std::ranges::copy(std::as_bytes(std::span(kMagic)), bytes.begin());
  store_le<std::uint32_t>(bytes, 8, kVersion);
  store_le<std::uint32_t>(bytes, 12, static_cast<std::uint32_t>(index.compression));
  store_le<std::uint64_t>(bytes, 16, index.packed_bytes);
  store_le<std::uint64_t>(bytes, 24, index.unpacked_bytes);
  store_le<std::uint64_t>(bytes, 32, entries.size());
  store_le<std::uint32_t>(bytes, 40, ChunkCache::kChunkBytes);
  store_le<std::uint32_t>(bytes, 44, index.passing ? kByPass : kHere);
  const StreamIndex::Passing passing = index.passing.value_or(StreamIndex::Passing{});
  store_le<std::uint64_t>(bytes, 48, passing.spool_bytes);
  store_le<std::uint64_t>(bytes, 56, passing.window_bytes);
  std::size_t at = kHeaderBytes;
  for (const StreamIndex::Entry& entry : entries) {
    store_le<std::uint64_t>(bytes, at, entry.point.unpacked);
    store_le<std::uint64_t>(bytes, at + 8, entry.point.packed);
    store_le<std::uint32_t>(bytes, at + 16, narrow<std::uint32_t>(state_bytes(entry)));
    store_le<std::uint16_t>(bytes, at + 20, entry.point.bits);
    store_le<std::uint16_t>(bytes, at + 22, entry.point.kind);
    at += kEntryBytes;
  }
  for (const StreamIndex::Entry& entry : entries) {
    if (entry.state) bytes.insert(bytes.end(), entry.state->begin(), entry.state->end());
  }
  for (const std::uint32_t crc : index.chunk_crc32) {
    std::array<std::byte, sizeof crc> word;
    store_le<std::uint32_t>(word, 0, crc);
    bytes.insert(bytes.end(), word.begin(), word.end());
  }
  Sha256 sha;
  sha.update(bytes);
  const auto digest = sha.finish();
  bytes.insert(bytes.end(), digest.begin(), digest.end());
  return bytes;
}

Result<StreamIndex> parse_index(std::span<const std::byte> bytes, std::uint64_t packed_bytes,
                                const std::string& name) {
  const auto refuse = [&](std::string_view why) {
    return fail(Errc::unreadable, fmt::format("the index of {} cannot be used: {}", name, why));
  };
  if (bytes.size() < kHeaderBytes + kDigestBytes) return refuse("it is too short");
  if (!std::ranges::equal(bytes.first(kMagic.size()), std::as_bytes(std::span(kMagic)))) {
    return refuse("it is none");
  }
  if (load_le<std::uint32_t>(bytes, 8) != kVersion) return refuse("it is of another version");
  const auto digest = bytes.last(kDigestBytes);
  bytes = bytes.first(bytes.size() - kDigestBytes);
  Sha256 sha;
  sha.update(bytes);
  if (!std::ranges::equal(sha.finish(), digest)) return refuse("its checksum is wrong");

  // Whoever can write a checksum could have written anything before it.
  StreamIndex index;
  const auto compression = load_le<std::uint32_t>(bytes, 12);
  index.packed_bytes = load_le<std::uint64_t>(bytes, 16);
  index.unpacked_bytes = load_le<std::uint64_t>(bytes, 24);
  const auto count = load_le<std::uint64_t>(bytes, 32);
  const auto points = load_le<std::uint32_t>(bytes, 44);
  const StreamIndex::Passing passing{load_le<std::uint64_t>(bytes, 48),
                                     load_le<std::uint64_t>(bytes, 56)};
  if (compression > static_cast<std::uint32_t>(Compression::deflate) ||
      load_le<std::uint32_t>(bytes, 40) != ChunkCache::kChunkBytes || points > kByPass) {
    return refuse("it is of another kind");
  }
  // A pass makes a spool or states of zstd, not both and not neither.
  const bool makes_states = passing.window_bytes != 0;
  const bool makes_spool = passing.spool_bytes != 0;
  if (points == kByPass ? makes_states == makes_spool || count != 1 : makes_states || makes_spool) {
    return refuse("how its points are made is wrong");
  }
  if (makes_states && (passing.window_bytes > kMostZstdWindowBytes ||
                       compression != static_cast<std::uint32_t>(Compression::zstd))) {
    return refuse("its window is wrong");
  }
  if (points == kByPass) index.passing = passing;
  if (index.packed_bytes != packed_bytes) return refuse("the file has another size now");
  index.compression = static_cast<Compression>(compression);
  const std::uint64_t crc_count =
      ceil_div<std::uint64_t>(index.unpacked_bytes, ChunkCache::kChunkBytes);
  std::uint64_t left = bytes.size() - kHeaderBytes;
  if (count == 0 || count > left / kEntryBytes) return refuse("its number of points is wrong");
  left -= count * kEntryBytes;
  if (crc_count > left / sizeof(std::uint32_t)) return refuse("checksums are missing");
  left -= crc_count * sizeof(std::uint32_t);

  index.entries.reserve(static_cast<std::size_t>(count));
  std::size_t at = kHeaderBytes;
  std::size_t state_at = kHeaderBytes + static_cast<std::size_t>(count) * kEntryBytes;
  for (std::uint64_t i = 0; i < count; ++i, at += kEntryBytes) {
    Point point;
    point.unpacked = load_le<std::uint64_t>(bytes, at);
    point.packed = load_le<std::uint64_t>(bytes, at + 8);
    const auto state_bytes = load_le<std::uint32_t>(bytes, at + 16);
    const auto bits = load_le<std::uint16_t>(bytes, at + 20);
    const auto kind = load_le<std::uint16_t>(bytes, at + 22);
    const bool follows =
        i == 0 ? point.unpacked == 0 : point.unpacked > index.entries.back().point.unpacked;
    if (!follows || point.unpacked > index.unpacked_bytes || point.packed > packed_bytes ||
        bits > 7 || (bits != 0 && point.packed == 0) || kind > 0xff || state_bytes > left ||
        (state_bytes != 0 && index.passing)) {
      return refuse(fmt::format("point {} is wrong", i));
    }
    point.bits = static_cast<std::uint8_t>(bits);
    point.kind = static_cast<std::uint8_t>(kind);
    const auto state = bytes.subspan(state_at, state_bytes);
    index.entries.push_back({point, nullptr});
    if (!state.empty()) {
      index.entries.back().state =
          std::make_shared<const std::vector<std::byte>>(state.begin(), state.end());
    }
    state_at += state_bytes;
    left -= state_bytes;
  }
  if (left != 0) return refuse("it is longer than its parts");
  index.chunk_crc32.reserve(static_cast<std::size_t>(crc_count));
  for (std::uint64_t i = 0; i < crc_count; ++i, state_at += sizeof(std::uint32_t)) {
    index.chunk_crc32.push_back(load_le<std::uint32_t>(bytes, state_at));
  }
  return index;
}

}  // namespace mkvirtfs
