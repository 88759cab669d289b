// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>

// The kernel's own bounds: limits.h (NAME_MAX, PATH_MAX, XATTR_NAME_MAX, XATTR_SIZE_MAX) and dev_t.

namespace mkvirtfs {

inline constexpr std::size_t kMostNameBytes = 255;
inline constexpr std::size_t kMostTargetBytes = 4095;  ///< of a symlink
inline constexpr std::size_t kMostXattrNameBytes = 255;
inline constexpr std::size_t kMostXattrValueBytes = 65536;
inline constexpr std::uint32_t kMostMajor = (1u << 12) - 1;
inline constexpr std::uint32_t kMostMinor = (1u << 20) - 1;

}  // namespace mkvirtfs
