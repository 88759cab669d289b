// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/disk/fat_names.h"

#include <array>
#include <string_view>

#include "fsgen/disk/utf16.h"
#include "support/byte_order.h"

namespace mkvirtfs::disk {
namespace {

constexpr unsigned kLastPart = 0x40;
constexpr unsigned kMostParts = 20;
constexpr std::size_t kUnitsInPart = 13;
constexpr std::size_t kShortNameBytes = 11;
constexpr std::size_t kShortBaseBytes = 8;
constexpr unsigned kLowerBase = 0x08;
constexpr unsigned kLowerExtension = 0x10;

constexpr char16_t kFirstMappedByte = 0xf001;
constexpr char16_t kLastMappedByte = 0xf0ff;

// Code page 437 from 0x80 on.
constexpr std::u16string_view kCodePage =
    u"\u00c7\u00fc\u00e9\u00e2\u00e4\u00e0\u00e5\u00e7\u00ea\u00eb\u00e8\u00ef\u00ee\u00ec\u00c4"
    u"\u00c5\u00c9\u00e6\u00c6\u00f4\u00f6\u00f2\u00fb\u00f9\u00ff\u00d6\u00dc\u00a2\u00a3\u00a5"
    u"\u20a7\u0192\u00e1\u00ed\u00f3\u00fa\u00f1\u00d1\u00aa\u00ba\u00bf\u2310\u00ac\u00bd\u00bc"
    u"\u00a1\u00ab\u00bb\u2591\u2592\u2593\u2502\u2524\u2561\u2562\u2556\u2555\u2563\u2551\u2557"
    u"\u255d\u255c\u255b\u2510\u2514\u2534\u252c\u251c\u2500\u253c\u255e\u255f\u255a\u2554\u2569"
    u"\u2566\u2560\u2550\u256c\u2567\u2568\u2564\u2565\u2559\u2558\u2552\u2553\u256b\u256a\u2518"
    u"\u250c\u2588\u2584\u258c\u2590\u2580\u03b1\u00df\u0393\u03c0\u03a3\u03c3\u00b5\u03c4\u03a6"
    u"\u0398\u03a9\u03b4\u221e\u03c6\u03b5\u2229\u2261\u00b1\u2265\u2264\u2320\u2321\u00f7\u2248"
    u"\u00b0\u2219\u00b7\u221a\u207f\u00b2\u25a0\u00a0";
static_assert(kCodePage.size() == 128);

unsigned u8(std::span<const std::byte> bytes, std::size_t at) {
  return std::to_integer<unsigned>(bytes[at]);
}

unsigned checksum_of(std::span<const std::byte> short_entry) {
  unsigned sum = 0;
  for (std::size_t i = 0; i < kShortNameBytes; ++i) {
    sum = ((sum >> 1 | sum << 7) + u8(short_entry, i)) & 0xff;
  }
  return sum;
}

/// One half of a short name, without its blanks.
void append_short(std::string& out, std::span<const std::byte> bytes, bool is_lower) {
  std::size_t length = bytes.size();
  while (length != 0 && u8(bytes, length - 1) == ' ') --length;
  for (std::size_t i = 0; i < length; ++i) {
    unsigned c = u8(bytes, i);
    if (is_lower && c >= 'A' && c <= 'Z') c += 'a' - 'A';
    append_utf8(out, c < 0x80 ? static_cast<char32_t>(c) : kCodePage[c - 0x80]);
  }
}

}  // namespace

std::optional<std::string> name_of_units(std::u16string_view units) {
  std::string name;
  for (std::size_t at = 0; at < units.size();) {
    const std::optional<char32_t> character = next_character(units, at);
    if (!character) return std::nullopt;
    if (*character >= kFirstMappedByte && *character <= kLastMappedByte) {
      name += static_cast<char>(*character & 0xff);
    } else {
      append_utf8(name, *character);
    }
  }
  return name;
}

void LongName::take(std::span<const std::byte> entry) {
  constexpr std::array<std::size_t, kUnitsInPart> kPlaces{1,  3,  5,  7,  9,  14, 16,
                                                          18, 20, 22, 24, 28, 30};
  const unsigned order = u8(entry, 0);
  const unsigned number = order & ~kLastPart;
  if ((order & kLastPart) != 0) {
    clear();
    is_good_ = number >= 1 && number <= kMostParts;
    expected_ = number;
    checksum_ = u8(entry, 13);
  }
  has_parts_ = true;
  if (number == 0 || number != expected_ || checksum_ != u8(entry, 13)) is_good_ = false;
  if (!is_good_) return;
  std::u16string part;
  for (const std::size_t at : kPlaces) {
    const auto unit = static_cast<char16_t>(load_le<std::uint16_t>(entry, at));
    if (unit == 0) break;
    part += unit;
  }
  // Only the last part, which comes first, may be short.
  if (part.size() != kUnitsInPart && (order & kLastPart) == 0) is_good_ = false;
  units_.insert(0, part);
  --expected_;
}

std::optional<std::string> LongName::name(std::span<const std::byte> short_entry) const {
  if (!is_good_ || expected_ != 0 || checksum_ != checksum_of(short_entry)) return std::nullopt;
  return name_of_units(units_);
}

std::string short_name(std::span<const std::byte> entry) {
  constexpr std::byte kFirstByteE5{0x05};
  std::array<std::byte, kShortNameBytes> bytes;
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = entry[i];
  if (bytes[0] == kFirstByteE5) bytes[0] = std::byte{0xe5};
  const unsigned cases = u8(entry, 12);
  const std::span<const std::byte> all(bytes);
  std::string name;
  append_short(name, all.first(kShortBaseBytes), (cases & kLowerBase) != 0);
  std::string extension;
  append_short(extension, all.subspan(kShortBaseBytes), (cases & kLowerExtension) != 0);
  if (!extension.empty()) name += "." + extension;
  return name;
}

}  // namespace mkvirtfs::disk
