// SPDX-License-Identifier: BSD-3-Clause
#include "block/file_operations.h"

#include <fcntl.h>
#include <unistd.h>

namespace mkvirtfs {

FileOperations& FileOperations::host() noexcept {
  static FileOperations operations;
  return operations;
}

ssize_t FileOperations::pwrite(int fd, std::span<const std::byte> bytes, std::uint64_t offset) {
  return ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
}

int FileOperations::fallocate(int fd, int mode, std::uint64_t offset, std::uint64_t length) {
  return ::fallocate(fd, mode, static_cast<off_t>(offset), static_cast<off_t>(length));
}

int FileOperations::fdatasync(int fd) { return ::fdatasync(fd); }

}  // namespace mkvirtfs
