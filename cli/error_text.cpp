// SPDX-License-Identifier: BSD-3-Clause
#include "cli/error_text.h"

#include <cstddef>
#include <utility>

namespace mkvirtfs::cli {

std::string option_text(const Setting& setting) {
  if (setting.option.empty()) return setting.value;
  std::string text = "--" + setting.option;
  if (!setting.value.empty()) text += "=" + setting.value;
  return text;
}

std::string hints_text(std::span<const Setting> hints) {
  std::string text;
  for (std::size_t at = 0; at < hints.size(); ++at) {
    const bool is_last = at + 1 == hints.size();
    text += at == 0 ? " (try " : is_last ? " or " : ", ";
    text += option_text(hints[at]);
    if (is_last) text += ')';
  }
  return text;
}

std::string error_text(const Error& error) {
  std::string text;
  if (!error.at_fault.option.empty()) text = option_text(error.at_fault) + ": ";
  return text + error.what + hints_text(error.hints);
}

Error worded(Error error) {
  error.what = error_text(error);
  error.at_fault = {};
  error.hints.clear();
  return error;
}

void WordedLog::write(LogLevel level, std::string_view message) noexcept {
  log_.write(level, message);
}

void WordedLog::write_with_hints(LogLevel level, std::string_view message,
                                 std::span<const Setting> hints) noexcept try {
  log_.write(level, std::string(message) + hints_text(hints));
} catch (...) {
  log_.write(level, message);  // there is no memory to word the hints
}

}  // namespace mkvirtfs::cli
