// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "block/overlay/overlay.h"

namespace mkvirtfs::cli {

/// One stretch of a disk that was written, all of it one thing of the image below.
struct OverlayChange {
  std::uint64_t offset = 0;
  std::uint64_t length_bytes = 0;
  bool is_zero = false;  ///< written as zeroes, or trimmed
  /// A file of the image, raw bytes; or else what it is: "inode table, group 3, ...".
  bool is_file = false;
  std::string what;
};

/// What was written since the overlay was made, or since its last snapshot: calls `visit` in order
/// of offsets until it returns false. What belongs to no file of the image is named as the image
/// describes it; what a client has put into free space is free space for the image.
void for_each_change(const Overlay& overlay,
                     const std::function<bool(const OverlayChange&)>& visit);

}  // namespace mkvirtfs::cli
