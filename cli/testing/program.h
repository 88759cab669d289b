// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "support/unique_fd.h"

namespace mkvirtfs::cli::testing {

/// What the program answered.
struct Outcome {
  int status = 0;  // exit status; 128 + signal if it died of one
  std::string out;
  std::string err;
};

/// cli::run() with these arguments behind "mkvirtfs", in this process.
Outcome run_here(const std::vector<std::string>& arguments);

/// The built program as a process of its own, with `variables` added to the environment. Killed if
/// it still runs when the object goes.
class Process {
 public:
  using Variables = std::vector<std::pair<std::string, std::string>>;

  explicit Process(const std::vector<std::string>& arguments, const Variables& variables = {});
  /// Any program, found in PATH.
  static Process of(const std::vector<std::string>& words, const Variables& variables = {});
  Process(Process&&) noexcept;
  ~Process();

  pid_t pid() const noexcept { return pid_; }
  void send(int signal);
  /// The next line of its standard output, without the line end; throws when there is none within
  /// 20 seconds.
  std::string read_line();
  /// Waits for the end, at most 60 seconds, and collects all output that was not read.
  Outcome finish();

 private:
  Process() = default;
  void start(const std::vector<std::string>& words, const Variables& variables);

  pid_t pid_ = -1;
  UniqueFd out_;
  UniqueFd err_;  // a memory file: it cannot fill up and block the program
  std::string unread_;
};

}  // namespace mkvirtfs::cli::testing
