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

std::string error_text(const Error& error) {
  std::string text;
  if (!error.at_fault.option.empty()) text = option_text(error.at_fault) + ": ";
  text += error.what;
  for (std::size_t at = 0; at < error.hints.size(); ++at) {
    const bool is_last = at + 1 == error.hints.size();
    text += at == 0 ? " (try " : is_last ? " or " : ", ";
    text += option_text(error.hints[at]);
    if (is_last) text += ')';
  }
  return text;
}

Error worded(Error error) {
  error.what = error_text(error);
  error.at_fault = {};
  error.hints.clear();
  return error;
}

}  // namespace mkvirtfs::cli
