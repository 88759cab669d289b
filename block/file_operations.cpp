// SPDX-License-Identifier: BSD-3-Clause
#include "block/file_operations.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "support/unique_fd.h"

namespace mkvirtfs {

FileOperations& FileOperations::host() noexcept {
  static FileOperations operations;
  return operations;
}

ssize_t FileOperations::pread(int fd, std::span<std::byte> out, std::uint64_t offset) {
  return ::pread(fd, out.data(), out.size(), static_cast<off_t>(offset));
}

ssize_t FileOperations::pread_nowait(int fd, std::span<std::byte> out, std::uint64_t offset) {
  const iovec into{out.data(), out.size()};
  return ::preadv2(fd, &into, 1, static_cast<off_t>(offset), RWF_NOWAIT);
}

int FileOperations::fstatfs(int fd, struct statfs& status) { return ::fstatfs(fd, &status); }

ssize_t FileOperations::pwrite(int fd, std::span<const std::byte> bytes, std::uint64_t offset) {
  return ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
}

int FileOperations::fallocate(int fd, int mode, std::uint64_t offset, std::uint64_t length) {
  return ::fallocate(fd, mode, static_cast<off_t>(offset), static_cast<off_t>(length));
}

int FileOperations::ftruncate(int fd, std::uint64_t length) {
  return ::ftruncate(fd, static_cast<off_t>(length));
}

int FileOperations::fdatasync(int fd) { return ::fdatasync(fd); }

int FileOperations::create(const std::string& path, int flags) {
  return ::open(path.c_str(), flags | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK,
                0600);
}

int FileOperations::link(const std::string& from, const std::string& to) {
  return ::link(from.c_str(), to.c_str());
}

int FileOperations::rename(const std::string& from, const std::string& to) {
  return ::rename(from.c_str(), to.c_str());
}

int FileOperations::unlink(const std::string& path) { return ::unlink(path.c_str()); }

int FileOperations::sync_directory(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return fd ? ::fsync(fd.get()) : -1;
}

}  // namespace mkvirtfs
