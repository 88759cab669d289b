// SPDX-License-Identifier: BSD-3-Clause
#include "cli/pid_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <boost/filesystem/operations.hpp>
#include <cerrno>
#include <utility>

#include "cli/streams.h"
#include "support/unique_fd.h"

namespace mkvirtfs::cli {

Result<PidFile> PidFile::create(const std::string& path) {
  constexpr mode_t kReadableByAll = 0644;
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, kReadableByAll));
  if (!fd) return fail_errno(errno, fmt::format("write {}", path));
  // Absolute, so that it is found again wherever the program may go.
  PidFile file(boost::filesystem::absolute(path).string());
  if (!print(fd.get(), fmt::format("{}\n", ::getpid()))) {
    return fail_errno(errno, fmt::format("write {}", path));
  }
  return file;
}

PidFile::PidFile(PidFile&& other) noexcept : path_(std::exchange(other.path_, {})) {}

PidFile::~PidFile() {
  if (!path_.empty()) ::unlink(path_.c_str());
}

}  // namespace mkvirtfs::cli
