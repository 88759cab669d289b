// SPDX-License-Identifier: BSD-3-Clause
#include "cli/error_text.h"

#include <utility>
#include <vector>

#include "cli/near_words.h"

namespace mkvirtfs::cli {

std::string option_text(const Setting& setting) {
  if (setting.option.empty()) return setting.value;
  std::string text = "--" + setting.option;
  if (!setting.value.empty()) text += "=" + setting.value;
  return text;
}

std::string hints_text(std::span<const Setting> hints) {
  if (hints.empty()) return {};
  std::vector<std::string> ways;
  for (const Setting& hint : hints) ways.push_back(option_text(hint));
  return " (try " + joined_with_or(ways) + ')';
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
