// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <cassert>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "block/extent.h"
#include "support/byte_order.h"

namespace mkvirtfs::erofs {

/// A stretch of the image that is wanted, zeroes at first. What is put outside of it is passed
/// over, so that records are written whole, wherever a block ends.
class Window {
 public:
  Window(std::uint64_t offset, std::span<std::byte> bytes) : offset_(offset), bytes_(bytes) {
    std::ranges::fill(bytes, std::byte{0});
  }

  std::uint64_t begin() const noexcept { return offset_; }
  std::uint64_t end() const noexcept { return offset_ + bytes_.size(); }
  Range range() const noexcept { return {offset_, bytes_.size()}; }

  void put(std::uint64_t at, std::span<const std::byte> bytes) noexcept {
    const Range part = common({at, bytes.size()});
    if (part.length == 0) return;
    std::memcpy(bytes_.data() + (part.offset - offset_), bytes.data() + (part.offset - at),
                part.length);
  }
  void put(std::uint64_t at, std::string_view text) noexcept {
    put(at, std::as_bytes(std::span(text)));
  }
  template <std::unsigned_integral T>
  void put(std::uint64_t at, T value) noexcept {
    value = to_le(value);
    put(at, std::as_bytes(std::span(&value, 1)));
  }

  /// The part of `range` that is wanted; its length is 0 when none is.
  Range common(Range range) const noexcept {
    const std::uint64_t from = std::max(range.offset, begin());
    const std::uint64_t to = std::min(range.end(), end());
    return from < to ? Range{from, to - from} : Range{from, 0};
  }
  /// Where to write `part`, which is a result of common().
  std::span<std::byte> at(Range part) const noexcept {
    assert(part.offset >= begin() && part.end() <= end());
    return bytes_.subspan(part.offset - offset_, part.length);
  }

 private:
  std::uint64_t offset_;
  std::span<std::byte> bytes_;
};

}  // namespace mkvirtfs::erofs
