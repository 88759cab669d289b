// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "fsgen/ext2/numbers.h"

namespace mkvirtfs::ext2 {

/// A file that no directory names and the source does not have: a feature keeps something in it.
struct OwnFile {
  enum class What : std::uint8_t {
    user_quota,
    group_quota,
    project_quota,
    orphans,      ///< inodes that are to be deleted: none yet
    xattr_value,  ///< the value of an extended attribute that has no room elsewhere
  };
  What what{};
  InodeNo inode{};
  std::uint64_t size_bytes = 0;  ///< 0 of `orphans`: that goes by the size of the volume
  std::uint32_t number = 0;      ///< `xattr_value`: which of Xattrs' values
};

}  // namespace mkvirtfs::ext2
