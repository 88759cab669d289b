// SPDX-License-Identifier: BSD-3-Clause
// The builder keeps points at a distance and their states compressed. When they take too much
// memory every second one is given up, and the distance doubles.
#include "fsgen/stream/stream_index.h"

#include <zstd.h>

#include <algorithm>
#include <cassert>
#include <iterator>
#include <new>
#include <utility>

namespace mkvirtfs {
namespace {

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

}  // namespace mkvirtfs
