// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <csignal>
#include <optional>

#include "cli/child.h"
#include "nbd/server.h"
#include "support/mutex.h"

namespace mkvirtfs::cli {

/// What signals do to a server and its child, while there are such. Any method, any thread.
class Stopper {
 public:
  void attach(nbd::Server& server, Child* child) {
    const MutexLock lock(mutex_);
    server_ = &server;
    child_ = child;
  }
  void detach() {
    const MutexLock lock(mutex_);
    server_ = nullptr;
    child_ = nullptr;
  }
  /// Detaches when it is left, however that comes about.
  class Attachment {
   public:
    Attachment(Stopper& stopper, nbd::Server& server, Child* child) : stopper_(stopper) {
      stopper_.attach(server, child);
    }
    ~Attachment() { stopper_.detach(); }
    Attachment(const Attachment&) = delete;
    Attachment& operator=(const Attachment&) = delete;

   private:
    Stopper& stopper_;
  };
  /// Of the server, while there is one.
  std::optional<nbd::ServerStatistics> statistics() const {
    const MutexLock lock(mutex_);
    if (server_ == nullptr) return std::nullopt;
    return server_->statistics();
  }

  /// The first call lets clients have the replies to what they asked for, the second nothing.
  void stop() {
    const MutexLock lock(mutex_);
    const bool again = is_stopping_;
    is_stopping_ = true;
    cancels_sources_ = true;
    is_hurried_ = is_hurried_ || again;
    if (child_ != nullptr) child_->send(again ? SIGKILL : SIGTERM);
    if (server_ == nullptr) return;
    if (again) {
      server_->request_stop_at_once();
    } else {
      server_->request_stop();
    }
  }
  void stop_server() {
    const MutexLock lock(mutex_);
    cancels_sources_ = true;
    if (server_ != nullptr) server_->request_stop();
  }
  /// True from the first call on: ends the wait for a source that is a pipe.
  const std::atomic<bool>* cancels_sources() const noexcept { return &cancels_sources_; }
  /// stop() was called more than once.
  bool is_hurried() const {
    const MutexLock lock(mutex_);
    return is_hurried_;
  }

 private:
  mutable Mutex mutex_;
  nbd::Server* server_ GUARDED_BY(mutex_) = nullptr;
  Child* child_ GUARDED_BY(mutex_) = nullptr;
  bool is_stopping_ GUARDED_BY(mutex_) = false;
  bool is_hurried_ GUARDED_BY(mutex_) = false;
  std::atomic<bool> cancels_sources_ = false;
};

}  // namespace mkvirtfs::cli
