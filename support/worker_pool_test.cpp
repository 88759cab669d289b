// SPDX-License-Identifier: BSD-3-Clause
#include "support/worker_pool.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <csignal>
#include <filesystem>
#include <latch>

namespace mkvirtfs {
namespace {

using namespace std::chrono_literals;

template <class Function>
class FunctionTask final : public Task {
 public:
  explicit FunctionTask(Function function) : function_(std::move(function)) {}
  void run() noexcept override { function_(); }

 private:
  Function function_;
};

template <class Function>
std::shared_ptr<Task> task(Function function) {
  return std::make_shared<FunctionTask<Function>>(std::move(function));
}

std::size_t threads() {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry :
       std::filesystem::directory_iterator("/proc/self/task")) {
    ++count;
  }
  return count;
}

template <class Condition>
bool soon(Condition&& condition) {
  for (int i = 0; i < 2500; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(2ms);
  }
  return condition();
}

}  // namespace

TEST_CASE("a pool does every task, and those that tasks submit", "[worker_pool]") {
  // Catch2's checks are for one thread alone.
  std::atomic<int> done = 0;
  std::atomic<int> refused = 0;
  {
    WorkerPool pool(4);
    for (int i = 0; i < 1000; ++i) {
      REQUIRE(pool.submit(task([&] {
        ++done;
        if (!pool.submit(task([&] { ++done; }))) ++refused;
      })));
    }
  }
  CHECK(done == 2000);
  CHECK(refused == 0);
}

TEST_CASE("a pool has threads while there is work, and not too many", "[worker_pool]") {
  std::thread([] {}).join();  // a sanitizer starts a thread of its own with the first one
  const std::size_t at_rest = threads();
  WorkerPool pool(3, 50ms);
  CHECK(threads() == at_rest);
  std::latch release(1);
  std::atomic<int> waiting = 0;
  for (int i = 0; i < 10; ++i) {
    REQUIRE(pool.submit(task([&] {
      ++waiting;
      release.wait();
    })));
  }
  CHECK(soon([&] { return waiting == 3; }));
  CHECK(threads() == at_rest + 3);
  CHECK(pool.is_crowded());
  release.count_down();
  CHECK(soon([&] { return waiting == 10; }));
  CHECK_FALSE(pool.is_crowded());
  CHECK(soon([&] { return threads() == at_rest; }));
  // And they come back.
  std::atomic<bool> again = false;
  REQUIRE(pool.submit(task([&] { again = true; })));
  CHECK(soon([&] { return again.load(); }));
}

TEST_CASE("a pool's threads leave the program's signals alone", "[worker_pool]") {
  WorkerPool pool(1);
  std::atomic<bool> blocked = false;
  std::latch done(1);
  REQUIRE(pool.submit(task([&] {
    sigset_t mask;
    ::pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    blocked = sigismember(&mask, SIGTERM) == 1 && sigismember(&mask, SIGPIPE) == 1 &&
              sigismember(&mask, SIGSEGV) == 0;
    done.count_down();
  })));
  done.wait();
  CHECK(blocked);
  sigset_t mine;
  ::pthread_sigmask(SIG_SETMASK, nullptr, &mine);
  CHECK(sigismember(&mine, SIGTERM) == 0);
}

}  // namespace mkvirtfs
