// SPDX-License-Identifier: BSD-3-Clause
// LZ4's frame format, from its beginning, by liblz4.
#include <fmt/format.h>
#include <lz4frame.h>

#include <new>
#include <utility>

#include "fsgen/stream/decoder.h"

namespace mkvirtfs {
namespace {

constexpr std::size_t kPieceBytes = std::size_t{64} << 10;

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
    return std::uint64_t{8} << 20;
  }

 protected:
  Result<void> decode_more(std::span<std::byte> out, std::size_t& done) override;

 private:
  PackedInput input_;
  LZ4F_dctx* lz4_ = nullptr;
  bool inside_frame_ = false;
};

Result<void> Lz4Decoder::decode_more(std::span<std::byte> out, std::size_t& done) {
  while (done < out.size()) {
    const auto there = input_.peek();
    if (!there) return std::unexpected(there.error());
    if (there->empty() && !inside_frame_) break;
    std::size_t used = there->size();
    std::size_t count = out.size() - done;
    const std::size_t status =
        LZ4F_decompress(lz4_, out.data() + done, &count, there->data(), &used, nullptr);
    input_.consume(used);
    done += count;
    if (LZ4F_isError(status) != 0) return input_.damaged(LZ4F_getErrorName(status));
    inside_frame_ = status != 0;
    if (there->empty() && inside_frame_ && count == 0) {
      return input_.damaged("it ends in the middle of a frame");
    }
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<Decoder>> make_lz4_decoder(const DecoderInput& input) {
  return std::make_unique<Lz4Decoder>(input);
}

}  // namespace mkvirtfs
