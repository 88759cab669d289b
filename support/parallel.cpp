// SPDX-License-Identifier: BSD-3-Clause
//
// A loop is one shared counter: each thread takes the next number until there are none. So no
// number is lost when a thread cannot be started, and long and short calls may stand side by side.
// The end of the range moves down to the lowest number that failed. Numbers below it were taken
// before, because they are taken in order, so its error does not depend on the number of threads.
#include "support/parallel.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "support/message.h"
#include "support/mutex.h"

namespace mkvirtfs {
namespace {

class Loop final : public Task {
 public:
  using Body = std::function<Result<void>(std::size_t)>;

  Loop(std::size_t count, std::string_view doing, const Body& body)
      : doing_(doing), body_(body), end_(count) {}

  void run() noexcept override {
    while (true) {
      const std::size_t number = next_.fetch_add(1, std::memory_order_relaxed);
      if (number >= end_.load(std::memory_order_relaxed)) return;
      if (Result<void> done = call(number); !done) fail_at(number, std::move(done.error()));
    }
  }

  /// When all threads have left.
  Result<void> result() {
    const MutexLock lock(mutex_);
    if (error_) return std::unexpected(std::move(*error_));
    return {};
  }

 private:
  Result<void> call(std::size_t number) const noexcept {
    try {
      return body_(number);
    } catch (...) {
      return std::unexpected(error_of_exception(doing_));
    }
  }

  void fail_at(std::size_t number, Error error) noexcept {
    const MutexLock lock(mutex_);
    if (number >= end_.load(std::memory_order_relaxed)) return;  // a lower one failed meanwhile
    end_.store(number, std::memory_order_relaxed);
    error_ = std::move(error);
  }

  const std::string_view doing_;
  const Body& body_;
  std::atomic<std::size_t> next_ = 0;
  std::atomic<std::size_t> end_;  // changed with the lock held
  Mutex mutex_;
  std::optional<Error> error_ GUARDED_BY(mutex_);
};

class CrewCall final : public Task {
 public:
  using Body = std::function<void(unsigned)>;

  CrewCall(std::shared_ptr<const Body> body, unsigned number)
      : body_(std::move(body)), number_(number) {}
  void run() noexcept override { (*body_)(number_); }

 private:
  const std::shared_ptr<const Body> body_;
  const unsigned number_;
};

}  // namespace

unsigned thread_count(unsigned wanted, unsigned most) noexcept {
  if (wanted == 0) wanted = std::thread::hardware_concurrency();
  return std::clamp(wanted, 1U, most);
}

Result<void> parallel_for(std::size_t count, const ParallelLoop& loop,
                          const std::function<Result<void>(std::size_t number)>& body) {
  try {
    const auto shared = std::make_shared<Loop>(count, loop.doing, body);
    const std::size_t threads = std::min<std::size_t>(thread_count(loop.threads), count);
    {
      std::optional<WorkerPool> others;  // its end waits for them
      if (threads > 1) others.emplace(threads - 1);
      for (std::size_t i = 1; i < threads && others->submit(shared); ++i) {
      }
      shared->run();
    }
    return shared->result();
  } catch (...) {
    return std::unexpected(error_of_exception(loop.doing));
  }
}

unsigned start_crew(WorkerPool& pool, unsigned threads, std::function<void(unsigned number)> body) {
  const auto shared = std::make_shared<const CrewCall::Body>(std::move(body));
  std::vector<std::shared_ptr<Task>> calls;
  for (unsigned number = 0; number < threads; ++number) {
    calls.push_back(std::make_shared<CrewCall>(shared, number));
  }
  unsigned started = 0;
  while (started < threads && pool.submit(calls[started])) ++started;
  return started;
}

}  // namespace mkvirtfs
