// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <vector>

namespace mkvirtfs {

/// A program that has nothing of this process but what it is given: no other descriptor, no
/// blocked or ignored signal, and a process group of its own, so that what a terminal's keys mean
/// is for this process to decide. Killed and waited for when it goes out of scope. One thread at a
/// time.
class ChildProcess {
 public:
  struct Setup {
    std::vector<std::string> words;  ///< its path, then its arguments
    // -1: /dev/null.
    int input = -1;
    int output = -1;
    int messages = -1;
    /// "LC_ALL=C"; unset: that of this process.
    std::optional<std::vector<std::string>> environment{};
  };

  ChildProcess() = default;
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  /// Once. Returns an errno or 0.
  int start(const Setup& setup);
  /// How it ended, as of waitpid(); nullopt: not in that time. Nothing is running afterwards when
  /// it has ended. `most` may be 0.
  std::optional<int> wait(std::chrono::milliseconds most) noexcept;
  /// Gives it `grace` to end by itself, then kills it; how it ended.
  int end(std::chrono::milliseconds grace) noexcept;

 private:
  pid_t pid_ = -1;
};

}  // namespace mkvirtfs
