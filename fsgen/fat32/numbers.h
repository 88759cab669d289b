// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "support/strong_integer.h"

namespace mkvirtfs::fat32 {

/// A cluster as the FAT has it: the first one is 2.
using ClusterNo = StrongInteger<struct ClusterTag, std::uint32_t>;
inline constexpr ClusterNo kFirstCluster{2};

/// A directory of the image, which is not the tree's number of it: a followed symlink to a
/// directory is one more.
using FatDirectoryNo = StrongInteger<struct DirectoryTag, std::uint32_t>;
inline constexpr FatDirectoryNo kFatRoot{0};

/// An entry of a directory of the image, counted over all directories.
using ItemNo = StrongInteger<struct ItemTag, std::uint32_t>;

/// A chain of clusters, as they stand: directories by their numbers, then items.
using ChainNo = StrongInteger<struct ChainTag, std::uint32_t>;

}  // namespace mkvirtfs::fat32
