// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>

#include "support/error.h"
#include "support/unique_fd.h"

namespace mkvirtfs::cli {

/// Makes one socket of two pipes, so that a client who writes into one and reads from the other can
/// be served like any other: two threads have the kernel move bytes between the pipes and a socket
/// pair (splice(2)), and pass on the end of either direction.
class PipeBridge {
 public:
  /// `input` is read from and `output` written to; both may be open elsewhere, and their flags stay
  /// as they are.
  static Result<PipeBridge> start(UniqueFd input, UniqueFd output);
  PipeBridge(PipeBridge&&) noexcept;
  PipeBridge& operator=(PipeBridge&&) = delete;
  /// Gives the client some seconds to read what is still under way, and ends the threads.
  ~PipeBridge();

  /// The socket that stands for the client; once.
  UniqueFd take_socket();

 private:
  struct State;
  explicit PipeBridge(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace mkvirtfs::cli
