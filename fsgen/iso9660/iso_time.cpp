// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/iso9660/iso_time.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

namespace mkvirtfs::iso9660 {
namespace {

constexpr std::size_t kDigits = 16;

}  // namespace

CalendarTime calendar_time(std::int64_t seconds, std::int32_t first_year, std::int32_t last_year) {
  using std::chrono::sys_days;
  using std::chrono::year;
  constexpr std::int64_t kDaySeconds = 86400;
  const auto start_of = [](std::int32_t of) {
    const sys_days days = year(of) / 1 / 1;
    return std::int64_t{days.time_since_epoch().count()} * kDaySeconds;
  };
  const std::int64_t inside =
      std::clamp(seconds, start_of(first_year), start_of(last_year + 1) - 1);
  std::int64_t days = inside / kDaySeconds;
  std::int64_t rest = inside % kDaySeconds;
  if (rest < 0) {
    rest += kDaySeconds;
    --days;
  }
  const std::chrono::year_month_day date{sys_days(std::chrono::days(days))};
  CalendarTime time;
  time.year = static_cast<int>(date.year());
  time.month = static_cast<std::uint8_t>(static_cast<unsigned>(date.month()));
  time.day = static_cast<std::uint8_t>(static_cast<unsigned>(date.day()));
  time.hour = static_cast<std::uint8_t>(rest / 3600);
  time.minute = static_cast<std::uint8_t>(rest / 60 % 60);
  time.second = static_cast<std::uint8_t>(rest % 60);
  return time;
}

void put_short_time(std::span<std::byte> out, Timestamp when) {
  const CalendarTime time = calendar_time(when.seconds, 1900, 2155);
  out[0] = static_cast<std::byte>(time.year - 1900);
  out[1] = std::byte{time.month};
  out[2] = std::byte{time.day};
  out[3] = std::byte{time.hour};
  out[4] = std::byte{time.minute};
  out[5] = std::byte{time.second};
  out[6] = std::byte{0};  // quarters of an hour east of UTC
}

std::string volume_time_digits(Timestamp when) {
  const CalendarTime time = calendar_time(when.seconds, 1, 9999);
  constexpr std::uint32_t kHundredth = 10'000'000;
  return fmt::format("{:04}{:02}{:02}{:02}{:02}{:02}{:02}", time.year, time.month, time.day,
                     time.hour, time.minute, time.second, when.nanoseconds / kHundredth);
}

bool is_volume_time(std::string_view digits) {
  if (digits.size() != kDigits) return false;
  if (!std::ranges::all_of(digits, [](char c) { return c >= '0' && c <= '9'; })) return false;
  const auto two = [&](std::size_t at) {
    return static_cast<unsigned>((digits[at] - '0') * 10 + (digits[at + 1] - '0'));
  };
  const std::chrono::year_month_day date{std::chrono::year(static_cast<int>(two(0) * 100 + two(2))),
                                         std::chrono::month(two(4)), std::chrono::day(two(6))};
  return digits.substr(0, 4) != "0000" && date.ok() && two(8) < 24 && two(10) < 60 && two(12) < 60;
}

}  // namespace mkvirtfs::iso9660
