// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>

namespace mkvirtfs::net {

/// Decides whether a connection's next request is worth looking out for without sleeping: a client
/// that asks one thing at a time comes back sooner than the kernel can wake a thread, most of all
/// in a virtual machine, where an idle processor must be fetched back from the host.
///
/// It looks out only while the client's last requests came that soon, while few other threads of
/// the process do, and while no other thread wants the processor. Belongs to one thread.
class EagerWait {
 public:
  using Clock = std::chrono::steady_clock;

  /// Half of the processors stay free of such threads.
  static int most_at_once() noexcept;

  /// Calls `try_once() -> bool`, without waiting in it, until it has succeeded or looking out does
  /// not pay. True when it has succeeded.
  template <class TryOnce>
  bool look_out(TryOnce&& try_once) {
    if (!begin()) return false;
    bool found = false;
    do {
      found = try_once();
    } while (!found && goes_on());
    end();
    return found;
  }

  /// A sleep is begun, and ended when what was waited for came.
  void sleep_begins() noexcept { began_ = Clock::now(); }
  void sleep_ended() noexcept;

 private:
  bool begin() noexcept;
  bool goes_on() noexcept;
  void end() noexcept;

  Clock::time_point began_;
  Clock::time_point last_;
  int trust_ = 0;  // grows with each wait that was short
};

}  // namespace mkvirtfs::net
