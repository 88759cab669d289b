// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace mkvirtfs {

template <std::unsigned_integral T>
constexpr T byte_swap(T value) noexcept {
  if constexpr (sizeof(T) == 1) {
    return value;
  } else if constexpr (sizeof(T) == 2) {
    return __builtin_bswap16(value);
  } else if constexpr (sizeof(T) == 4) {
    return __builtin_bswap32(value);
  } else {
    return __builtin_bswap64(value);
  }
}

/// Host order to little-endian (disk) order and back: the same operation.
template <std::unsigned_integral T>
constexpr T to_le(T value) noexcept {
  return std::endian::native == std::endian::little ? value : byte_swap(value);
}

/// Host order to big-endian (wire) order and back: the same operation.
template <std::unsigned_integral T>
constexpr T to_be(T value) noexcept {
  return std::endian::native == std::endian::big ? value : byte_swap(value);
}

/// Unaligned access at `bytes[at]`; the caller has checked that the value fits.
template <std::unsigned_integral T>
T load_be(std::span<const std::byte> bytes, std::size_t at = 0) noexcept {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return to_be(value);
}
template <std::unsigned_integral T>
T load_le(std::span<const std::byte> bytes, std::size_t at = 0) noexcept {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return to_le(value);
}
template <std::unsigned_integral T>
void store_be(std::span<std::byte> bytes, std::size_t at, T value) noexcept {
  value = to_be(value);
  std::memcpy(bytes.data() + at, &value, sizeof value);
}
template <std::unsigned_integral T>
void store_le(std::span<std::byte> bytes, std::size_t at, T value) noexcept {
  value = to_le(value);
  std::memcpy(bytes.data() + at, &value, sizeof value);
}

}  // namespace mkvirtfs
