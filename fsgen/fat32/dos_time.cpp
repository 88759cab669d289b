// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/fat32/dos_time.h"

#include <algorithm>
#include <chrono>
#include <ctime>

namespace mkvirtfs::fat32 {
namespace {

constexpr int kFirstYear = 1980;
constexpr int kLastYear = 2107;

struct Civil {
  int year;
  unsigned month, day, hour, minute, second;
};

Civil civil_of(std::int64_t seconds) noexcept {
  using namespace std::chrono;
  const sys_seconds moment{std::chrono::seconds(seconds)};
  const auto midnight = floor<days>(moment);
  const year_month_day date(midnight);
  const hh_mm_ss clock(moment - midnight);
  return {static_cast<int>(date.year()),
          static_cast<unsigned>(date.month()),
          static_cast<unsigned>(date.day()),
          static_cast<unsigned>(clock.hours().count()),
          static_cast<unsigned>(clock.minutes().count()),
          static_cast<unsigned>(clock.seconds().count())};
}

Civil local_civil_of(std::int64_t seconds) noexcept {
  const auto moment = static_cast<std::time_t>(seconds);
  std::tm fields{};
  ::localtime_r(&moment, &fields);
  return {fields.tm_year + 1900,
          static_cast<unsigned>(fields.tm_mon + 1),
          static_cast<unsigned>(fields.tm_mday),
          static_cast<unsigned>(fields.tm_hour),
          static_cast<unsigned>(fields.tm_min),
          static_cast<unsigned>(std::min(fields.tm_sec, 59))};
}

}  // namespace

DosTime dos_time(Timestamp when, const TimeZone& zone) noexcept {
  // Some days more than can be said on both sides, so that no arithmetic overflows.
  constexpr std::int64_t kSomeDays = std::int64_t{10} * 86400;
  constexpr std::int64_t kEarliest = 315532800 - kSomeDays;  // 1980-01-01
  constexpr std::int64_t kLatest = 4354819200 + kSomeDays;   // 2108-01-01
  const std::int64_t seconds = std::clamp(when.seconds, kEarliest, kLatest);
  const Civil civil = zone.local ? local_civil_of(seconds)
                                 : civil_of(seconds + std::int64_t{zone.offset_minutes} * 60);
  const auto packed = [](unsigned high, unsigned middle, unsigned low, unsigned middle_bits) {
    return static_cast<std::uint16_t>((high << (5 + middle_bits)) | (middle << 5) | low);
  };
  if (civil.year < kFirstYear) return {packed(0, 1, 1, 4), 0, 0, true};
  if (civil.year > kLastYear) {
    return {packed(kLastYear - kFirstYear, 12, 31, 4), packed(23, 59, 29, 6), 199, true};
  }
  return {packed(static_cast<unsigned>(civil.year - kFirstYear), civil.month, civil.day, 4),
          packed(civil.hour, civil.minute, civil.second / 2, 6),
          static_cast<std::uint8_t>(civil.second % 2 * 100 + when.nanoseconds / 10'000'000), false};
}

}  // namespace mkvirtfs::fat32
