// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "fsgen/image/planned_image.h"
#include "support/error.h"

namespace mkvirtfs {

/// Bytes that stand at `offset` of an image instead of what the planner has there.
struct Patch {
  std::uint64_t offset = 0;
  std::vector<std::byte> bytes{};
  std::string what{};  ///< for Image::describe(): "boot code"
};

/// The image with the patches laid over it, in any order: of any format, and of one that is patched
/// already. map() shows them as memory, describe() by their names, facts() counts them; everything
/// else, placement too, is the image's own. Patches without bytes are passed over.
///
/// Errors: Errc::usage for a patch that lies over another one, or not inside the image.
Result<std::shared_ptr<const PlannedImage>> patched(std::shared_ptr<const PlannedImage> image,
                                                    std::vector<Patch> patches);

}  // namespace mkvirtfs
