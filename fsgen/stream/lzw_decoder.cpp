// SPDX-License-Identifier: BSD-3-Clause
// compress(1)'s .Z: LZW with codes of 9 bits and more, from its beginning. The format says neither
// where it ends nor a checksum: what is cut off, or was changed into other codes, is not noticed.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "fsgen/stream/decoder.h"

namespace mkvirtfs {
namespace {

constexpr std::size_t kPieceBytes = std::size_t{64} << 10;

constexpr unsigned kLeastBits = 9;
constexpr unsigned kMostBits = 16;
constexpr unsigned kFlagClears = 0x80;
constexpr unsigned kFlagsUnknown = 0x60;
constexpr unsigned kFlagsBits = 0x1f;
// With kFlagClears: empties the table, and takes a place in it.
constexpr unsigned kClearCode = 256;
constexpr std::size_t kMostCodes = std::size_t{1} << kMostBits;

class LzwDecoder final : public Decoder {
 public:
  explicit LzwDecoder(const DecoderInput& input) : input_(input.packed, 0, kPieceBytes) {}

  std::uint64_t packed_position() const noexcept override { return input_.position(); }
  std::uint64_t memory_bytes() const noexcept override {
    return sizeof *this + input_.piece_bytes();
  }

 protected:
  Result<void> decode_more(std::span<std::byte> out, std::size_t& done) override;

 private:
  Result<void> read_header();
  /// nullopt at the end.
  Result<std::optional<unsigned>> next_code();
  /// Puts what the code stands for on the stack.
  Result<void> expand(unsigned code);
  void empty_table();
  void set_width(unsigned bits) {
    width_ = bits;
    group_bits_ = 0;  // what is left of the group was never meant
  }

  PackedInput input_;
  bool has_header_ = false;
  bool ended_ = false;
  unsigned most_bits_ = kMostBits;
  bool clears_ = false;

  // Codes come in groups of eight, which have as many bytes as a code has bits; whenever the width
  // changes, another group begins.
  unsigned width_ = kLeastBits;
  std::array<std::byte, kMostBits> group_{};
  unsigned group_bits_ = 0;  // that it has; the last one may have fewer
  unsigned group_at_ = 0;    // of which so many were taken

  // A code is the bytes of another, and one more. Those below 256 are that byte.
  std::array<std::uint16_t, kMostCodes> prefix_{};
  std::array<std::byte, kMostCodes> suffix_{};
  unsigned next_free_ = 0;
  std::optional<unsigned> before_;             // the code that came last
  std::byte first_byte_{};                     // of what that stood for
  std::array<std::byte, kMostCodes> stack_{};  // the last byte first
  std::size_t stacked_ = 0;
};

Result<void> LzwDecoder::read_header() {
  constexpr std::size_t kHeaderBytes = 3;
  const auto header = input_.take(kHeaderBytes);
  if (!header) return propagate(header);
  if (!*header) return input_.damaged("it ends in its header");
  const auto flags = std::to_integer<unsigned>((**header)[2]);
  if ((**header)[0] != std::byte{0x1f} || (**header)[1] != std::byte{0x9d}) {
    return input_.damaged("no header of compress");
  }
  most_bits_ = flags & kFlagsBits;
  if ((flags & kFlagsUnknown) != 0 || most_bits_ < kLeastBits || most_bits_ > kMostBits) {
    return input_.damaged("a header of compress of an unknown kind");
  }
  clears_ = (flags & kFlagClears) != 0;
  for (unsigned byte = 0; byte < 256; ++byte) suffix_[byte] = static_cast<std::byte>(byte);
  next_free_ = clears_ ? kClearCode + 1 : 256;
  has_header_ = true;
  return {};
}

Result<std::optional<unsigned>> LzwDecoder::next_code() {
  if (next_free_ > (1U << width_) - 1 && width_ < most_bits_) set_width(width_ + 1);
  if (group_bits_ - group_at_ < width_ || group_bits_ == 0) {
    group_at_ = 0;
    group_bits_ = 0;
    for (unsigned i = 0; i < width_; ++i) {
      const auto byte = input_.take_byte();
      if (!byte) return propagate(byte);
      if (!*byte) break;
      group_[i] = **byte;
      group_bits_ += 8;
    }
    if (group_bits_ < width_) return std::nullopt;
  }
  unsigned bits = 0;  // the low ones first
  const unsigned first = group_at_ / 8;
  const unsigned last = (group_at_ + width_ - 1) / 8;
  for (unsigned i = last + 1; i-- > first;) bits = bits << 8 | std::to_integer<unsigned>(group_[i]);
  bits = bits >> group_at_ % 8 & ((1U << width_) - 1);
  group_at_ += width_;
  return bits;
}

void LzwDecoder::empty_table() {
  // As compress does, which lets the next code make an entry where the code to clear stands, that
  // nothing refers to.
  next_free_ = kClearCode;
  set_width(kLeastBits);
}

Result<void> LzwDecoder::expand(unsigned code) {
  unsigned at = code;
  if (!before_) {
    if (code >= 256) return input_.damaged("its first code is none");
  } else if (code >= next_free_) {
    // The entry that it makes itself: what the code before stood for, and the first byte of that.
    if (code > next_free_) return input_.damaged("a code that is not known yet");
    stack_[stacked_++] = first_byte_;
    at = *before_;
  }
  // Entries refer to what was there before them alone, so that this ends.
  while (at >= 256) {
    stack_[stacked_++] = suffix_[at];
    at = prefix_[at];
  }
  first_byte_ = static_cast<std::byte>(at);
  stack_[stacked_++] = first_byte_;
  if (before_ && next_free_ < 1U << most_bits_) {
    prefix_[next_free_] = static_cast<std::uint16_t>(*before_);
    suffix_[next_free_] = first_byte_;
    ++next_free_;
  }
  before_ = code;
  return {};
}

Result<void> LzwDecoder::decode_more(std::span<std::byte> out, std::size_t& done) {
  if (!has_header_) {
    if (const Result<void> header = read_header(); !header) return header;
  }
  while (done < out.size() && !ended_) {
    while (stacked_ > 0 && done < out.size()) out[done++] = stack_[--stacked_];
    if (stacked_ > 0) break;
    const Result<std::optional<unsigned>> code = next_code();
    if (!code) return propagate(code);
    if (!*code) {
      ended_ = true;
    } else if (clears_ && **code == kClearCode) {
      empty_table();
    } else if (Result<void> expanded = expand(**code); !expanded) {
      return expanded;
    }
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<Decoder>> make_lzw_decoder(const DecoderInput& input) {
  return std::make_unique<LzwDecoder>(input);
}

}  // namespace mkvirtfs
