// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

#include "support/byte_order.h"

namespace mkvirtfs {

/// CRC-32C as ext4 and EROFS use it: no final inversion, so that checksums chain (start with ~0).
/// By the processor's instruction where it has one, else by a table.
std::uint32_t crc32c(std::uint32_t crc, std::span<const std::byte> bytes) noexcept;

/// The checksum goes on over a number in disk order.
template <std::unsigned_integral T>
std::uint32_t crc32c_of(std::uint32_t crc, T value) noexcept {
  value = to_le(value);
  return crc32c(crc, std::as_bytes(std::span(&value, 1)));
}

}  // namespace mkvirtfs
