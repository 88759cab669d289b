// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <utility>

#include "support/error.h"
#include "support/unique_fd.h"

namespace mkvirtfs::net {

/// What ends a poll: an eventfd. notify() is safe in signal handlers and from any thread.
class Wakeup {
 public:
  static Result<Wakeup> create() {
    UniqueFd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!fd) return fail_errno(errno, "make an eventfd");
    return Wakeup(std::move(fd));
  }

  int fd() const noexcept { return fd_.get(); }
  void notify() const noexcept {
    const int kept = errno;
    const std::uint64_t one = 1;
    // It can only fail when the counter is full, and then there is a wakeup already.
    [[maybe_unused]] const ssize_t written = ::write(fd_.get(), &one, sizeof one);
    errno = kept;
  }
  void clear() const noexcept {
    eventfd_t count;
    ::eventfd_read(fd_.get(), &count);  // it never waits, and fails when there is nothing to clear
  }

 private:
  explicit Wakeup(UniqueFd fd) : fd_(std::move(fd)) {}

  UniqueFd fd_;
};

}  // namespace mkvirtfs::net
