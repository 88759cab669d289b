// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>

#include "support/error.h"
#include "support/unique_fd.h"

namespace mkvirtfs::cli {

/// A file with this process's id in it, locked (flock(2)) as long as the object lives and removed
/// with it, unless something else has its name by then.
class PidFile {
 public:
  /// Makes the file, or takes over one whose process has ended. Refuses the file of a process that
  /// lives, and whatever is no regular file with one name and at most a process id in it: a
  /// symbolic link is not followed, and nobody's data are overwritten.
  static Result<PidFile> create(const std::string& path);
  PidFile(PidFile&& other) noexcept;
  PidFile& operator=(PidFile&&) = delete;
  ~PidFile();

 private:
  PidFile(std::string path, UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}

  std::string path_;  // empty when moved from
  UniqueFd fd_;       // holds the lock
};

}  // namespace mkvirtfs::cli
