// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "fsgen/fat32/plan.h"
#include "fsgen/tree/source_tree.h"

namespace mkvirtfs::fat32 {

/// A moment as a directory entry has it (fatgen103, "Date and Time Formats").
struct DosTime {
  std::uint16_t date = 0;
  std::uint16_t time = 0;       ///< in steps of two seconds
  std::uint8_t hundredths = 0;  ///< 0..199: what `time` leaves, in 10 ms
  bool clamped = false;         ///< it was before 1980 or after 2107

  friend bool operator==(const DosTime&, const DosTime&) = default;
};

/// Any thread.
DosTime dos_time(Timestamp when, const TimeZone& zone) noexcept;

}  // namespace mkvirtfs::fat32
