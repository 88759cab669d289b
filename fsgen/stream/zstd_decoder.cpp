// SPDX-License-Identifier: BSD-3-Clause
// Zstandard (RFC 8878), by libzstd. Points are the beginnings of frames.
#include <fmt/format.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <new>
#include <utility>

#include "fsgen/stream/decoder.h"
#include "support/byte_order.h"
#include "support/text.h"

namespace mkvirtfs {
namespace {

constexpr std::size_t kForwardPieceBytes = std::size_t{256} << 10;
constexpr std::size_t kPieceBytes = std::size_t{64} << 10;

class ZstdDecoder final : public Decoder {
 public:
  ZstdDecoder(const DecoderInput& input, const Point& point, StreamObserver* observer)
      : input_(input.packed, point.packed, observer != nullptr ? kForwardPieceBytes : kPieceBytes),
        observer_(observer),
        zstd_(ZSTD_createDCtx()),
        memory_limit_bytes_(input.memory_limit_bytes),
        unpacked_(point.unpacked) {
    if (zstd_ == nullptr) throw std::bad_alloc();
    const ZSTD_bounds bounds = ZSTD_dParam_getBounds(ZSTD_d_windowLogMax);
    const int largest_log = static_cast<int>(std::bit_width(input.memory_limit_bytes)) - 1;
    ZSTD_DCtx_setParameter(zstd_, ZSTD_d_windowLogMax,
                           std::clamp(largest_log, bounds.lowerBound, bounds.upperBound));
  }
  ~ZstdDecoder() override { ZSTD_freeDCtx(zstd_); }
  ZstdDecoder(const ZstdDecoder&) = delete;
  ZstdDecoder& operator=(const ZstdDecoder&) = delete;

  std::uint64_t packed_position() const noexcept override { return input_.position(); }
  std::uint64_t memory_bytes() const noexcept override {
    return ZSTD_sizeof_DCtx(zstd_) + input_.piece_bytes();
  }

 protected:
  Result<void> decode_more(std::span<std::byte> out, std::size_t& done) override;

 private:
  PackedInput input_;
  StreamObserver* const observer_;
  ZSTD_DCtx* const zstd_;
  const std::uint64_t memory_limit_bytes_;
  std::uint64_t unpacked_;
  bool inside_frame_ = false;
};

Result<void> ZstdDecoder::decode_more(std::span<std::byte> out, std::size_t& done) {
  ZSTD_outBuffer to{out.data(), out.size(), 0};
  while (to.pos < to.size) {
    const auto there = input_.peek();
    if (!there) return std::unexpected(there.error());
    if (there->empty() && !inside_frame_) break;
    if (!inside_frame_ && observer_ != nullptr) {
      const Result<void> told = observer_->point(
          {.unpacked = unpacked_, .packed = input_.position(), .bits = 0, .kind = 0}, {});
      if (!told) return std::unexpected(told.error());
    }
    ZSTD_inBuffer from{there->data(), there->size(), 0};
    const std::size_t before = to.pos;
    const std::size_t status = ZSTD_decompressStream(zstd_, &to, &from);
    input_.consume(from.pos);
    unpacked_ += to.pos - before;
    done = to.pos;
    if (ZSTD_isError(status) != 0) {
      return input_.damaged(fmt::format("{} (its window may take {})", ZSTD_getErrorName(status),
                                        human_size(memory_limit_bytes_)));
    }
    inside_frame_ = status != 0;
    if (there->empty() && inside_frame_ && to.pos == before) {
      return input_.damaged("it ends in the middle of a frame");
    }
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<Decoder>> make_zstd_decoder(const DecoderInput& input, const Point& point,
                                                   StreamObserver* observer) {
  return std::make_unique<ZstdDecoder>(input, point, observer);
}

Result<bool> has_zstd_frame_above(ByteSource& packed, std::uint64_t most_packed_bytes,
                                  std::uint64_t most_unpacked_bytes) {
  // RFC 8878, 3.1.1: only the headers of frames and blocks are looked at. Whatever is not as it
  // should be is said by who decodes it.
  constexpr std::uint32_t kFrameMagic = 0xfd2fb528;
  constexpr std::uint32_t kSkippableMagic = 0x184d2a50;
  const std::uint64_t size_bytes = packed.size_bytes();
  std::uint64_t at = 0;
  while (at < size_bytes) {
    std::array<std::byte, 18> header{};
    const auto count =
        static_cast<std::size_t>(std::min<std::uint64_t>(header.size(), size_bytes - at));
    if (const Result<void> read = packed.read(at, std::span(header).first(count)); !read) {
      return std::unexpected(read.error());
    }
    const auto magic = load_le<std::uint32_t>(header);
    if ((magic & 0xfffffff0U) == kSkippableMagic) {
      at += 8 + std::uint64_t{load_le<std::uint32_t>(header, 4)};
      continue;
    }
    if (magic != kFrameMagic) return false;
    const unsigned long long content = ZSTD_getFrameContentSize(header.data(), count);
    if (content == ZSTD_CONTENTSIZE_ERROR) return false;
    if (content != ZSTD_CONTENTSIZE_UNKNOWN && content > most_unpacked_bytes) return true;
    const auto descriptor = std::to_integer<unsigned>(header[4]);
    const bool is_single_segment = (descriptor & 0x20) != 0;
    constexpr std::array<std::uint64_t, 4> kDictionaryIdBytes = {0, 1, 2, 4};
    constexpr std::array<std::uint64_t, 4> kContentSizeBytes = {0, 2, 4, 8};
    const std::uint64_t frame_at = at;
    at += 5 + (is_single_segment ? 0 : 1) + kDictionaryIdBytes[descriptor & 3] +
          (is_single_segment && descriptor >> 6 == 0 ? 1 : kContentSizeBytes[descriptor >> 6]);
    for (bool is_last = false; !is_last;) {
      std::array<std::byte, 4> block{};
      if (at >= size_bytes || size_bytes - at < 3) return false;
      if (const Result<void> read = packed.read(at, std::span(block).first(3)); !read) {
        return std::unexpected(read.error());
      }
      const auto word = load_le<std::uint32_t>(block);
      constexpr std::uint32_t kRunLengthBlock = 1;
      is_last = (word & 1) != 0;
      at += 3 + std::uint64_t{(word >> 1 & 3) == kRunLengthBlock ? 1 : word >> 3};
      if (at - frame_at > most_packed_bytes) return true;
    }
    if ((descriptor & 4) != 0) at += 4;
  }
  return false;
}

}  // namespace mkvirtfs
