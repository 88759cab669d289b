// SPDX-License-Identifier: BSD-3-Clause
#include "support/worker_pool.h"

#include <new>
#include <utility>

#include "support/thread.h"

namespace mkvirtfs {

WorkerPool::~WorkerPool() {
  std::list<std::thread> left;
  {
    MutexLock lock(mutex_);
    ending_ = true;
    work_or_end_.notify_all();
    while (!threads_.empty()) lock.wait(thread_left_);
    left.swap(left_);
  }
  for (std::thread& thread : left) thread.join();
}

bool WorkerPool::submit(std::shared_ptr<Task> task) {
  std::list<std::thread> left;  // joined when the lock is left: they are all but gone
  bool taken = true;
  {
    const MutexLock lock(mutex_);
    left.swap(left_);
    try {
      waiting_.push_back(std::move(task));
    } catch (const std::bad_alloc&) {
      return false;  // it would wait for ever just as well
    }
    if (idle_ >= waiting_.size()) {
      work_or_end_.notify_one();
    } else if (threads_.size() < most_threads_ && !start_thread() && threads_.empty()) {
      waiting_.pop_back();
      taken = false;
    }
    tell_crowded();
  }
  for (std::thread& thread : left) thread.join();
  return taken;
}

bool WorkerPool::start_thread() {
  auto self = threads_.end();
  try {
    self = threads_.emplace(threads_.end());
  } catch (const std::bad_alloc&) {
    return false;
  }
  // It waits for the lock, which we hold, until it has its place.
  Result<std::thread> started =
      mkvirtfs::start_thread("start a thread", [this, self] { work(self); });
  if (!started) {
    threads_.erase(self);
    return false;
  }
  *self = std::move(*started);
  return true;
}

void WorkerPool::tell_crowded() {
  const bool crowded = waiting_.size() > idle_ && threads_.size() >= most_threads_;
  if (crowded != crowded_.load(std::memory_order_relaxed)) {
    crowded_.store(crowded, std::memory_order_relaxed);
  }
}

void WorkerPool::work(std::list<std::thread>::iterator self) noexcept {
  MutexLock lock(mutex_);
  while (true) {
    const auto leave_at = std::chrono::steady_clock::now() + leave_after_;
    ++idle_;
    while (waiting_.empty() && !ending_) {
      if (lock.wait_until(work_or_end_, leave_at) == std::cv_status::timeout) break;
    }
    --idle_;
    if (waiting_.empty()) break;
    std::shared_ptr<Task> task = std::move(waiting_.front());
    waiting_.pop_front();
    tell_crowded();
    lock.unlock();
    task->run();
    task.reset();
    lock.lock();
  }
  left_.splice(left_.end(), threads_, self);
  thread_left_.notify_all();
}

}  // namespace mkvirtfs
