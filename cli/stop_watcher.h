// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <signal.h>

#include <chrono>
#include <functional>
#include <initializer_list>
#include <optional>
#include <thread>

#include "support/error.h"
#include "support/unique_fd.h"

namespace mkvirtfs::cli {

/// Keeps signals from ending the process while it lives, so that code that stops cleanly can
/// watch for them. Threads that are started meanwhile inherit this.
class BlockedSignals {
 public:
  explicit BlockedSignals(std::initializer_list<int> signals = {SIGTERM, SIGINT, SIGHUP, SIGUSR1});
  ~BlockedSignals();
  BlockedSignals(const BlockedSignals&) = delete;
  BlockedSignals& operator=(const BlockedSignals&) = delete;

  const sigset_t& set() const noexcept { return set_; }

 private:
  sigset_t set_;
  sigset_t before_;
};

/// A thread that waits for the blocked signals, and for the end of a child.
class StopWatcher {
 public:
  struct Reactions {
    /// Each time. When it gives a time, on_overdue is called so much later, unless the watcher has
    /// ended by then.
    std::function<std::optional<std::chrono::milliseconds>(int signal)> on_signal;
    std::function<void()> on_child_end;  ///< once
    std::function<void()> on_overdue;
  };

  /// `child_fd` is a Child's poll_fd(), or -1. The reactions run on the watcher's thread.
  static Result<StopWatcher> start(const BlockedSignals& signals, int child_fd,
                                   Reactions reactions);
  StopWatcher(StopWatcher&&) noexcept = default;
  StopWatcher& operator=(StopWatcher&&) = delete;
  /// Ends the thread.
  ~StopWatcher();

 private:
  StopWatcher() = default;

  UniqueFd end_;  // an eventfd; readable: the thread is to end
  std::thread thread_;
};

}  // namespace mkvirtfs::cli
