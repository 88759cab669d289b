// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <span>

namespace mkvirtfs {

/// The system calls that change a file, so that tests can record them, count them and let them
/// fail. Each does one call and tells its result; errno says why it failed. Any method, any thread.
class FileOperations {
 public:
  virtual ~FileOperations() = default;

  /// The host's own.
  static FileOperations& host() noexcept;

  virtual ssize_t pwrite(int fd, std::span<const std::byte> bytes, std::uint64_t offset);
  virtual int fallocate(int fd, int mode, std::uint64_t offset, std::uint64_t length);
  virtual int fdatasync(int fd);
};

}  // namespace mkvirtfs
