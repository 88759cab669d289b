// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "block/extent.h"

namespace mkvirtfs::testing {

/// The map of a device of which every byte is computed.
inline void map_computed(Range range, ExtentSink& sink) {
  if (range.length == 0) return;
  Extent all;
  all.offset = range.offset;
  all.length = range.length;
  all.kind = ExtentKind::computed;
  sink.extent(all);
}

}  // namespace mkvirtfs::testing
