// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "support/error.h"
#include "support/log.h"

namespace mkvirtfs::cli {

/// A setting as the command line has it: {"fs", "ext4"} is "--fs=ext4", {"exclude"} is "--exclude".
/// Words without an option stay as they are.
std::string option_text(const Setting& setting);

/// What would help, to be appended to a line: " (try --fs=ext4 or --exclude)"; "" without hints.
std::string hints_text(std::span<const Setting> hints);

/// What went wrong in one line, with the option at fault before it and what would help behind it:
/// "--label=a?b: FAT labels are ASCII", "disk.img is too large (try --fs=ext4 or --exclude)". Raw
/// bytes, as in Error::what.
std::string error_text(const Error& error);

/// `error` with all of error_text() in `what`, for what prints only that: a log, a client of NBD.
Error worded(Error error);

/// The log of a command on a descriptor that it does not own: as FdLog, and hints are worded.
class WordedLog final : public LogSink {
 public:
  WordedLog(int fd, LogLevel most_verbose) noexcept : log_(fd, most_verbose) {}
  void write(LogLevel level, std::string_view message) noexcept override;
  void write_with_hints(LogLevel level, std::string_view message,
                        std::span<const Setting> hints) noexcept override;

 private:
  FdLog log_;
};

}  // namespace mkvirtfs::cli
