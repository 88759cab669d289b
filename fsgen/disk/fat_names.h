// SPDX-License-Identifier: BSD-3-Clause
// Private to this room.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace mkvirtfs::disk {

/// The long name that stands before a short entry, part by part, last part first (fatgen103, "Long
/// Directory Entries"). One thread.
class LongName {
 public:
  /// An entry of attribute 0x0f.
  void take(std::span<const std::byte> entry);
  void clear() noexcept { *this = LongName(); }
  /// The name in UTF-8, if all parts of it came and belong to this short entry. Characters from
  /// U+F001 to U+F0FF are bytes (docs/layout-fat.md).
  std::optional<std::string> name(std::span<const std::byte> short_entry) const;
  bool empty() const noexcept { return !has_parts_; }

 private:
  std::u16string units_;
  unsigned expected_ = 0;  // how many parts are still to come
  unsigned checksum_ = 0;
  bool has_parts_ = false;
  bool is_good_ = false;
};

/// UTF-8 of it; nullopt where surrogates are no pair.
std::optional<std::string> name_of_units(std::u16string_view units);
/// The name of a short entry, with the case bits of Windows NT; bytes beyond ASCII are those of
/// code page 437, as Linux reads them.
std::string short_name(std::span<const std::byte> entry);

}  // namespace mkvirtfs::disk
