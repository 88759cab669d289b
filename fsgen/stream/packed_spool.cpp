// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/stream/packed_spool.h"

#include <zstd.h>

#include <new>
#include <utility>

namespace mkvirtfs {

struct PackedSpool::Compressor {
  Compressor() : context(ZSTD_createCCtx()), buffer(ZSTD_compressBound(kFrameBytes)) {
    if (context == nullptr) throw std::bad_alloc();
  }
  ~Compressor() { ZSTD_freeCCtx(context); }
  Compressor(const Compressor&) = delete;
  Compressor& operator=(const Compressor&) = delete;

  ZSTD_CCtx* const context;
  std::vector<std::byte> buffer;
};

PackedSpool::PackedSpool(std::shared_ptr<SpoolSpace> space, std::string name,
                         std::uint64_t index_memory_bytes)
    : writer_(std::move(space), std::move(name)),
      builder_(kFrameBytes, index_memory_bytes, 0),
      compressor_(std::make_unique<Compressor>()) {}
PackedSpool::~PackedSpool() = default;

Result<void> PackedSpool::append(std::span<const std::byte> bytes) {
  // Half as much time again goes into level 1, for a tenth of the size.
  constexpr int kLevel = -3;
  const std::size_t size =
      ZSTD_compressCCtx(compressor_->context, compressor_->buffer.data(),
                        compressor_->buffer.size(), bytes.data(), bytes.size(), kLevel);
  if (ZSTD_isError(size) != 0) throw std::bad_alloc();  // there is room for any outcome
  const Point begin{.unpacked = unpacked_, .packed = writer_.size_bytes(), .bits = 0, .kind = 0};
  if (Result<void> written = writer_.append(std::span(compressor_->buffer).first(size)); !written) {
    return written;
  }
  builder_.add(begin, {});
  unpacked_ += bytes.size();
  return {};
}

Result<PackedSpool::Frames> PackedSpool::finish() {
  auto packed = writer_.finish();
  if (!packed) return propagate(packed);
  return Frames{std::move(*packed), builder_.take_entries()};
}

}  // namespace mkvirtfs
