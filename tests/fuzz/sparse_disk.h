// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>

#include "fsgen/stream/byte_source.h"
#include "fuzz_require.h"
#include "support/byte_order.h"

namespace mkvirtfs::fuzz {

/// A disk that is zeroes but for a few pieces of 1 KiB, so that an image of some MiB is a small
/// input: u16 KiB of disk; u16 number of pieces; for each u16, which KiB it is; then the bytes of
/// all pieces, the last of which may be short. tests/fuzz/make_disk_seed.py makes one of an image.
class SparseDisk final : public ByteSource {
 public:
  static constexpr std::size_t kPieceBytes = 1024;

  explicit SparseDisk(std::span<const std::byte> input) {
    const auto number = [&] {
      if (input.size() < 2) return std::uint16_t{0};
      const auto value = load_le<std::uint16_t>(input);
      input = input.subspan(2);
      return value;
    };
    size_bytes_ = std::uint64_t{number()} * kPieceBytes;
    const std::size_t count = std::min<std::size_t>(number(), input.size() / 2);
    auto bytes = input.subspan(2 * count);
    for (std::size_t i = 0; i < count; ++i) {
      const auto piece = bytes.first(std::min(bytes.size(), kPieceBytes));
      bytes = bytes.subspan(piece.size());
      pieces_[number()] = piece;
    }
  }

  std::uint64_t size_bytes() const noexcept override { return size_bytes_; }
  Result<void> read(std::uint64_t offset, std::span<std::byte> out) override {
    FUZZ_REQUIRE(offset <= size_bytes_ && out.size() <= size_bytes_ - offset);
    std::ranges::fill(out, std::byte{0});
    for (std::size_t done = 0; done < out.size();) {
      const std::uint64_t at = offset + done;
      const std::size_t skipped = at % kPieceBytes;
      const std::size_t length = std::min(kPieceBytes - skipped, out.size() - done);
      const auto piece = pieces_.find(at / kPieceBytes);
      if (piece != pieces_.end() && piece->second.size() > skipped) {
        const auto from = piece->second.subspan(skipped);
        std::ranges::copy(from.first(std::min(from.size(), length)), out.subspan(done).begin());
      }
      done += length;
    }
    return {};
  }
  std::string name() const override { return "disk"; }

 private:
  std::uint64_t size_bytes_ = 0;
  std::map<std::uint64_t, std::span<const std::byte>> pieces_;  // of the input
};

}  // namespace mkvirtfs::fuzz
