// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <expected>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "support/error.h"
#include "support/mutex.h"

namespace mkvirtfs {

/// A call that waits in the kernel and cannot be interrupted: syncfs(2), or what a test puts in its
/// place. Returns 0, or -1 with errno. Runs in a child process: async-signal-safe functions only.
using SyncCall = int (*)(int fd);

/// Calls `call` for `fd`, but waits no longer than `most`: a child process does the waiting, and
/// one that takes longer is left behind. Fails with errno; ETIMEDOUT after `most`.
std::expected<void, int> sync_file_system(int fd, std::chrono::milliseconds most, SyncCall call);
std::expected<void, int> sync_file_system(int fd, std::chrono::milliseconds most);

/// Has each file system that a scan meets written back, once, before the scan looks at its files.
/// A page that was dirty can be written through a mapping without its file's times changing; once
/// it is clean, the next write through the mapping sets them, and the change is seen. Any thread.
class SourceSync {
 public:
  explicit SourceSync(std::chrono::milliseconds most) : most_(most) {}

  /// Writes back the file system that has this device number, on which `fd` is open, unless that
  /// was done; waits for another thread that does it. False when it failed, then or before: see
  /// error().
  bool ensure(std::uint64_t device, int fd) EXCLUDES(mutex_);

  /// Why ensure() failed the first time.
  std::optional<Error> error() const EXCLUDES(mutex_);
  /// Messages about file systems that were met and that set no times for writes through mappings.
  std::vector<std::string> blind() const EXCLUDES(mutex_);

 private:
  enum class State : std::uint8_t { waiting, done, failed };

  const std::chrono::milliseconds most_;
  mutable Mutex mutex_;
  std::condition_variable_any changed_;
  std::map<std::uint64_t, State> devices_ GUARDED_BY(mutex_);
  std::optional<Error> error_ GUARDED_BY(mutex_);
  std::vector<std::string> blind_ GUARDED_BY(mutex_);
};

}  // namespace mkvirtfs
