// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

namespace mkvirtfs {

/// Whose habits decide what no option says. With those of an older version an image is, byte for
/// byte, what that version made of the same source and options: overlays that were kept over it
/// need it so.
enum class Defaults : std::uint8_t {
  current,
  v0_1,  ///< of 0.1.0
};

}  // namespace mkvirtfs
