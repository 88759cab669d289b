// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>

#include "support/error.h"

namespace mkvirtfs {

/// All that an error says, for comparison: "label=a?b: FAT labels are ASCII [fs=ext4] [exclude]".
inline std::string hinted_text(const Error& error) {
  const auto text_of = [](const Setting& setting) {
    if (setting.option.empty() || setting.value.empty()) return setting.option + setting.value;
    return setting.option + "=" + setting.value;
  };
  std::string text;
  if (!error.at_fault.option.empty()) text = text_of(error.at_fault) + ": ";
  text += error.what;
  for (const Setting& hint : error.hints) text += " [" + text_of(hint) + "]";
  return text;
}

}  // namespace mkvirtfs
