// SPDX-License-Identifier: BSD-3-Clause
// Private to this room.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace mkvirtfs::disk {

inline void append_utf8(std::string& out, char32_t c) {
  const auto byte = [&](char32_t value) { out += static_cast<char>(value); };
  if (c < 0x80) {
    byte(c);
  } else if (c < 0x800) {
    byte(0xc0 | c >> 6);
    byte(0x80 | (c & 0x3f));
  } else if (c < 0x10000) {
    byte(0xe0 | c >> 12);
    byte(0x80 | (c >> 6 & 0x3f));
    byte(0x80 | (c & 0x3f));
  } else {
    byte(0xf0 | c >> 18);
    byte(0x80 | (c >> 12 & 0x3f));
    byte(0x80 | (c >> 6 & 0x3f));
    byte(0x80 | (c & 0x3f));
  }
}

/// The character at `at`, which is then that of the next one; nullopt: half of a pair.
inline std::optional<char32_t> next_character(std::u16string_view units, std::size_t& at) {
  const char16_t unit = units[at++];
  if (unit < 0xd800 || unit > 0xdfff) return unit;
  if (unit > 0xdbff || at == units.size() || units[at] < 0xdc00 || units[at] > 0xdfff) {
    return std::nullopt;
  }
  return 0x10000 + ((char32_t{unit} & 0x3ff) << 10) + (units[at++] & 0x3ffu);
}

}  // namespace mkvirtfs::disk
