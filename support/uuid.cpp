// SPDX-License-Identifier: BSD-3-Clause
#include "support/uuid.h"

#include <fmt/format.h>

#include <algorithm>

namespace mkvirtfs {

std::optional<Uuid> parse_uuid(std::string_view text) noexcept {
  Uuid uuid{};
  if (text.size() != 36) return std::nullopt;
  std::size_t nibble = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (i == 8 || i == 13 || i == 18 || i == 23) {
      if (c != '-') return std::nullopt;
      continue;
    }
    unsigned value;
    if (c >= '0' && c <= '9') {
      value = static_cast<unsigned>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      value = static_cast<unsigned>(c - 'a') + 10;
    } else if (c >= 'A' && c <= 'F') {
      value = static_cast<unsigned>(c - 'A') + 10;
    } else {
      return std::nullopt;
    }
    uuid[nibble / 2] |= static_cast<std::byte>(nibble % 2 == 0 ? value << 4 : value);
    ++nibble;
  }
  return uuid;
}

std::string to_string(const Uuid& uuid) {
  std::string text;
  for (std::size_t i = 0; i < uuid.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += fmt::format("{:02x}", static_cast<unsigned>(uuid[i]));
  }
  return text;
}

Uuid derived_uuid(std::span<const std::byte, 16> digest) noexcept {
  Uuid uuid;
  std::ranges::copy(digest, uuid.begin());
  // RFC 9562: version 8, variant 10.
  uuid[6] = (uuid[6] & std::byte{0x0F}) | std::byte{0x80};
  uuid[8] = (uuid[8] & std::byte{0x3F}) | std::byte{0x80};
  return uuid;
}

}  // namespace mkvirtfs
