// SPDX-License-Identifier: BSD-3-Clause
#include "net/job_queue.h"

#include <utility>

// A task begins when its lane has nothing running, or when a thread is free; so
// where tasks wait in a lane one of it runs, and the end of that one is the occasion to begin the
// next. The thread that has done a task takes the next one itself.

namespace mkvirtfs::net {

/// Runs a task, and then others as long as there are some that may begin.
class JobQueue::Runner final : public Task {
 public:
  Runner(JobQueue& queue, std::shared_ptr<Task> first) : queue_(queue), task_(std::move(first)) {}
  void begins_in(Lanes::iterator lane) noexcept { lane_ = lane; }
  void run() noexcept override {
    while (task_) {
      task_->run();
      task_.reset();  // what it holds may take long to be freed
      task_ = queue_.done(lane_);
    }
  }

 private:
  JobQueue& queue_;
  Lanes::iterator lane_;
  std::shared_ptr<Task> task_;
};

JobQueue::Lanes::iterator JobQueue::lane_of(const LaneKey& key) {
  const auto found = lanes_.find(key);
  if (found != lanes_.end()) return found;
  Lane lane;
  lane.no_turn.push_back(key);
  lane.turn = lane.no_turn.begin();
  return lanes_.emplace(key, std::move(lane)).first;
}

void JobQueue::submit(const LaneKey& key, std::shared_ptr<Task> task) {
  const auto runner = std::make_shared<Runner>(*this, task);
  {
    const MutexLock lock(mutex_);
    const auto at = lane_of(key);
    Lane& lane = at->second;
    if (!may_start(lane)) {
      lane.waiting.push_back(std::move(task));
      if (lane.waiting.size() == 1) turns_.splice(turns_.end(), lane.no_turn);
      return;
    }
    ++lane.running;
    ++running_;
    runner->begins_in(at);
  }
  if (!threads_.submit(runner)) runner->run();
}

/// The task that waits longest in a lane where some do.
std::shared_ptr<Task> JobQueue::take_next(Lane& lane) noexcept {
  std::shared_ptr<Task> task = std::move(lane.waiting.front());
  lane.waiting.pop_front();
  if (lane.waiting.empty()) {
    lane.no_turn.splice(lane.no_turn.end(), turns_, lane.turn);
  } else {
    turns_.splice(turns_.end(), turns_, lane.turn);
  }
  ++lane.running;
  ++running_;
  return task;
}

/// A task of this lane is done: the next one, and its lane; or none.
std::shared_ptr<Task> JobQueue::done(Lanes::iterator& lane) noexcept {
  const MutexLock lock(mutex_);
  --running_;
  if (--lane->second.running == 0) {
    if (!lane->second.waiting.empty()) return take_next(lane->second);
    lanes_.erase(lane);
  }
  if (running_ >= most_threads_ || turns_.empty()) return nullptr;
  lane = lanes_.find(turns_.front());
  return take_next(lane->second);
}

}  // namespace mkvirtfs::net
