// SPDX-License-Identifier: BSD-3-Clause
#include "support/text.h"

#include <fmt/format.h>

#include <array>
#include <cstddef>

#include "support/arithmetic.h"

namespace mkvirtfs {

std::size_t utf8_sequence_length(std::string_view bytes) noexcept {
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const auto continues = [&](std::size_t from, std::size_t count) {
    if (bytes.size() < from + count) return false;
    for (std::size_t i = from; i < from + count; ++i) {
      if ((at(i) & 0xC0) != 0x80) return false;
    }
    return true;
  };
  const unsigned char lead = at(0);
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return continues(1, 1) ? 2 : 0;
  if (lead >= 0xE0 && lead <= 0xEF) {
    if (!continues(1, 2)) return 0;
    if (lead == 0xE0 && at(1) < 0xA0) return 0;   // overlong
    if (lead == 0xED && at(1) >= 0xA0) return 0;  // surrogate
    return 3;
  }
  if (lead >= 0xF0 && lead <= 0xF4) {
    if (!continues(1, 3)) return 0;
    if (lead == 0xF0 && at(1) < 0x90) return 0;   // overlong
    if (lead == 0xF4 && at(1) >= 0x90) return 0;  // beyond U+10FFFF
    return 4;
  }
  return 0;
}

char32_t code_point(std::string_view sequence) noexcept {
  const auto byte = [&](std::size_t at) {
    return static_cast<char32_t>(static_cast<unsigned char>(sequence[at]));
  };
  if (sequence.size() == 1) return byte(0);
  char32_t value = byte(0) & (0x7Fu >> sequence.size());
  for (std::size_t at = 1; at < sequence.size(); ++at) value = value << 6 | (byte(at) & 0x3F);
  return value;
}

std::string printable(std::string_view raw) {
  std::string out;
  out.reserve(raw.size());
  while (!raw.empty()) {
    const auto byte = static_cast<unsigned char>(raw.front());
    std::size_t length = utf8_sequence_length(raw);
    // C1 controls (U+0080..U+009F) can drive a terminal as well as C0 ones.
    const bool c1_control =
        length == 2 && byte == 0xC2 && static_cast<unsigned char>(raw[1]) < 0xA0;
    if (length == 0 || byte < 0x20 || byte == 0x7F || byte == '\\' || c1_control) {
      length = length == 0 ? 1 : length;
      for (const char c : raw.substr(0, length))
        out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      out += raw.substr(0, length);
    }
    raw.remove_prefix(length);
  }
  return out;
}

bool is_valid_utf8(std::string_view bytes) noexcept {
  while (!bytes.empty()) {
    const std::size_t length = utf8_sequence_length(bytes);
    if (length == 0) return false;
    bytes.remove_prefix(length);
  }
  return true;
}

std::optional<std::uint64_t> parse_size(std::string_view text) noexcept {
  std::size_t digits = 0;
  std::optional<std::uint64_t> value = 0;
  while (digits < text.size() && text[digits] >= '0' && text[digits] <= '9' && value) {
    value = checked_mul<std::uint64_t>(*value, 10);
    if (value) value = checked_add(*value, static_cast<std::uint64_t>(text[digits] - '0'));
    ++digits;
  }
  if (digits == 0 || !value) return std::nullopt;
  std::string_view unit = text.substr(digits);
  if (unit.empty() || unit == "B") return value;
  constexpr std::string_view kUnits = "KMGTPE";
  const char letter = unit.front() == 'k' ? 'K' : unit.front();
  const std::size_t power = kUnits.find(letter);
  if (power == std::string_view::npos) return std::nullopt;
  unit.remove_prefix(1);
  if (!unit.empty() && unit != "i" && unit != "iB" && unit != "B") return std::nullopt;
  return checked_mul<std::uint64_t>(*value, std::uint64_t{1} << (10 * (power + 1)));
}

std::string human_size(std::uint64_t size_bytes) {
  constexpr std::array<const char*, 7> kUnits = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  auto value = static_cast<double>(size_bytes);
  std::size_t unit = 0;
  while (value >= 1024.0 && unit + 1 < kUnits.size()) {
    value /= 1024.0;
    ++unit;
  }
  if (unit == 0) return fmt::format("{} bytes", size_bytes);
  return fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string hex(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char c : bytes) out += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return out;
}

}  // namespace mkvirtfs
