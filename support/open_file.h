// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <cstddef>
#include <span>
#include <string>
#include <utility>

#include "support/error.h"
#include "support/log.h"
#include "support/unique_fd.h"

// Opening what somebody named. Nothing here waits for the other end of a pipe unless its caller
// documents a pipe, and then not in silence.

namespace mkvirtfs {

/// Opens a regular file with open(2)'s `flags` (O_CLOEXEC, O_NOCTTY and O_NONBLOCK are added) and
/// `mode`. Never waits. `what` is for the message: "read keys/server.pem".
/// Errors: that of open(2), with its errno; Errc::usage for what is no regular file.
Result<UniqueFd> open_regular_file(const std::string& path, int flags, const std::string& what,
                                   unsigned mode = 0);

/// How the other end of a pipe is waited for: after a second without it one line says so.
struct PipeWait {
  LogSink* log = &null_log();
  /// Set from anywhere, even a signal handler: the wait ends with ECANCELED. None: nothing but a
  /// signal that ends the process does.
  const std::atomic<bool>* cancel = nullptr;
};

/// Reads, from front to end, what may be a pipe or a terminal. One thread.
class PipeReader {
 public:
  /// Opens any kind of file; does not wait.
  static Result<PipeReader> open(const std::string& path, const PipeWait& wait);
  /// Reads a descriptor that it does not own. `name` is for messages: "standard input".
  PipeReader(int fd, std::string name, const PipeWait& wait)
      : fd_(fd), name_(std::move(name)), wait_(wait) {}

  /// Some bytes, as soon as there are any; 0 at the end, which for a FIFO is when its last writer
  /// closes it. Errors: Errc::unreadable.
  Result<std::size_t> read(std::span<std::byte> out);

  int fd() const noexcept { return fd_; }
  const std::string& name() const noexcept { return name_; }

 private:
  Result<void> wait_for_bytes();

  UniqueFd owned_;
  int fd_;
  std::string name_;
  PipeWait wait_;
  bool was_told_ = false;
};

/// Opens a FIFO or a character device for writing; waits until a FIFO has a reader.
Result<UniqueFd> open_pipe_to_write(const std::string& path, const PipeWait& wait);

}  // namespace mkvirtfs
