// SPDX-License-Identifier: BSD-3-Clause
#include "support/open_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <string_view>

namespace mkvirtfs {
namespace {

using Clock = std::chrono::steady_clock;

/// How soon a wait that is cancelled ends, at the latest.
constexpr std::chrono::milliseconds kStep{50};
/// A wait that is shorter needs no line.
constexpr std::chrono::seconds kSilence{1};

std::string_view kind_of(mode_t mode) noexcept {
  switch (mode & S_IFMT) {
    case S_IFDIR:
      return "a directory";
    case S_IFIFO:
      return "a FIFO";
    case S_IFCHR:
      return "a character device";
    case S_IFBLK:
      return "a block device";
    case S_IFSOCK:
      return "a socket";
    default:
      return "something else";
  }
}

bool is_cancelled(const PipeWait& wait) noexcept { return wait.cancel != nullptr && *wait.cancel; }

std::unexpected<Error> cancelled(const std::string& name) {
  return std::unexpected(
      Error{Errc::io, ECANCELED, fmt::format("the wait for {} was cancelled", name)});
}

}  // namespace

Result<UniqueFd> open_regular_file(const std::string& path, int flags, const std::string& what,
                                   unsigned mode) {
  UniqueFd file(::open(path.c_str(), flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, mode));
  struct stat status{};
  if (!file) {
    const int error = errno;
    // A FIFO without a reader, a socket, a device without a driver: the errno says nothing of it.
    const bool is_other = error == ENXIO && ::stat(path.c_str(), &status) == 0;
    if (!is_other) return fail_errno(error, what);
  } else if (::fstat(file.get(), &status) != 0) {
    return fail_errno(errno, what);
  }
  if (S_ISREG(status.st_mode)) return file;
  return fail(Errc::usage,
              fmt::format("{}: it is not a regular file but {}", what, kind_of(status.st_mode)));
}

Result<PipeReader> PipeReader::open(const std::string& path, const PipeWait& wait) {
  UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (!file) return fail_errno(Errc::unreadable, errno, fmt::format("open {}", path));
  PipeReader reader(file.get(), path, wait);
  reader.owned_ = std::move(file);
  return reader;
}

Result<std::size_t> PipeReader::read(std::span<std::byte> out) {
  while (true) {
    if (Result<void> ready = wait_for_bytes(); !ready) return propagate(ready);
    const ssize_t count = ::read(fd_, out.data(), out.size());
    if (count >= 0) return static_cast<std::size_t>(count);
    if (errno == EINTR || errno == EAGAIN) continue;
    return fail_errno(Errc::unreadable, errno, fmt::format("read {}", name_));
  }
}

/// Until there is something to read: bytes, the end, or an error. A FIFO that had no writer yet is
/// none of these.
Result<void> PipeReader::wait_for_bytes() {
  const Clock::time_point start = Clock::now();
  while (true) {
    pollfd ready{fd_, POLLIN, 0};
    const int count = ::poll(&ready, 1, static_cast<int>(kStep.count()));
    if (count > 0) return {};
    if (is_cancelled(wait_)) return cancelled(name_);
    if (count < 0 && errno != EINTR) {
      return fail_errno(Errc::unreadable, errno, fmt::format("wait for {}", name_));
    }
    if (!was_told_ && Clock::now() - start >= kSilence) {
      was_told_ = true;
      wait_.log->write(LogLevel::info, fmt::format("waiting for {}: nobody writes to it", name_));
    }
  }
}

Result<UniqueFd> open_pipe_to_write(const std::string& path, const PipeWait& wait) {
  const Clock::time_point start = Clock::now();
  bool was_told = false;
  while (true) {
    UniqueFd file(::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
    struct stat status{};
    if (file) {
      const int flags = ::fcntl(file.get(), F_GETFL);
      if (flags < 0 || ::fcntl(file.get(), F_SETFL, flags & ~O_NONBLOCK) != 0) {
        return fail_errno(errno, fmt::format("open {}", path));
      }
      return file;
    }
    const int error = errno;
    const bool has_no_reader =
        error == ENXIO && ::stat(path.c_str(), &status) == 0 && S_ISFIFO(status.st_mode);
    if (!has_no_reader && error != EINTR) return fail_errno(error, fmt::format("open {}", path));
    if (is_cancelled(wait)) return cancelled(path);
    if (!was_told && Clock::now() - start >= kSilence) {
      was_told = true;
      wait.log->write(LogLevel::info, fmt::format("waiting for {}: nobody reads from it", path));
    }
    ::poll(nullptr, 0, static_cast<int>(kStep.count()));
  }
}

}  // namespace mkvirtfs
