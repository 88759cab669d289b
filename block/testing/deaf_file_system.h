// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sys/types.h>
#include <sys/vfs.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>

#include "block/file_operations.h"

namespace mkvirtfs::testing {

/// A file system that knows no RWF_NOWAIT, and is of the type that the test names.
class DeafFileSystem final : public FileOperations {
 public:
  explicit DeafFileSystem(long magic) : magic_(magic) {}

  ssize_t pread(int fd, std::span<std::byte> out, std::uint64_t offset) override {
    ++plain_reads;
    return FileOperations::pread(fd, out, offset);
  }
  ssize_t pread_nowait(int, std::span<std::byte>, std::uint64_t) override {
    ++nowait_reads;
    errno = EOPNOTSUPP;
    return -1;
  }
  int fstatfs(int, struct statfs& status) override {
    ++type_questions;
    status = {};
    status.f_type = magic_;
    return 0;
  }

  std::atomic<int> plain_reads = 0;
  std::atomic<int> nowait_reads = 0;
  std::atomic<int> type_questions = 0;

 private:
  const long magic_;
};

}  // namespace mkvirtfs::testing
