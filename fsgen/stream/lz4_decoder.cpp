// SPDX-License-Identifier: BSD-3-Clause
// LZ4's frame format and its legacy one (lz4_Frame_format.md, "Legacy frame"), from the beginning,
// by liblz4.
#include <fmt/format.h>
#include <lz4.h>
#include <lz4frame.h>

#include <algorithm>
#include <array>
#include <new>
#include <utility>
#include <vector>

#include "fsgen/stream/decoder.h"
#include "support/byte_order.h"

namespace mkvirtfs {
namespace {

constexpr std::size_t kPieceBytes = std::size_t{64} << 10;

constexpr std::uint32_t kFrameMagic = 0x184d2204;
constexpr std::uint32_t kSkippableMagic = 0x184d2a50;
constexpr std::uint32_t kSkippableMask = 0xfffffff0;
constexpr std::uint32_t kLegacyMagic = 0x184c2102;
constexpr std::size_t kWordBytes = 4;
// A legacy block unpacks to so much, or to less where it is the last one.
constexpr std::size_t kLegacyBlockBytes = std::size_t{8} << 20;

bool is_magic(std::uint32_t word) {
  return word == kFrameMagic || word == kLegacyMagic || (word & kSkippableMask) == kSkippableMagic;
}

class Lz4Decoder final : public Decoder {
 public:
  explicit Lz4Decoder(const DecoderInput& input) : input_(input.packed, 0, kPieceBytes) {
    if (LZ4F_isError(LZ4F_createDecompressionContext(&lz4_, LZ4F_VERSION)) != 0) {
      throw std::bad_alloc();
    }
  }
  ~Lz4Decoder() override { LZ4F_freeDecompressionContext(lz4_); }
  Lz4Decoder(const Lz4Decoder&) = delete;
  Lz4Decoder& operator=(const Lz4Decoder&) = delete;

  std::uint64_t packed_position() const noexcept override { return input_.position(); }
  std::uint64_t memory_bytes() const noexcept override {
    // Blocks have up to 4 MiB, and are kept packed and unpacked.
    return (std::uint64_t{8} << 20) + legacy_block_.capacity();
  }

 protected:
  Result<void> decode_more(std::span<std::byte> out, std::size_t& done) override;

 private:
  enum class State : std::uint8_t { between_frames, frame, legacy, ended };

  Result<void> begin_frame();
  Result<void> decode_frame(std::span<std::byte> out, std::size_t& done);
  /// Unpacks the next block, or leaves the frame.
  Result<void> read_legacy_block();

  PackedInput input_;
  LZ4F_dctx* lz4_ = nullptr;
  State state_ = State::between_frames;
  bool any_frame_ = false;
  std::vector<std::byte> legacy_block_;  // unpacked,
  std::size_t legacy_at_ = 0;            // of which so much was given away
};

Result<void> Lz4Decoder::decode_more(std::span<std::byte> out, std::size_t& done) {
  while (done < out.size() && state_ != State::ended) {
    Result<void> step;
    if (legacy_at_ < legacy_block_.size()) {
      const std::size_t count = std::min(legacy_block_.size() - legacy_at_, out.size() - done);
      std::copy_n(legacy_block_.begin() + static_cast<std::ptrdiff_t>(legacy_at_), count,
                  out.begin() + static_cast<std::ptrdiff_t>(done));
      legacy_at_ += count;
      done += count;
    } else if (state_ == State::between_frames) {
      step = begin_frame();
    } else if (state_ == State::legacy) {
      step = read_legacy_block();
    } else {
      step = decode_frame(out.subspan(done), done);
    }
    if (!step) return step;
  }
  return {};
}

Result<void> Lz4Decoder::begin_frame() {
  std::array<std::byte, kWordBytes> word{};
  const Result<std::size_t> count = input_.look(word);
  if (!count) return propagate(count);
  const auto magic = load_le<std::uint32_t>(word);
  if (*count == word.size() && is_magic(magic)) {
    any_frame_ = true;
    state_ = magic == kLegacyMagic ? State::legacy : State::frame;
    if (state_ == State::frame) return {};
    if (const auto taken = input_.take(word.size()); !taken) return propagate(taken);
    return {};
  }
  // The beginning of a magic number is a frame that is cut off; anything else is left alone.
  const auto begins = [&](std::uint32_t whole) {
    if (*count == word.size()) return false;
    const std::uint32_t known = (1U << (8 * *count)) - 1;
    return ((magic ^ whole) & known) == 0;
  };
  if (!any_frame_) return input_.damaged("no lz4 header");
  if (*count != 0 && (begins(kFrameMagic) || begins(kLegacyMagic))) {
    return input_.damaged("it ends in the middle of a frame");
  }
  state_ = State::ended;
  return {};
}

Result<void> Lz4Decoder::decode_frame(std::span<std::byte> out, std::size_t& done) {
  const auto there = input_.peek();
  if (!there) return propagate(there);
  std::size_t used = there->size();
  std::size_t count = out.size();
  const std::size_t status =
      LZ4F_decompress(lz4_, out.data(), &count, there->data(), &used, nullptr);
  input_.consume(used);
  done += count;
  if (LZ4F_isError(status) != 0) return input_.damaged(LZ4F_getErrorName(status));
  if (status == 0) {
    state_ = State::between_frames;
  } else if (there->empty() && count == 0) {
    return input_.damaged("it ends in the middle of a frame");
  }
  return {};
}

Result<void> Lz4Decoder::read_legacy_block() {
  std::array<std::byte, kWordBytes> word{};
  const Result<std::size_t> count = input_.look(word);
  if (!count) return propagate(count);
  const auto packed_bytes = load_le<std::uint32_t>(word);
  const bool is_none = packed_bytes == 0 || packed_bytes > LZ4_COMPRESSBOUND(kLegacyBlockBytes);
  if (*count < word.size() || is_none) {
    // Nothing else says where it ends. What is no block is the next frame, padding, or other bytes.
    if (*count != 0 && *count < word.size() && packed_bytes != 0) {
      return input_.damaged("it ends in the middle of a frame");
    }
    state_ = *count == word.size() && is_magic(packed_bytes) ? State::between_frames : State::ended;
    return {};
  }
  if (const auto taken = input_.take(word.size()); !taken) return propagate(taken);
  const auto packed = input_.take(packed_bytes);
  if (!packed) return propagate(packed);
  if (!*packed) return input_.damaged("it ends in the middle of a frame");
  legacy_block_.resize(kLegacyBlockBytes);
  const int size =
      LZ4_decompress_safe(reinterpret_cast<const char*>((*packed)->data()),
                          reinterpret_cast<char*>(legacy_block_.data()),
                          static_cast<int>(packed_bytes), static_cast<int>(legacy_block_.size()));
  if (size < 0) return input_.damaged("this is no compressed data");
  legacy_block_.resize(static_cast<std::size_t>(size));
  legacy_at_ = 0;
  return {};
}

}  // namespace

Result<std::unique_ptr<Decoder>> make_lz4_decoder(const DecoderInput& input) {
  return std::make_unique<Lz4Decoder>(input);
}

}  // namespace mkvirtfs
