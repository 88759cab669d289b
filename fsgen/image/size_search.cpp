// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/image/size_search.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <variant>

#include "support/arithmetic.h"
#include "support/text.h"

namespace mkvirtfs {
namespace {

constexpr std::uint64_t kDefaultFreePercent = 10;

/// Rounded down, and without an overflow.
std::uint64_t percent_of(std::uint64_t units, std::uint64_t percent) {
  return units / 100 * percent + units % 100 * percent / 100;
}

}  // namespace

std::uint64_t free_units(const std::optional<FreeSpace>& wish, std::uint64_t used_units,
                         std::uint32_t unit_bytes, std::uint64_t least_default_bytes) {
  if (!wish) {
    return std::max(percent_of(used_units, kDefaultFreePercent),
                    ceil_div<std::uint64_t>(least_default_bytes, unit_bytes));
  }
  if (const auto* given = std::get_if<FreePercent>(&*wish)) {
    return percent_of(used_units, given->percent);
  }
  return ceil_div<std::uint64_t>(std::get<FreeBytes>(*wish).bytes, unit_bytes);
}

std::unexpected<Error> size_too_small(std::uint64_t size_bytes, std::uint64_t smallest_bytes) {
  return std::unexpected(Error{Errc::does_not_fit,
                               0,
                               fmt::format("too small; the smallest size that fits is {} ({})",
                                           smallest_bytes, human_size(smallest_bytes)),
                               {"size", std::to_string(size_bytes)}});
}

}  // namespace mkvirtfs
