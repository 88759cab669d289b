// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

// Bytes for tests.

namespace mkvirtfs::testing {

/// Bytes that others can be put behind.
class Bytes : public std::vector<std::byte> {
 public:
  using std::vector<std::byte>::vector;
  Bytes& operator+=(std::span<const std::byte> more) {
    insert(end(), more.begin(), more.end());
    return *this;
  }
};

inline Bytes bytes_of(std::string_view text) {
  const auto raw = std::as_bytes(std::span(text));
  return {raw.begin(), raw.end()};
}

inline std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// Bytes by the million are compared in one piece: with iterators, unoptimised test programs take
/// seconds.
inline bool same_bytes(std::span<const std::byte> one, std::span<const std::byte> other) {
  return one.size() == other.size() &&
         (one.empty() || std::memcmp(one.data(), other.data(), one.size()) == 0);
}

inline bool all_zero(std::span<const std::byte> bytes) {
  return bytes.empty() ||
         (bytes[0] == std::byte{0} && same_bytes(bytes.subspan(1), bytes.first(bytes.size() - 1)));
}

/// `size` bytes that differ from block to block and from byte to byte.
inline std::vector<std::byte> pattern_bytes(std::size_t size) {
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i < size; ++i)
    bytes[i] = static_cast<std::byte>((i * 7 + i / 512 * 31) & 0xFF);
  return bytes;
}

}  // namespace mkvirtfs::testing
