// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/log.h"
#include "support/mutex.h"
#include "tests/support/hinted_text.h"

namespace mkvirtfs::testing {

/// The lines of a log, for comparison. Any thread.
class CollectedLog final : public LogSink {
 public:
  void write(LogLevel level, std::string_view message) noexcept override {
    const MutexLock lock(mutex_);
    lines_.emplace_back(level, message);
  }

  /// Hints stand behind the line, as in hinted_text(): "[max-size]".
  void write_with_hints(LogLevel level, std::string_view message,
                        std::span<const Setting> hints) noexcept override {
    write(level,
          hinted_text({Errc::io, 0, std::string(message), {}, {hints.begin(), hints.end()}}));
  }

  std::vector<std::string> lines() {
    const MutexLock lock(mutex_);
    std::vector<std::string> texts;
    for (const auto& [level, line] : lines_) texts.push_back(line);
    return texts;
  }
  /// Each line with a newline behind it.
  std::string text() {
    std::string text;
    for (const std::string& line : lines()) text += line + '\n';
    return text;
  }
  /// text(), and then nothing is left.
  std::string take() {
    std::string taken = text();
    const MutexLock lock(mutex_);
    lines_.clear();
    return taken;
  }

 private:
  Mutex mutex_;
  std::vector<std::pair<LogLevel, std::string>> lines_ GUARDED_BY(mutex_);
};

}  // namespace mkvirtfs::testing
