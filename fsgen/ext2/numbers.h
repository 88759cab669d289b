// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "support/strong_integer.h"

namespace mkvirtfs::ext2 {

/// A block of the file system.
using BlockNo = StrongInteger<struct BlockTag, std::uint64_t>;
/// A block group.
using GroupNo = StrongInteger<struct GroupTag, std::uint32_t>;
/// An inode as ext counts them: from 1.
using InodeNo = StrongInteger<struct InodeTag, std::uint32_t>;
/// The n-th block that no fixed metadata takes. Everything that is placed lies at consecutive
/// SpaceNos; where group metadata stands in between, the BlockNos jump over it.
using SpaceNo = StrongInteger<struct SpaceTag, std::uint64_t>;

}  // namespace mkvirtfs::ext2
