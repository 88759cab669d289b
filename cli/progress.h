// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <cstdint>

#include "block/dump.h"

namespace mkvirtfs::cli {

/// A bar with rate and remaining time on a terminal, redrawn in place and gone at the end.
class ProgressBar {
 public:
  /// `fd` is a terminal. NO_COLOR in the environment keeps it plain.
  explicit ProgressBar(int fd);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void update(const DumpProgress& progress);

 private:
  const int fd_;
  const bool color_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  bool drawn_ = false;
};

/// "37/100" lines for programs, one for each percent that is new.
class ProgressLines {
 public:
  explicit ProgressLines(int fd) : fd_(fd) {}
  void update(const DumpProgress& progress);

 private:
  const int fd_;
  int last_percent_ = -1;
};

}  // namespace mkvirtfs::cli
