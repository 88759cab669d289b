// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "support/mutex.h"
#include "support/worker_pool.h"

namespace mkvirtfs::net {

/// What a task waits for, as far as one can know: tasks of different lanes need not wait for each
/// other. An address that is only compared, and a name.
using LaneKey = std::pair<const void*, std::string>;

/// A task that may wait, with its lane.
class LaneTask : public Task {
 public:
  virtual LaneKey lane() const = 0;
};

/// Runs tasks that wait, for devices or for exports to be opened, on a limited number of threads. A
/// lane is what they wait for, and no lane's tasks wait for those of another: each that has some
/// has a thread at least, beyond the limit if need be; the threads that are left go round.
///
/// submit() may be called from any thread.
class JobQueue {
 public:
  explicit JobQueue(std::size_t most_threads) : most_threads_(most_threads), threads_(kNoLimit) {}
  JobQueue(const JobQueue&) = delete;
  JobQueue& operator=(const JobQueue&) = delete;

  /// Runs the task, those of one lane in the order in which they came. Where the host lets us start
  /// no thread it runs here.
  void submit(const LaneKey& key, std::shared_ptr<Task> task);

 private:
  static constexpr std::size_t kNoLimit = static_cast<std::size_t>(-1);

  using Turns = std::list<LaneKey>;
  /// There while any of it runs.
  struct Lane {
    std::size_t running = 0;
    std::deque<std::shared_ptr<Task>> waiting;
    /// Its place in turns_, which is here while nothing waits: taking turns needs no memory.
    Turns no_turn;
    Turns::iterator turn;
  };
  using Lanes = std::map<LaneKey, Lane>;
  class Runner;

  bool may_start(const Lane& lane) const REQUIRES(mutex_) {
    return lane.running == 0 || running_ < most_threads_;
  }
  Lanes::iterator lane_of(const LaneKey& key) REQUIRES(mutex_);
  std::shared_ptr<Task> take_next(Lane& lane) noexcept REQUIRES(mutex_);
  std::shared_ptr<Task> done(Lanes::iterator& lane) noexcept;

  const std::size_t most_threads_;
  Mutex mutex_;
  std::size_t running_ GUARDED_BY(mutex_) = 0;
  Lanes lanes_ GUARDED_BY(mutex_);
  /// The lanes in which tasks wait, in the order of their turns.
  Turns turns_ GUARDED_BY(mutex_);

  WorkerPool threads_;  // last, so that it ends first
};

}  // namespace mkvirtfs::net
