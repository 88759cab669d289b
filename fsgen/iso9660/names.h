// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "fsgen/iso9660/plan.h"

namespace mkvirtfs::iso9660 {

/// An identifier of a directory record or path table: raw bytes, in Joliet big-endian UTF-16.
class Identifier {
 public:
  static constexpr std::size_t kMostBytes = 212;

  std::string_view view() const noexcept { return {bytes_.data(), size_}; }
  std::size_t size() const noexcept { return size_; }
  void append(std::string_view more) noexcept {
    std::memcpy(bytes_.data() + size_, more.data(), more.size());
    size_ += more.size();
  }
  void append(char c) noexcept { bytes_[size_++] = c; }
  void append_unit(char16_t unit) noexcept {
    append(static_cast<char>(unit >> 8));
    append(static_cast<char>(unit & 0xFF));
  }

 private:
  std::array<char, kMostBytes> bytes_;
  std::size_t size_ = 0;
};

/// The number by which an identifier differs from others that would be alike: 0 is none, else how
/// many digits it has and their value. It stands at the end of the name, before the extension.
class Tail {
 public:
  constexpr Tail() = default;
  constexpr Tail(unsigned digits, std::uint32_t value) noexcept
      : packed_(digits << kValueBits | value) {}

  constexpr unsigned digits() const noexcept { return packed_ >> kValueBits; }
  constexpr std::uint32_t value() const noexcept { return packed_ & ((1u << kValueBits) - 1); }

  static constexpr unsigned kFewestDigits = 3;
  static constexpr unsigned kMostDigits = 7;

 private:
  static constexpr unsigned kValueBits = 28;
  std::uint32_t packed_ = 0;
};

/// What has a name: it decides about extensions, versions and lengths.
enum class NameOf : std::uint8_t { file, directory };

/// How names become identifiers. Immutable.
///
/// Primary (ECMA-119, 7.5 and 7.6): capitals, digits and "_"; all else is "_". Up to 8 and 3
/// characters in level 1, 30 together above it; directories have no extension and up to 8 or 31
/// characters. Joliet: UCS-2 or UTF-16 without control characters and * / : ; ? \, which become
/// "_", as do bytes that are not UTF-8 and, in UCS-2, characters beyond 16 bits.
class NameRules {
 public:
  static NameRules primary(unsigned level) noexcept { return NameRules(level, 0); }
  static NameRules joliet(std::size_t most_units, JolietCharacters characters) noexcept {
    NameRules rules(0, most_units);
    rules.characters_ = characters;
    return rules;
  }

  /// What a name sorts by in its directory (ECMA-119, 9.3) and must not share: bytes to compare.
  Identifier key(std::string_view name, NameOf of, Tail tail) const noexcept;
  /// Joliet: whether the name stands there as it is, without a number: nothing was cut or replaced.
  bool is_kept(std::string_view name) const noexcept;
  /// What stands in the record; files with a version.
  Identifier identifier(std::string_view name, NameOf of, Tail tail) const noexcept;

 private:
  NameRules(unsigned level, std::size_t most_units) noexcept
      : level_(level), most_units_(most_units) {}

  struct Parts;
  static Parts parts_of(std::string_view name, NameOf of) noexcept;
  Identifier primary_key(std::string_view name, NameOf of, Tail tail) const noexcept;
  Identifier joliet_key(std::string_view name, NameOf of, Tail tail) const noexcept;

  unsigned level_;
  std::size_t most_units_;
  JolietCharacters characters_ = JolietCharacters::ucs2;
};

/// Names the entries of one directory after the other. Not thread-safe; keeps its memory for the
/// next one.
class Namer {
 public:
  struct Named {
    std::string_view name;
    std::uint32_t entry;  ///< the caller's; of equal names the first is served first
    Tail tail;
    NameOf of;
    std::uint32_t key_at;
    std::uint32_t key_bytes;
  };

  explicit Namer(const NameRules& rules) noexcept : rules_(rules) {}

  void begin();
  /// `name` must live until the next begin(). `entry` + 1 is what equal names are ordered by, so
  /// that the largest number comes first.
  void add(std::string_view name, NameOf of, std::uint32_t entry);
  /// All of them with identifiers of their own, in the order of records; valid until the next
  /// begin(). Empty although there were names: there are more alike than there are numbers.
  std::span<const Named> finish();

 private:
  std::string_view key_of(const Named& named) const noexcept {
    return std::string_view(keys_).substr(named.key_at, named.key_bytes);
  }
  void set_key(Named& named);
  bool number(std::span<Named> alike, std::span<const std::string_view> natural);
  void sort();

  const NameRules& rules_;
  std::vector<Named> names_;
  std::string keys_;
  std::unordered_map<std::string, std::uint32_t> next_;
  std::unordered_set<std::string> taken_;
};

}  // namespace mkvirtfs::iso9660
