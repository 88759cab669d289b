// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sys/types.h>
#include <sys/vfs.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace mkvirtfs {

/// The system calls that read files, and those that change files and their names, so that tests can
/// record them, count them, delay them and let them fail. Each makes one call and returns its
/// result; errno says why it failed. Any method, any thread.
class FileOperations {
 public:
  virtual ~FileOperations() = default;

  /// The host's own.
  static FileOperations& host() noexcept;

  virtual ssize_t pread(int fd, std::span<std::byte> out, std::uint64_t offset);
  /// preadv2() with RWF_NOWAIT.
  virtual ssize_t pread_nowait(int fd, std::span<std::byte> out, std::uint64_t offset);
  virtual int fstatfs(int fd, struct statfs& status);

  virtual ssize_t pwrite(int fd, std::span<const std::byte> bytes, std::uint64_t offset);
  virtual int fallocate(int fd, int mode, std::uint64_t offset, std::uint64_t length);
  virtual int ftruncate(int fd, std::uint64_t length);
  virtual int fdatasync(int fd);

  /// Opens a file that is made, for its owner alone, if it is not there.
  virtual int create(const std::string& path, int flags);
  virtual int link(const std::string& from, const std::string& to);
  virtual int rename(const std::string& from, const std::string& to);
  virtual int unlink(const std::string& path);
  /// Brings the names in a directory to the disk.
  virtual int sync_directory(const std::string& path);
};

}  // namespace mkvirtfs
