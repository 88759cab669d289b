// SPDX-License-Identifier: BSD-3-Clause
#include "cli/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "cli/streams.h"
#include "support/text.h"

namespace mkvirtfs::cli {
namespace {

double fraction_of(const DumpProgress& progress) {
  if (progress.data_bytes == 0) return 1;
  return static_cast<double>(progress.data_done_bytes) / static_cast<double>(progress.data_bytes);
}

std::size_t columns_of(int fd) {
  constexpr std::size_t kUsual = 80;
  winsize size{};
  if (::ioctl(fd, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return kUsual;
  return size.ws_col;
}

std::string duration(double seconds) {
  const auto whole = std::llround(seconds);
  if (whole >= 3600) {
    return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
  }
  return fmt::format("{}:{:02}", whole / 60, whole % 60);
}

}  // namespace

ProgressBar::ProgressBar(int fd)
    : fd_(fd),
      color_(environment("NO_COLOR").value_or("").empty() &&
             environment("TERM").value_or("dumb") != "dumb") {}

ProgressBar::~ProgressBar() {
  if (drawn_) print(fd_, fmt::format("\r{:{}}\r", "", columns_of(fd_) - 1));
}

void ProgressBar::update(const DumpProgress& progress) {
  const double fraction = fraction_of(progress);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  const double rate = static_cast<double>(progress.data_done_bytes) / std::max(seconds, 0.001);
  const std::string left =
      fraction > 0 ? duration(seconds * (1 - fraction) / fraction) : std::string("-:--");
  const std::string before = fmt::format("{:3.0f}% ", fraction * 100);
  const std::string behind = fmt::format(
      " {} of {}, {}/s, {} left", human_size(progress.data_done_bytes),
      human_size(progress.data_bytes), human_size(static_cast<std::uint64_t>(rate)), left);
  const std::size_t columns = columns_of(fd_) - 1;
  const std::size_t taken = before.size() + behind.size() + 2;
  const std::size_t width = columns > taken ? std::min<std::size_t>(columns - taken, 40) : 0;
  const auto filled = static_cast<std::size_t>(fraction * static_cast<double>(width));
  std::string line = before;
  if (width >= 4) {
    line += '[';
    if (color_) line += "\x1b[32m";
    line += std::string(filled, '=');
    if (color_) line += "\x1b[0m";
    line += std::string(width - filled, ' ') + ']';
  }
  line += behind;
  // Spaces over what an earlier, longer line left.
  const std::size_t visible = taken + (width >= 4 ? width : 0);
  if (visible < columns) line += std::string(columns - visible, ' ');
  print(fd_, "\r" + line);
  drawn_ = true;
}

void ProgressLines::update(const DumpProgress& progress) {
  const int percent = static_cast<int>(fraction_of(progress) * 100);
  if (percent == last_percent_) return;
  last_percent_ = percent;
  print(fd_, fmt::format("{}/100\n", percent));
}

}  // namespace mkvirtfs::cli
