// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>

#include "support/strong_integer.h"

// What the format says in numbers; docs/layout-erofs.md has where they stand.

namespace mkvirtfs::erofs {

/// A block of the volume.
using BlockNo = StrongInteger<struct BlockTag, std::uint32_t>;
/// What EROFS calls a nid: an inode's place, counted in slots from the start of the volume.
using SlotNo = StrongInteger<struct SlotTag, std::uint32_t>;

inline constexpr std::uint32_t kLeastBlockBytes = 512;
inline constexpr std::uint32_t kMostBlockBytes = 65536;
/// Block numbers have 32 bits, and the last one stands for a hole.
inline constexpr std::uint64_t kMostBlocks = 0xFFFFFFFF;

inline constexpr std::uint64_t kSuperblockAt = 1024;
inline constexpr std::uint32_t kSuperblockBytes = 128;
inline constexpr std::uint32_t kSlotBytes = 32;
inline constexpr std::uint32_t kCompactBytes = 32;
inline constexpr std::uint32_t kExtendedBytes = 64;
inline constexpr std::uint32_t kDirentBytes = 12;
inline constexpr std::uint32_t kChunkEntryBytes = 4;
inline constexpr std::uint32_t kXattrHeaderBytes = 12;
inline constexpr std::uint32_t kXattrEntryBytes = 4;
inline constexpr std::size_t kLabelBytes = 16;  ///< one of them is the end of the text

}  // namespace mkvirtfs::erofs
