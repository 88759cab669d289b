// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <variant>

namespace mkvirtfs {

/// Free space to leave in an image: a number of bytes, or a percentage of what the files need.
struct FreeBytes {
  std::uint64_t bytes = 0;
};
struct FreePercent {
  std::uint32_t percent = 0;
};
using FreeSpace = std::variant<FreeBytes, FreePercent>;

}  // namespace mkvirtfs
