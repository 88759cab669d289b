// SPDX-License-Identifier: BSD-3-Clause
#include "support/parallel.h"

#include <pthread.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <csignal>
#include <latch>
#include <new>
#include <numeric>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include "support/mutex.h"
#include "support/thread.h"
#include "tests/support/no_threads.h"

namespace mkvirtfs {
namespace {

/// How often each number of a loop was done. Each thread writes its own numbers alone.
std::vector<int> times_done(std::size_t count, unsigned threads) {
  std::vector<int> times(count);
  const Result<void> done = parallel_for(count, {.threads = threads, .doing = "count"},
                                         [&](std::size_t number) -> Result<void> {
                                           ++times[number];
                                           return {};
                                         });
  REQUIRE(done);
  return times;
}

/// The threads that took part in a loop.
class Participants {
 public:
  void take_part() {
    const MutexLock lock(mutex_);
    threads_.insert(std::this_thread::get_id());
  }
  std::set<std::thread::id> threads() {
    const MutexLock lock(mutex_);
    return threads_;
  }

 private:
  Mutex mutex_;
  std::set<std::thread::id> threads_ GUARDED_BY(mutex_);
};

}  // namespace

TEST_CASE("a parallel loop does every number once, with 1, 2 and 16 threads", "[parallel]") {
  const unsigned threads = GENERATE(0U, 1U, 2U, 16U);
  const std::size_t count =
      GENERATE(std::size_t{0}, std::size_t{1}, std::size_t{15}, std::size_t{10'000});
  CHECK(times_done(count, threads) == std::vector<int>(count, 1));
}

TEST_CASE("a parallel loop has as many threads as it may, the caller's among them", "[parallel]") {
  for (const unsigned threads : {1U, 2U, 16U}) {
    // Each thread waits for all others, so each of them does one number.
    std::latch all(threads);
    Participants participants;
    REQUIRE(parallel_for(threads, {.threads = threads, .doing = "wait"},
                         [&](std::size_t /*number*/) -> Result<void> {
                           participants.take_part();
                           all.arrive_and_wait();
                           return {};
                         }));
    CHECK(participants.threads().size() == threads);
    CHECK(participants.threads().contains(std::this_thread::get_id()));
  }
}

TEST_CASE("the error of a parallel loop is that of its lowest number", "[parallel]") {
  const unsigned threads = GENERATE(1U, 2U, 16U);
  std::vector<int> times(1000);
  const Result<void> done = parallel_for(
      times.size(), {.threads = threads, .doing = "fail"}, [&](std::size_t number) -> Result<void> {
        ++times[number];
        if (number < 500 || number % 2 != 0) return {};
        return fail(Errc::does_not_fit, "number " + std::to_string(number));
      });
  REQUIRE_FALSE(done);
  CHECK(done.error().code == Errc::does_not_fit);
  CHECK(done.error().what == "number 500");
  CHECK(std::accumulate(times.begin(), times.begin() + 501, 0) == 501);
  if (threads == 1) CHECK(std::accumulate(times.begin(), times.end(), 0) == 501);
}

TEST_CASE("an exception in a parallel loop is an error", "[parallel]") {
  const unsigned threads = GENERATE(1U, 16U);
  const auto loop = [&](const auto& exception) {
    return parallel_for(100, {.threads = threads, .doing = "plan the directories"},
                        [&](std::size_t number) -> Result<void> {
                          if (number == 50) throw exception;
                          return {};
                        })
        .error();
  };
  const Error memory = loop(std::bad_alloc());
  CHECK(memory.os_errno == ENOMEM);
  CHECK(memory.what == "out of memory: plan the directories");
  CHECK(loop(std::runtime_error("why")).what == "plan the directories: why");
}

TEST_CASE("a parallel loop without threads is done by the caller's", "[parallel]") {
  {
    const testing::NoThreads no_threads;
    REQUIRE_FALSE(start_thread("watch", [] {}));
    CHECK(times_done(1000, 16) == std::vector<int>(1000, 1));
    Participants participants;
    REQUIRE(parallel_for(100, {.threads = 16, .doing = "take part"},
                         [&](std::size_t /*number*/) -> Result<void> {
                           participants.take_part();
                           return {};
                         }));
    CHECK(participants.threads() == std::set{std::this_thread::get_id()});
    WorkerPool pool(4);
    CHECK(start_crew(pool, 4, [](unsigned /*number*/) {}) == 0);
  }
  start_thread("watch", [] {}).value().join();
}

TEST_CASE("a thread that cannot be started is an error", "[parallel]") {
  const testing::NoThreads no_threads;
  const Result<std::thread> thread = start_thread("watch for signals", [] {});
  REQUIRE_FALSE(thread);
  CHECK(thread.error().os_errno == EAGAIN);
  CHECK(thread.error().what == "watch for signals: Resource temporarily unavailable");
}

TEST_CASE("a crew calls its body once for each number", "[parallel]") {
  std::vector<int> calls(16);
  unsigned started = 0;
  {
    WorkerPool pool(16);
    started = start_crew(pool, 16, [&](unsigned number) { ++calls[number]; });
  }
  CHECK(started == 16);
  CHECK(calls == std::vector<int>(16, 1));
}

TEST_CASE("the threads of a parallel loop block asynchronous signals", "[parallel]") {
  std::latch both(2);
  std::atomic<int> blocked = 0;
  const std::thread::id caller = std::this_thread::get_id();
  REQUIRE(
      parallel_for(2, {.threads = 2, .doing = "look"}, [&](std::size_t /*number*/) -> Result<void> {
        both.arrive_and_wait();
        if (std::this_thread::get_id() == caller) return {};
        sigset_t mask;
        ::pthread_sigmask(SIG_SETMASK, nullptr, &mask);
        if (sigismember(&mask, SIGTERM) == 1 && sigismember(&mask, SIGPIPE) == 1 &&
            sigismember(&mask, SIGSEGV) == 0) {
          ++blocked;
        }
        return {};
      }));
  CHECK(blocked == 1);
}

TEST_CASE("threads that were not asked for are one a processor", "[parallel]") {
  CHECK(thread_count(7) == 7);
  CHECK(thread_count(7, 4) == 4);
  CHECK(thread_count(0) == std::max(std::thread::hardware_concurrency(), 1U));
  CHECK(thread_count(0, 1) == 1);
}

}  // namespace mkvirtfs
