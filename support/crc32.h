// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace mkvirtfs {

/// The CRC-32 of Ethernet, zip and GPT, of `bytes` and so many zeroes behind them.
inline std::uint32_t crc32(std::span<const std::byte> bytes, std::uint64_t zeroes = 0) noexcept {
  constexpr std::uint32_t kPolynomial = 0xEDB88320;
  std::uint32_t crc = 0xFFFFFFFF;
  const auto add = [&](std::byte byte) {
    crc ^= static_cast<std::uint32_t>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ ((crc & 1) != 0 ? kPolynomial : 0);
  };
  for (const std::byte byte : bytes) add(byte);
  for (; zeroes > 0; --zeroes) add(std::byte{0});
  return ~crc;
}

}  // namespace mkvirtfs
