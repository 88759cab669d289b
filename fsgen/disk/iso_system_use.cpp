// SPDX-License-Identifier: BSD-3-Clause
// A field has two letters, its length, a version and data. An area goes on elsewhere where a CE
// field says so; no sound image has two areas in the same place, so that all of them together are
// no longer than the disk.
#include "fsgen/disk/iso_system_use.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <string_view>

#include "support/byte_order.h"

namespace mkvirtfs::disk {
namespace {

using Bytes = std::span<const std::byte>;

constexpr std::size_t kHeaderBytes = 4;
constexpr std::size_t kSharingBytes = 7;
constexpr std::size_t kShortTimeBytes = 7;
constexpr std::size_t kLongTimeBytes = 17;
constexpr std::uint32_t kMostContinuationBytes = 65536;
// Linux gives up after 32.
constexpr int kMostContinuations = 256;

constexpr unsigned kCreationTime = 0x01;
constexpr unsigned kModificationTime = 0x02;
constexpr unsigned kLongTimes = 0x80;

// Of SL's components.
constexpr unsigned kContinues = 0x01;
constexpr unsigned kCurrent = 0x02;
constexpr unsigned kParent = 0x04;
constexpr unsigned kRoot = 0x08;

unsigned u8(Bytes bytes, std::size_t at) { return std::to_integer<unsigned>(bytes[at]); }

std::string_view text_of(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::optional<Timestamp> time_of(int year, unsigned month, unsigned day, unsigned hour,
                                 unsigned minute, unsigned second, unsigned quarters) {
  using namespace std::chrono;
  const year_month_day date{std::chrono::year{year}, std::chrono::month{month},
                            std::chrono::day{day}};
  // Quarters of an hour east of UTC, from -48 to 52.
  const auto east = static_cast<std::int8_t>(quarters);
  if (!date.ok() || hour > 23 || minute > 59 || second > 59 || east < -48 || east > 52) {
    return std::nullopt;
  }
  const auto since = sys_days(date).time_since_epoch() + hours(hour) + minutes(minute) -
                     minutes(15 * std::int64_t{east});
  return Timestamp{duration_cast<seconds>(since).count() + second, 0};
}

/// ECMA-119, 8.4.26.1: digits up to hundredths of a second.
std::optional<Timestamp> long_time(Bytes bytes) {
  std::array<int, 16> digits{};
  for (std::size_t i = 0; i < digits.size(); ++i) {
    const unsigned c = u8(bytes, i);
    if (c < '0' || c > '9') return std::nullopt;
    digits[i] = static_cast<int>(c - '0');
  }
  const auto pair = [&](std::size_t at) {
    return static_cast<unsigned>(digits[at] * 10 + digits[at + 1]);
  };
  std::optional<Timestamp> made = time_of(static_cast<int>(pair(0) * 100 + pair(2)), pair(4),
                                          pair(6), pair(8), pair(10), pair(12), u8(bytes, 16));
  if (made) made->nanoseconds = pair(14) * 10'000'000;
  return made;
}

void take_attributes(Bytes field, RockRidge& made) {
  if (field.size() < 36) return;
  RockRidge::Attributes attributes;
  attributes.mode = load_le<std::uint32_t>(field, 4);
  attributes.link_count = load_le<std::uint32_t>(field, 12);
  attributes.uid = load_le<std::uint32_t>(field, 20);
  attributes.gid = load_le<std::uint32_t>(field, 28);
  if (field.size() >= 44) attributes.serial = load_le<std::uint32_t>(field, 36);
  made.attributes = attributes;
}

void take_times(Bytes field, RockRidge& made) {
  if (field.size() < 5) return;
  const unsigned flags = u8(field, 4);
  if ((flags & kModificationTime) == 0) return;
  const bool is_long = (flags & kLongTimes) != 0;
  const std::size_t length = is_long ? kLongTimeBytes : kShortTimeBytes;
  const std::size_t at = 5 + ((flags & kCreationTime) != 0 ? length : 0);
  const bool is_there = field.size() >= at + length;
  if (is_there) {
    const Bytes bytes = field.subspan(at, length);
    made.mtime = is_long ? long_time(bytes) : iso_time(bytes);
  }
  if (!made.mtime && made.wrong.empty()) made.wrong = "its modification time is none";
}

/// Two words: genisoimage has the major number in the first and the minor one in the second, and so
/// have we where Linux wants it; xorriso has the C library's dev_t in the second, which Linux takes
/// as long as the minor number has 8 bits.
void take_device(Bytes field, RockRidge& made) {
  if (field.size() < 20) return;
  const auto high = load_le<std::uint32_t>(field, 4);
  const auto low = load_le<std::uint32_t>(field, 12);
  made.device = high != 0 ? DeviceNumber{high, low}
                          : DeviceNumber{low >> 8 & 0xfff, (low & 0xff) | (low >> 12 & 0xfff00)};
}

/// The components of one SL. True: another one comes behind a slash.
bool take_target(Bytes field, std::string& target, bool needs_slash) {
  for (std::size_t at = 5; at + 2 <= field.size();) {
    const unsigned flags = u8(field, at);
    const std::size_t length = std::min<std::size_t>(u8(field, at + 1), field.size() - at - 2);
    if (needs_slash) target += '/';
    if ((flags & kCurrent) != 0) {
      target += '.';
    } else if ((flags & kParent) != 0) {
      target += "..";
    } else if ((flags & kRoot) != 0) {
      target += '/';
    } else {
      target += text_of(field.subspan(at + 2, length));
    }
    needs_slash = (flags & (kContinues | kRoot)) == 0;
    at += 2 + length;
  }
  return needs_slash;
}

}  // namespace

std::optional<Timestamp> iso_time(Bytes bytes) {
  if (std::ranges::all_of(bytes.first(6), [](std::byte each) { return each == std::byte{0}; })) {
    return Timestamp{};
  }
  return time_of(1900 + static_cast<int>(u8(bytes, 0)), u8(bytes, 1), u8(bytes, 2), u8(bytes, 3),
                 u8(bytes, 4), u8(bytes, 5), u8(bytes, 6));
}

Result<RockRidge> SystemUseReader::start(Bytes area) {
  if (area.size() < kSharingBytes || text_of(area.first(2)) != "SP") return RockRidge();
  is_there_ = true;
  const Result<RockRidge> made = read_all(area.subspan(kSharingBytes));
  skip_ = u8(area, 6);
  return made;
}

Result<RockRidge> SystemUseReader::read(Bytes area) {
  if (!is_there_) return RockRidge();
  return read_all(area.subspan(std::min(skip_, area.size())));
}

Result<RockRidge> SystemUseReader::read_all(Bytes area) {
  RockRidge made;
  more_target_ = false;
  for (int i = 0; i < kMostContinuations; ++i) {
    const std::optional<Continuation> next = take_fields(area, made);
    if (!next) return made;
    const auto wrong = [&](const char* what) {
      if (made.wrong.empty()) made.wrong = what;
      return made;
    };
    if (next->size_bytes > kMostContinuationBytes || !disk_.holds(next->offset, next->size_bytes)) {
      return wrong("its system use area goes on behind the end of the disk");
    }
    continued_bytes_ += next->size_bytes;
    if (continued_bytes_ > disk_.size_bytes()) {
      return wrong("its system use area goes on where others do");
    }
    buffer_.resize(next->size_bytes);
    if (Result<void> good = disk_.read(next->offset, buffer_); !good) return propagate(good);
    area = buffer_;
  }
  if (made.wrong.empty()) made.wrong = "its system use area has no end";
  return made;
}

std::optional<SystemUseReader::Continuation> SystemUseReader::take_fields(Bytes area,
                                                                          RockRidge& made) {
  std::optional<Continuation> next;
  for (std::size_t at = 0; area.size() - at >= kHeaderBytes;) {
    const std::size_t length = u8(area, at + 2);
    if (length < kHeaderBytes || length > area.size() - at) break;  // padding
    const Bytes field = area.subspan(at, length);
    at += length;
    const std::string_view signature = text_of(field.first(2));
    if (signature == "ST") break;
    if (signature == "CE" && length >= 28) {
      next = Continuation{
          load_le<std::uint32_t>(field, 4) * block_bytes_ + load_le<std::uint32_t>(field, 12),
          load_le<std::uint32_t>(field, 20)};
    } else {
      take_field(field, made);
    }
  }
  return next;
}

void SystemUseReader::take_field(Bytes field, RockRidge& made) {
  const std::string_view signature = text_of(field.first(2));
  bool is_known = true;
  if (signature == "PX") {
    take_attributes(field, made);
  } else if (signature == "NM" && field.size() >= 5) {
    // "." and "..", which some writers have, and the host's name.
    constexpr unsigned kOther = 0x26;
    if ((u8(field, 4) & kOther) == 0) {
      if (!made.name) made.name.emplace();
      *made.name += text_of(field.subspan(5));
    }
  } else if (signature == "SL" && field.size() >= 5) {
    if (!made.target) made.target.emplace();
    more_target_ = take_target(field, *made.target, more_target_);
  } else if (signature == "TF") {
    take_times(field, made);
  } else if (signature == "PN") {
    take_device(field, made);
  } else if (signature == "CL" && field.size() >= 12) {
    made.child_block = load_le<std::uint32_t>(field, 4);
  } else if (signature == "RE") {
    made.is_relocated = true;
  } else {
    is_known = signature == "RR" || signature == "PL";
    if (signature == "ZF") made.packed_as = "it is compressed (zisofs)";
    if (signature == "SF") made.packed_as = "it is stored as a sparse file of Rock Ridge";
  }
  made.is_rock_ridge = made.is_rock_ridge || is_known;
}

}  // namespace mkvirtfs::disk
