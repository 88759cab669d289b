// SPDX-License-Identifier: BSD-3-Clause
//
// A long name is the source's as UTF-16, with characters of a private range for bytes that FAT
// cannot hold. A short name is made of it by leaving out and replacing characters; if it then says
// the same but for case, two bits say the case and no long name is needed, else a long name stands
// before it.
#include "fsgen/fat32/names.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <charconv>

#include "fsgen/fat32/upcase.h"
#include "support/text.h"

namespace mkvirtfs::fat32 {
namespace {

constexpr char16_t kEscape = 0xF000;  // plus the byte

constexpr bool is_escape(char32_t character) noexcept {
  return character > kEscape && character <= kEscape + 0xFF;
}

/// One character of a name: its bytes, and what they mean; 0 when they are not UTF-8 (then it is
/// one byte).
struct Character {
  std::string_view bytes;
  char32_t value;
};

Character first_character(std::string_view text) noexcept {
  const std::size_t length = utf8_sequence_length(text);
  if (length == 0) return {text.substr(0, 1), 0};
  const std::string_view bytes = text.substr(0, length);
  return {bytes, code_point(bytes)};
}

/// Where in a name a character stands.
enum class At : std::uint8_t { inside, end };

bool must_be_escaped(char32_t character, At at) noexcept {
  switch (character) {
    case U'"':
    case U'*':
    case U':':
    case U'<':
    case U'>':
    case U'?':
    case U'\\':
    case U'|':
      return true;
    case U'.':
    case U' ':
      return at == At::end;  // readers strip them
    case 0xFFFF:
      return true;  // means "nothing more" in a long entry
    default:
      return character < 0x20 || is_escape(character);
  }
}

void append_character(LongName& name, char32_t value) noexcept {
  if (value < 0x10000) {
    name.append(static_cast<char16_t>(value));
  } else {
    name.append(static_cast<char16_t>(0xD800 + ((value - 0x10000) >> 10)));
    name.append(static_cast<char16_t>(0xDC00 + (value & 0x3FF)));
  }
}

/// Characters of short names (fatgen103, "Short Directory Entries"), upper case.
bool is_short_character(char16_t unit) noexcept {
  if (unit >= u'0' && unit <= u'9') return true;
  if (unit >= u'A' && unit <= u'Z') return true;
  constexpr std::u16string_view kOthers = u"!#$%&'()-@^_`{}~";
  return unit < 0x80 && kOthers.find(unit) != kOthers.npos;
}

void append_utf8(std::string& out, char32_t value) {
  const auto byte = [&](char32_t bits) {
    out += static_cast<char>(static_cast<unsigned char>(bits));
  };
  if (value < 0x80) {
    byte(value);
  } else if (value < 0x800) {
    byte(0xC0 | value >> 6);
    byte(0x80 | (value & 0x3F));
  } else if (value < 0x10000) {
    byte(0xE0 | value >> 12);
    byte(0x80 | (value >> 6 & 0x3F));
    byte(0x80 | (value & 0x3F));
  } else {
    byte(0xF0 | value >> 18);
    byte(0x80 | (value >> 12 & 0x3F));
    byte(0x80 | (value >> 6 & 0x3F));
    byte(0x80 | (value & 0x3F));
  }
}

/// Calls `visit(char32_t)` for each character; the units are those of a LongName, so pairs are
/// whole.
template <class Visit>
void for_each_character(std::span<const char16_t> units, Visit&& visit) {
  for (std::size_t i = 0; i < units.size(); ++i) {
    char32_t value = units[i];
    if (value >= 0xD800 && value < 0xDC00 && i + 1 < units.size()) {
      value = 0x10000 + ((value - 0xD800) << 10) + (units[++i] - 0xDC00u);
    }
    visit(value);
  }
}

}  // namespace

void LongName::append_escaped(std::string_view bytes) noexcept {
  mapped_ = true;
  for (const char byte : bytes) {
    append(static_cast<char16_t>(kEscape + static_cast<unsigned char>(byte)));
  }
}

LongName long_name(std::string_view raw) noexcept {
  assert(!raw.empty() && raw.size() <= kMostNameUnits);
  LongName name;
  while (!raw.empty()) {
    const Character character = first_character(raw);
    raw.remove_prefix(character.bytes.size());
    if (character.value == 0 ||
        must_be_escaped(character.value, raw.empty() ? At::end : At::inside)) {
      name.append_escaped(character.bytes);
    } else {
      append_character(name, character.value);
    }
  }
  return name;
}

LongName long_name(std::string_view raw, std::string_view first) noexcept {
  LongName name;
  while (!raw.empty()) {
    const Character character = first_character(raw);
    const Character of_first = first_character(first);
    raw.remove_prefix(character.bytes.size());
    first.remove_prefix(of_first.bytes.size());
    if (character.bytes != of_first.bytes || character.value == 0 ||
        must_be_escaped(character.value, raw.empty() ? At::end : At::inside)) {
      name.append_escaped(character.bytes);
    } else {
      append_character(name, character.value);
    }
  }
  return name;
}

std::string source_name(std::span<const char16_t> units) {
  std::string name;
  for_each_character(units, [&](char32_t value) {
    if (is_escape(value)) {
      name += static_cast<char>(static_cast<unsigned char>(value - kEscape));
    } else {
      append_utf8(name, value);
    }
  });
  return name;
}

std::string readable_name(std::span<const char16_t> units) {
  std::string name;
  for_each_character(units, [&](char32_t value) {
    if (is_escape(value)) {
      name += fmt::format("<U+{:04X}>", static_cast<unsigned>(value));
    } else {
      append_utf8(name, value);
    }
  });
  return name;
}

std::uint64_t case_blind_hash(std::span<const char16_t> units) noexcept {
  std::uint64_t hash = 0xCBF29CE484222325;
  for (const char16_t unit : units) {
    hash = (hash ^ upcase(unit)) * 0x9E3779B97F4A7C15;
    hash ^= hash >> 32;
  }
  return hash;
}

bool equal_but_for_case(std::span<const char16_t> a, std::span<const char16_t> b) noexcept {
  return std::ranges::equal(a, b, {}, upcase, upcase);
}

ShortForm short_form(std::span<const char16_t> units) noexcept {
  ShortForm form;
  form.name.fill(' ');
  const auto begin = units.begin();
  // The extension is behind the last dot, but for a dot at the very front, which is dropped.
  auto dot = units.end();
  for (auto at = units.end(); at != begin;) {
    if (*--at == u'.') {
      if (std::ranges::any_of(begin, at,
                              [](char16_t unit) { return unit != u'.' && unit != u' '; })) {
        dot = at;
      }
      break;
    }
  }
  bool exact = true;
  std::uint8_t bits = 0;
  const auto part = [&](auto from, auto to, std::size_t at, std::size_t room, std::uint8_t bit) {
    std::size_t size = 0;
    bool lower = false;
    bool upper = false;
    bool half = false;
    for (; from != to; ++from) {
      const char16_t unit = *from;
      const bool second_half = half && unit >= 0xDC00 && unit < 0xE000;
      half = unit >= 0xD800 && unit < 0xDC00;
      if (second_half) continue;  // one character, one underscore
      if (unit == u'.' || unit == u' ') {
        exact = false;
        continue;
      }
      if (size == room) {
        exact = false;
        break;
      }
      const char16_t capital = unit < 0x80 ? upcase(unit) : unit;
      const bool legal = is_short_character(capital);
      exact = exact && legal;
      lower = lower || capital != unit;
      upper = upper || (unit >= u'A' && unit <= u'Z');
      form.name[at + size++] = legal ? static_cast<char>(capital) : '_';
    }
    if (lower && !upper) bits |= bit;
    if (lower && upper) form.needs_long = true;
    return size;
  };
  form.needs_long = false;
  form.base_size = static_cast<std::uint8_t>(part(begin, dot, 0, 8, 0x08));
  if (dot != units.end() && part(dot + 1, units.end(), 8, 3, 0x10) == 0) exact = false;
  form.fits = exact && form.base_size != 0;
  form.needs_long = form.needs_long || !form.fits;
  if (!form.needs_long) form.case_bits = bits;
  return form;
}

ShortName with_tail(const ShortForm& form, std::uint32_t tail) noexcept {
  assert(tail != 0 && tail <= kMostTail);
  ShortName name = form.name;
  std::array<char, 8> digits{'~'};
  const auto end = std::to_chars(digits.data() + 1, digits.data() + digits.size(), tail).ptr;
  const auto size = static_cast<std::size_t>(end - digits.data());
  const std::size_t kept = std::min<std::size_t>(form.base_size, 8 - size);
  std::ranges::fill(std::span(name).first(8).subspan(kept), ' ');
  std::copy(digits.data(), end, name.begin() + static_cast<std::ptrdiff_t>(kept));
  return name;
}

std::uint8_t short_name_checksum(const ShortName& name) noexcept {
  std::uint8_t sum = 0;
  for (const char byte : name) {
    sum = static_cast<std::uint8_t>((sum << 7 | sum >> 1) + static_cast<unsigned char>(byte));
  }
  return sum;
}

}  // namespace mkvirtfs::fat32
