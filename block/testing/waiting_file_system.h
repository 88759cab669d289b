// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <linux/magic.h>
#include <sys/vfs.h>

#include <cerrno>
#include <cstdint>
#include <span>

#include "block/file_operations.h"

namespace mkvirtfs::testing {

/// A file system like FUSE: it has no RWF_NOWAIT, so any call may wait.
class WaitingFileSystem : public FileOperations {
 public:
  ssize_t pread_nowait(int, std::span<std::byte>, std::uint64_t) override {
    errno = EOPNOTSUPP;
    return -1;
  }
  int fstatfs(int, struct statfs& status) override {
    status = {};
    status.f_type = FUSE_SUPER_MAGIC;
    return 0;
  }
};

}  // namespace mkvirtfs::testing
