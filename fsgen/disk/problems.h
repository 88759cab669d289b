// SPDX-License-Identifier: BSD-3-Clause
// Private to this room.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "support/log.h"

namespace mkvirtfs::disk {

/// What is wrong with a file system: the first few are warnings in the log, all are counted. One
/// thread.
class Problems {
 public:
  Problems(std::string disk, LogSink& log) : disk_(std::move(disk)), log_(log) {}

  /// "disk.img: byte 12288: inode 12: its mode is 0"
  void add(std::uint64_t offset, std::string_view what) {
    const std::string text = fmt::format("{}: byte {}: {}", disk_, offset, what);
    if (count_ == 0) first_ = text;
    if (++count_ <= kMostInLog) log_.write(LogLevel::warning, text);
    if (count_ == kMostInLog) {
      log_.write(LogLevel::warning, fmt::format("{}: further problems are only counted", disk_));
    }
  }
  /// What is worth a word, but makes nothing wrong.
  void remark(std::string_view what) {
    log_.write(LogLevel::warning, fmt::format("{}: {}", disk_, what));
  }

  std::uint64_t count() const noexcept { return count_; }
  const std::string& first() const noexcept { return first_; }
  const std::string& disk() const noexcept { return disk_; }

 private:
  static constexpr std::uint64_t kMostInLog = 10;

  const std::string disk_;
  LogSink& log_;
  std::uint64_t count_ = 0;
  std::string first_;
};

}  // namespace mkvirtfs::disk
