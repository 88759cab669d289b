// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "support/log.h"
#include "support/mutex.h"

namespace mkvirtfs::testing {

/// What was said, a line each.
class CollectedLog final : public LogSink {
 public:
  void write(LogLevel, std::string_view message) noexcept override {
    const MutexLock lock(mutex_);
    text_ += message;
    text_ += '\n';
  }
  std::string take() {
    const MutexLock lock(mutex_);
    return std::exchange(text_, {});
  }

 private:
  Mutex mutex_;
  std::string text_ GUARDED_BY(mutex_);
};

}  // namespace mkvirtfs::testing
