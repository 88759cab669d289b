// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <cstdint>

#include "fsgen/tree/source_tree.h"

namespace mkvirtfs::ext2 {

/// A time stamp as an inode holds it: 32 bits of seconds, and in 256-byte inodes an extra word of
/// nanoseconds (30 bits) and two more bits of seconds.
struct InodeTime {
  std::uint32_t seconds = 0;
  std::uint32_t extra = 0;
};

inline constexpr std::int64_t kOldestInodeSecond = -(std::int64_t{1} << 31);          // 1901-12-13
inline constexpr std::int64_t kNewestSmallInodeSecond = (std::int64_t{1} << 31) - 1;  // 2038-01-19
inline constexpr std::int64_t kNewestInodeSecond =
    kNewestSmallInodeSecond + 3 * (std::int64_t{1} << 32);  // 2446-05-10
/// e2fsck takes the encodings of these 68 years (2310-04-04 on) for a mistake that old kernels made
/// with times before 1970, and so we cannot use them.
inline constexpr std::int64_t kFirstMistrustedSecond =
    kOldestInodeSecond + 3 * (std::int64_t{1} << 32);
inline constexpr std::int64_t kLastMistrustedSecond =
    kFirstMistrustedSecond + (std::int64_t{1} << 31) - 1;

/// For 256-byte inodes. Times that cannot be said become the nearest that can.
constexpr InodeTime to_inode_time(Timestamp time) noexcept {
  constexpr std::uint32_t kLastNanosecond = 999'999'999;
  if (time.seconds < kOldestInodeSecond) time = {kOldestInodeSecond, 0};
  if (time.seconds > kNewestInodeSecond) time = {kNewestInodeSecond, kLastNanosecond};
  if (time.seconds >= kFirstMistrustedSecond && time.seconds <= kLastMistrustedSecond) {
    time = {kFirstMistrustedSecond - 1, kLastNanosecond};
  }
  const auto low = static_cast<std::uint32_t>(time.seconds);
  const std::int64_t epoch = (time.seconds - static_cast<std::int32_t>(low)) >> 32;
  return {low, (time.nanoseconds << 2) | static_cast<std::uint32_t>(epoch & 3)};
}

/// For 128-byte inodes, which end in 2038 and have no nanoseconds.
constexpr InodeTime to_small_inode_time(Timestamp time) noexcept {
  return {static_cast<std::uint32_t>(
              std::clamp(time.seconds, kOldestInodeSecond, kNewestSmallInodeSecond)),
          0};
}

}  // namespace mkvirtfs::ext2
