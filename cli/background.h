// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <optional>
#include <string_view>
#include <utility>

#include "cli/streams.h"
#include "support/error.h"
#include "support/unique_fd.h"

namespace mkvirtfs::cli {

/// A process that goes on in the background when it is ready, while the command that the shell
/// waits for ends.
class Background {
 public:
  struct Side;

  /// Divides this process in two; it must not have threads. In the command the call returns when
  /// the other process is ready or has ended, whose exit status it has then.
  static Result<Side> divide(const Streams& streams);

  /// Whether the process that goes on keeps its standard error.
  static bool keeps(int standard_error);

  /// Lets the command print `text` and "pid N" and end with 0. This process leaves the terminal;
  /// standard output, standard error unless it is a file, and with `wants_no_input` standard input
  /// become /dev/null. Errc::io when the command has ended before: nobody knows of this process.
  Result<void> ready(std::string_view text, bool wants_no_input) const;

 private:
  explicit Background(UniqueFd command) : command_(std::move(command)) {}
  UniqueFd command_;
};

/// What is left to do in one of the two processes.
struct Background::Side {
  /// In the command: its exit status. Nothing in the process that goes on.
  std::optional<int> status;
  /// Of the process that goes on.
  std::optional<Background> background;
};

}  // namespace mkvirtfs::cli
