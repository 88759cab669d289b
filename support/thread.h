// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <signal.h>

#include <string_view>
#include <thread>
#include <utility>

#include "support/error.h"
#include "support/message.h"

namespace mkvirtfs {

/// Blocks asynchronous signals in this thread, and in the threads that it starts, while it lives.
/// Signals that report a fault of the thread itself stay as they are.
class SignalsBlocked {
 public:
  SignalsBlocked() noexcept;
  ~SignalsBlocked();
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

/// Runs `body`, which must not throw, on a new thread. The thread blocks all asynchronous signals,
/// so that the program's own handlers see them, and SIGPIPE. `doing` is the beginning of the error:
/// "watch for signals: start a thread".
///
/// This is the only place where the library and the program start a thread. Errors: Errc::io, with
/// EAGAIN when the host gives us no more threads.
template <class Body>
Result<std::thread> start_thread(std::string_view doing, Body body) {
  try {
    const SignalsBlocked blocked;
    return std::thread(std::move(body));
  } catch (...) {  // std::system_error, std::bad_alloc
    return std::unexpected(error_of_exception(doing));
  }
}

}  // namespace mkvirtfs
