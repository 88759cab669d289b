// SPDX-License-Identifier: BSD-3-Clause
#include "support/log.h"

#include <unistd.h>

#include <array>
#include <string>

#include "support/message.h"
#include "support/text.h"

namespace mkvirtfs {
namespace {

class NullLog final : public LogSink {
 public:
  void write(LogLevel, std::string_view) noexcept override {}
};

}  // namespace

void FdLog::write(LogLevel level, std::string_view message) noexcept try {
  if (level > most_verbose_.load(std::memory_order_relaxed)) return;
  constexpr std::array<std::string_view, 4> kWords = {"error: ", "warning: ", "", "debug: "};
  std::string line = "mkvirtfs: ";
  line += kWords[static_cast<std::size_t>(level)];
  line += printable_message(message);
  line += '\n';
  // One write(2), so that lines of several threads do not mix. Nobody can be told if it fails.
  [[maybe_unused]] const auto written = ::write(fd_, line.data(), line.size());
} catch (...) {
  // Out of memory while logging: the message is lost, the caller must not be.
}

LogSink& null_log() noexcept {
  static NullLog sink;
  return sink;
}

LogSink& stderr_log(LogLevel most_verbose) noexcept {
  static FdLog sink(STDERR_FILENO, most_verbose);
  sink.set_most_verbose(most_verbose);
  return sink;
}

}  // namespace mkvirtfs
