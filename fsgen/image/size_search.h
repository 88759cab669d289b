// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>

#include "fsgen/image/free_space.h"
#include "support/error.h"

namespace mkvirtfs {

/// Images without a given size are whole MiB.
inline constexpr std::uint64_t kRoundSizeBytes = std::uint64_t{1} << 20;
/// What is left free when nothing was asked for: the larger of this and 10 %.
inline constexpr std::uint64_t kLeastDefaultFreeBytes = std::uint64_t{64} << 20;

/// How many units (blocks, clusters) of `unit_bytes` are to be left free beside `used_units`.
/// Without a wish: 10 %, and `least_default_bytes` at least.
std::uint64_t free_units(const std::optional<FreeSpace>& wish, std::uint64_t used_units,
                         std::uint32_t unit_bytes,
                         std::uint64_t least_default_bytes = kLeastDefaultFreeBytes);

/// The smallest number above `fails` and up to `fits` for which `holds`, which is known not to hold
/// for `fails` and to hold for `fits`, and which holds above any number for which it does.
template <class Number, class Holds>
Number smallest_that_holds(Number fails, Number fits, Holds&& holds) {
  while (fits - fails > 1) {
    const Number middle = fails + (fits - fails) / 2;
    (holds(middle) ? fits : fails) = middle;
  }
  return fits;
}

/// Why a format refuses both options.
inline constexpr const char* kFreeOfGivenSize =
    "an image of a given size has as much free space as is left";

/// A given size that is less than what the contents need.
std::unexpected<Error> size_too_small(std::uint64_t size_bytes, std::uint64_t smallest_bytes);

}  // namespace mkvirtfs
