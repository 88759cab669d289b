// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <list>
#include <memory>
#include <thread>

#include "support/mutex.h"

namespace mkvirtfs {

/// Something to be done on a thread of a WorkerPool.
class Task {
 public:
  virtual ~Task() = default;
  /// Throws nothing: there is nobody on the pool's threads to catch it.
  virtual void run() noexcept = 0;
};

/// Does tasks in the order they came, on threads that are started when there is work for them and
/// leave when there has been none for a while. At rest it has no thread at all.
///
/// Its threads block all asynchronous signals, so that the program's own handlers see them, and
/// SIGPIPE. submit() and is_crowded() may be called from any thread.
class WorkerPool {
 public:
  explicit WorkerPool(std::size_t most_threads,
                      std::chrono::milliseconds leave_after = std::chrono::milliseconds{500})
      : most_threads_(most_threads), leave_after_(leave_after) {}
  /// Waits until all tasks are done, those that they submit included.
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  /// False, and nothing was taken, when the task would wait for ever: there is no thread, and the
  /// host lets us start none; or there is no memory for it.
  bool submit(std::shared_ptr<Task> task);

  /// Tasks wait although no more threads may be started. A hint.
  bool is_crowded() const noexcept { return crowded_.load(std::memory_order_relaxed); }

 private:
  void work(std::list<std::thread>::iterator self) noexcept;
  bool start_thread() REQUIRES(mutex_);
  void tell_crowded() REQUIRES(mutex_);

  const std::size_t most_threads_;
  const std::chrono::milliseconds leave_after_;
  std::atomic<bool> crowded_ = false;

  Mutex mutex_;
  std::condition_variable_any work_or_end_;
  std::condition_variable_any thread_left_;
  bool ending_ GUARDED_BY(mutex_) = false;
  std::size_t idle_ GUARDED_BY(mutex_) = 0;
  std::deque<std::shared_ptr<Task>> waiting_ GUARDED_BY(mutex_);
  std::list<std::thread> threads_ GUARDED_BY(mutex_);
  std::list<std::thread> left_ GUARDED_BY(mutex_);  // to be joined
};

}  // namespace mkvirtfs
