// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "support/error.h"
#include "support/unique_fd.h"

namespace mkvirtfs::cli {

/// A shell command that runs beside us. Destroyed before it ended, it is killed. Not thread-safe,
/// but for poll_fd() and send().
class Child {
 public:
  /// Runs `command` by /bin/sh with our environment, `variables` added, and the signal dispositions
  /// that a fresh program has.
  static Result<Child> start(const std::string& command,
                             const std::vector<std::pair<std::string, std::string>>& variables);
  Child(Child&& other) noexcept;
  Child& operator=(Child&&) = delete;
  ~Child();

  /// Becomes readable when the command has ended.
  int poll_fd() const noexcept { return pid_fd_.get(); }
  void send(int signal) noexcept;
  /// Its exit status, or 128 and the signal that ended it; nullopt when it has not ended in time.
  std::optional<int> wait(std::chrono::milliseconds most);

 private:
  Child(pid_t pid, UniqueFd pid_fd) : pid_(pid), pid_fd_(std::move(pid_fd)) {}

  pid_t pid_ = -1;  // -1 when moved from or waited for
  UniqueFd pid_fd_;
};

}  // namespace mkvirtfs::cli
