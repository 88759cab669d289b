// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <string_view>

#include "support/error.h"

namespace mkvirtfs {

enum class LogLevel : std::uint8_t { error, warning, info, debug };

/// Where a library's messages go: the program decides, the libraries never print.
/// Every method may run on several threads at once.
class LogSink {
 public:
  virtual ~LogSink() = default;
  /// One message, one line, without a line end.
  virtual void write(LogLevel level, std::string_view message) noexcept = 0;
  /// The same, with what would help, as in Error::hints. What words options overrides this; by
  /// default the message stands alone.
  virtual void write_with_hints(LogLevel level, std::string_view message,
                                [[maybe_unused]] std::span<const Setting> hints) noexcept {
    write(level, message);
  }
};

/// Drops everything: the default of embedders and tests.
LogSink& null_log() noexcept;

/// Writes "mkvirtfs: warning: message" lines to a descriptor that it does not own.
class FdLog final : public LogSink {
 public:
  FdLog(int fd, LogLevel most_verbose) noexcept : fd_(fd), most_verbose_(most_verbose) {}
  void write(LogLevel level, std::string_view message) noexcept override;
  void set_most_verbose(LogLevel level) noexcept { most_verbose_ = level; }

 private:
  const int fd_;
  std::atomic<LogLevel> most_verbose_;
};

/// An FdLog on standard error that all callers share.
LogSink& stderr_log(LogLevel most_verbose = LogLevel::info) noexcept;

}  // namespace mkvirtfs
