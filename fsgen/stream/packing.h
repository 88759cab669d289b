// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "support/byte_order.h"

namespace mkvirtfs {

/// Appends numbers and texts to a buffer: seven bits a byte, the lowest first, the eighth says that
/// more follow (as DWARF's LEB128).
class Packer {
 public:
  explicit Packer(std::vector<std::byte>& out) : out_(out) {}

  void number(std::uint64_t value) {
    while (value >= 0x80) {
      out_.push_back(static_cast<std::byte>(value | 0x80));
      value >>= 7;
    }
    out_.push_back(static_cast<std::byte>(value));
  }
  /// Small magnitudes of either sign are short.
  void signed_number(std::int64_t value) {
    number((static_cast<std::uint64_t>(value) << 1) ^ static_cast<std::uint64_t>(value >> 63));
  }
  void text(std::string_view bytes) {
    number(bytes.size());
    const auto* first = reinterpret_cast<const std::byte*>(bytes.data());
    out_.insert(out_.end(), first, first + bytes.size());
  }

 private:
  std::vector<std::byte>& out_;
};

/// Takes apart what a Packer made, or anything else: past an error everything is 0 and empty, and
/// good() is false.
class Unpacker {
 public:
  explicit Unpacker(std::span<const std::byte> bytes) : bytes_(bytes) {}

  bool good() const noexcept { return good_; }
  bool at_end() const noexcept { return at_ == bytes_.size(); }
  std::size_t position() const noexcept { return at_; }
  /// What was read is invalid.
  void spoil() noexcept { good_ = false; }

  std::uint64_t number() noexcept {
    constexpr std::uint64_t kMoreFollow = 0x8080808080808080;
    if (good_ && bytes_.size() - at_ >= 8) {
      const auto eight = load_le<std::uint64_t>(bytes_, at_);
      if (const std::uint64_t last = ~eight & kMoreFollow; last != 0) {
        at_ += static_cast<std::size_t>(std::countr_zero(last)) / 8 + 1;
        // The bits below the end's mark; then seven of each byte are moved together, by pairs.
        return joined(eight & (last ^ (last - 1)) & ~kMoreFollow);
      }
    }
    return long_number();
  }
  std::uint64_t number_up_to(std::uint64_t most) noexcept {
    const std::uint64_t value = number();
    if (value <= most) return value;
    good_ = false;
    return 0;
  }
  std::int64_t signed_number() noexcept {
    const std::uint64_t value = number();
    return static_cast<std::int64_t>((value >> 1) ^ (~(value & 1) + 1));
  }
  std::string_view text() noexcept {
    const std::uint64_t size = number();
    if (!good_ || size > bytes_.size() - at_) {
      good_ = false;
      return {};
    }
    const std::string_view bytes(reinterpret_cast<const char*>(bytes_.data()) + at_,
                                 static_cast<std::size_t>(size));
    at_ += static_cast<std::size_t>(size);
    return bytes;
  }

 private:
  static constexpr std::uint64_t joined(std::uint64_t sevens) noexcept {
    sevens = (sevens & 0x007f007f007f007f) | (sevens & 0x7f007f007f007f00) >> 1;
    sevens = (sevens & 0x00003fff00003fff) | (sevens & 0x3fff00003fff0000) >> 2;
    return (sevens & 0x000000000fffffff) | (sevens & 0x0fffffff00000000) >> 4;
  }

  /// One of more than eight bytes, or near the end.
  [[gnu::noinline]] std::uint64_t long_number() noexcept {
    std::uint64_t value = 0;
    for (unsigned shift = 0; good_ && at_ < bytes_.size(); shift += 7) {
      const auto byte = static_cast<std::uint64_t>(bytes_[at_++]);
      if (shift > 63 || (shift == 63 && byte > 1)) break;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    good_ = false;
    return 0;
  }

  std::span<const std::byte> bytes_;
  std::size_t at_ = 0;
  bool good_ = true;
};

}  // namespace mkvirtfs
