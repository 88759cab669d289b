// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

// Names of the source as FAT has them (fatgen103, "FAT Long Directory Entries"). All functions are
// pure.
//
// A byte that a long name cannot hold becomes the character U+F000 + byte of Unicode's private
// area, as other systems that put foreign names on FAT do it: control characters, " * : < > ? \ |,
// a dot or space at the end, bytes that are not UTF-8. The source's own characters U+F001..U+F0FF
// are taken as such bytes, so that the way back is one: source_name(). No name grows: 255 bytes are
// never more than 255 units.

namespace mkvirtfs::fat32 {

inline constexpr std::size_t kMostNameUnits = 255;
inline constexpr std::size_t kUnitsPerSlot = 13;

/// A name in UTF-16.
class LongName {
 public:
  std::span<const char16_t> units() const noexcept { return {units_.data(), size_}; }
  void append(char16_t unit) noexcept { units_[size_++] = unit; }
  void append_escaped(std::string_view bytes) noexcept;
  /// Whether any byte was escaped.
  bool is_mapped() const noexcept { return mapped_; }
  std::uint32_t slots() const noexcept {
    return static_cast<std::uint32_t>((size_ + kUnitsPerSlot - 1) / kUnitsPerSlot);
  }

 private:
  std::array<char16_t, kMostNameUnits> units_;  // no initialisation: only `size_` of them are read
  std::size_t size_ = 0;
  bool mapped_ = false;
};

/// `raw` has 1 to 255 bytes, neither '/' nor NUL.
LongName long_name(std::string_view raw) noexcept;
/// The name of an entry that is like `first`'s but for case: what differs is escaped too.
LongName long_name(std::string_view raw, std::string_view first) noexcept;
/// The way back: the source's bytes.
std::string source_name(std::span<const char16_t> units);
/// For people: UTF-8, with <U+F03A> for what was escaped.
std::string readable_name(std::span<const char16_t> units);
/// Equal for names that differ in case only.
std::uint64_t case_blind_hash(std::span<const char16_t> units) noexcept;
bool equal_but_for_case(std::span<const char16_t> a, std::span<const char16_t> b) noexcept;

/// The eleven bytes of a short directory entry: eight of name, three of extension, blanks behind
/// each.
using ShortName = std::array<char, 11>;

/// What a long name makes of itself in 8.3.
struct ShortForm {
  ShortName name{};            ///< upper case; of no use by itself unless `fits`
  std::uint8_t base_size = 0;  ///< without blanks; at least 1 if `fits`
  bool fits = false;           ///< but for case, this is the whole name: it needs no numeric tail
  bool needs_long = true;      ///< it does not tell all of the name, with the case bits
  std::uint8_t case_bits = 0;  ///< 0x08: the base is lower case, 0x10: the extension is
};
ShortForm short_form(std::span<const char16_t> units) noexcept;

/// `form` with "~tail" at the end of its base, of which as much stays as there is room for.
ShortName with_tail(const ShortForm& form, std::uint32_t tail) noexcept;
inline constexpr std::uint32_t kMostTail = 99999;

/// What a long entry says of the short one behind it.
std::uint8_t short_name_checksum(const ShortName& name) noexcept;

}  // namespace mkvirtfs::fat32
