// SPDX-License-Identifier: BSD-3-Clause
#include "net/eager_wait.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <thread>

namespace mkvirtfs::net {
namespace {

using std::chrono::microseconds;

/// As long as a sleep and a wake-up cost in a virtual machine.
constexpr microseconds kLongestLookOut{50};
/// A sleep that ended so soon could have been spared: its own wake-up is in it.
constexpr microseconds kShortSleep{100};
/// A yield that takes longer gave the processor to a thread that needs it.
constexpr microseconds kLongYield{5};

constexpr int kEnoughTrust = 4;
constexpr int kMostTrust = 16;

std::atomic<int> looking_out = 0;

}  // namespace

int EagerWait::most_at_once() noexcept {
  static const int most = static_cast<int>(std::thread::hardware_concurrency() / 2);
  return most;
}

bool EagerWait::begin() noexcept {
  if (trust_ < kEnoughTrust) return false;
  if (looking_out.fetch_add(1, std::memory_order_relaxed) >= most_at_once()) {
    looking_out.fetch_sub(1, std::memory_order_relaxed);
    return false;
  }
  began_ = last_ = Clock::now();
  return true;
}

bool EagerWait::goes_on() noexcept {
  ::sched_yield();
  const Clock::time_point now = Clock::now();
  const bool others_wait = now - last_ > kLongYield;
  last_ = now;
  if (!others_wait && now - began_ < kLongestLookOut) return true;
  trust_ -= others_wait ? kEnoughTrust : 2;
  return false;
}

void EagerWait::end() noexcept { looking_out.fetch_sub(1, std::memory_order_relaxed); }

void EagerWait::sleep_ended() noexcept {
  const bool was_short = Clock::now() - began_ < kShortSleep;
  trust_ = was_short ? std::min(trust_ + 1, kMostTrust) : std::max(trust_ - kEnoughTrust, 0);
}

}  // namespace mkvirtfs::net
