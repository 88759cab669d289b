// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "fsgen/tree/source_tree.h"

namespace mkvirtfs::iso9660 {

/// A moment as calendars show it, in UTC.
struct CalendarTime {
  std::int32_t year = 1970;
  std::uint8_t month = 1;  ///< 1 to 12
  std::uint8_t day = 1;    ///< 1 to 31
  std::uint8_t hour = 0;
  std::uint8_t minute = 0;
  std::uint8_t second = 0;
};
/// The nearest moment within the years that are given.
CalendarTime calendar_time(std::int64_t seconds, std::int32_t first_year, std::int32_t last_year);

inline constexpr std::size_t kShortTimeBytes = 7;
/// The seven bytes of directory records and of Rock Ridge's TF (ECMA-119, 9.1.5): seconds, from
/// 1900 to 2155. Fractions are cut, as a file's mtime is never in its future.
void put_short_time(std::span<std::byte> out, Timestamp when);

/// The sixteen digits of a volume's dates, "YYYYMMDDHHMMSScc" (ECMA-119, 8.4.26.1).
std::string volume_time_digits(Timestamp when);
/// Whether `digits` are such a date.
bool is_volume_time(std::string_view digits);

}  // namespace mkvirtfs::iso9660
