// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "support/arithmetic.h"
#include "support/strong_integer.h"

namespace mkvirtfs::iso9660 {

inline constexpr std::uint32_t kBlockBytes = 2048;

/// A logical block of the volume.
using BlockNo = StrongInteger<struct BlockTag, std::uint32_t>;
/// A directory record of a hierarchy, counted over all directories in their order.
using RecordNo = StrongInteger<struct RecordTag, std::uint32_t>;

/// Blocks for so many bytes.
constexpr std::uint64_t blocks_for(std::uint64_t bytes) noexcept {
  return ceil_div<std::uint64_t>(bytes, kBlockBytes);
}

/// A number that is known to fit 32 bits, as that of a block.
constexpr BlockNo block_no(std::uint64_t number) noexcept {
  return BlockNo{narrow<std::uint32_t>(number)};
}

}  // namespace mkvirtfs::iso9660
