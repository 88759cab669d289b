// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "compose/formats.h"
#include "tests/toy_format/toy_format.h"

namespace mkvirtfs::toy {

/// The formats of mkvirtfs, and one line more.
inline const FormatRegistry& formats() {
  static const std::vector<const Format*> with_toy = [] {
    const auto all = all_formats().formats();
    std::vector<const Format*> formats(all.begin(), all.end());
    formats.push_back(&format());
    return formats;
  }();
  static const FormatRegistry registry(with_toy);
  return registry;
}

}  // namespace mkvirtfs::toy
