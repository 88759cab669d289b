// SPDX-License-Identifier: BSD-3-Clause
#include "cli/stop_watcher.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <optional>
#include <utility>

#include "support/thread.h"

namespace mkvirtfs::cli {
namespace {

/// Statistics need memory, and none is no reason to end: to stop needs none.
std::optional<std::chrono::milliseconds> react(const StopWatcher::Reactions& reactions,
                                               int signal) noexcept {
  try {
    return reactions.on_signal(signal);
  } catch (...) {
    return std::nullopt;
  }
}

void watch(const UniqueFd& signals, int child_fd, int end_fd,
           const StopWatcher::Reactions& reactions) {
  using Clock = std::chrono::steady_clock;
  std::optional<Clock::time_point> overdue_at;
  std::array<pollfd, 3> sources = {pollfd{end_fd, POLLIN, 0}, pollfd{signals.get(), POLLIN, 0},
                                   pollfd{child_fd, POLLIN, 0}};  // -1 is never ready
  while (true) {
    int timeout_ms = -1;
    if (overdue_at) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(*overdue_at - Clock::now());
      timeout_ms = static_cast<int>(std::max<std::int64_t>(left.count(), 0));
    }
    if (::poll(sources.data(), sources.size(), timeout_ms) < 0) continue;  // EINTR
    if (sources[0].revents != 0) return;
    if (overdue_at && Clock::now() >= *overdue_at) {
      overdue_at.reset();
      reactions.on_overdue();
    }
    if (sources[1].revents != 0) {
      signalfd_siginfo signal{};
      if (::read(signals.get(), &signal, sizeof signal) == sizeof signal) {
        const auto limit = react(reactions, static_cast<int>(signal.ssi_signo));
        if (limit && !overdue_at) overdue_at = Clock::now() + *limit;
      }
    }
    if (sources[2].revents != 0) {
      sources[2].fd = -1;
      reactions.on_child_end();
    }
  }
}

}  // namespace

BlockedSignals::BlockedSignals(std::initializer_list<int> signals) {
  ::sigemptyset(&set_);
  for (const int signal : signals) ::sigaddset(&set_, signal);
  ::pthread_sigmask(SIG_BLOCK, &set_, &before_);
}

BlockedSignals::~BlockedSignals() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

Result<StopWatcher> StopWatcher::start(const BlockedSignals& signals, int child_fd,
                                       Reactions reactions) {
  StopWatcher watcher;
  UniqueFd signal_fd(::signalfd(-1, &signals.set(), SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signal_fd) return fail_errno(errno, "watch for signals");
  watcher.end_.reset(::eventfd(0, EFD_CLOEXEC));
  if (!watcher.end_) return fail_errno(errno, "make an eventfd");
  Result<std::thread> thread = start_thread(
      "watch for signals",
      [signal_fd = std::move(signal_fd), child_fd, end_fd = watcher.end_.get(),
       reactions = std::move(reactions)] { watch(signal_fd, child_fd, end_fd, reactions); });
  if (!thread) return propagate(thread);
  watcher.thread_ = std::move(*thread);
  return watcher;
}

StopWatcher::~StopWatcher() {
  if (!thread_.joinable()) return;
  const std::uint64_t one = 1;
  while (::write(end_.get(), &one, sizeof one) < 0 && errno == EINTR) {
  }
  thread_.join();
}

}  // namespace mkvirtfs::cli
