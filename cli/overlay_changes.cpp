// SPDX-License-Identifier: BSD-3-Clause
#include "cli/overlay_changes.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "block/image.h"

namespace mkvirtfs::cli {
namespace {

/// The image at the bottom of all layers; nullptr when there is something else.
const ImageDevice* image_below(const Overlay& overlay) {
  const BlockDevice* device = overlay.layer().below().get();
  while (const auto* layer = dynamic_cast<const OverlayLayer*>(device)) {
    device = layer->below().get();
  }
  return dynamic_cast<const ImageDevice*>(device);
}

}  // namespace

void for_each_change(const Overlay& overlay,
                     const std::function<bool(const OverlayChange&)>& visit) {
  const ImageDevice* device = image_below(overlay);
  const BlockStates& states = overlay.layer().states();
  const std::uint64_t size_bytes = overlay.geometry().size_bytes;
  std::optional<OverlayChange> held;  // until it is known that the next is another thing
  bool goes_on = true;
  const auto tell = [&](OverlayChange change) {
    if (held && held->what == change.what && held->is_zero == change.is_zero &&
        held->offset + held->length_bytes == change.offset) {
      held->length_bytes += change.length_bytes;
      return;
    }
    if (held) goes_on = visit(*held);
    held = std::move(change);
  };
  for (std::uint64_t block = 0; goes_on && block < states.blocks();) {
    const BlockStates::Run run = states.run_at({block, states.blocks() - block});
    block = run.blocks.end();
    if (run.state == BlockState::below) continue;
    const std::uint64_t from = run.blocks.first * Overlay::kBlockBytes;
    const Range range{from, std::min(block * Overlay::kBlockBytes, size_bytes) - from};
    const bool is_zero = run.state == BlockState::zero;
    if (device == nullptr) {
      tell({range.offset, range.length, is_zero, false, "data"});
      continue;
    }
    const Image& image = device->image();
    for_each_extent(image, range, [&](const Extent& extent) {
      if (extent.kind == ExtentKind::content) {
        tell(
            {extent.offset, extent.length, is_zero, true, device->contents().name(extent.content)});
        return goes_on;
      }
      // The slack of a file and the free space behind it are one hole.
      for (std::uint64_t at = extent.offset; goes_on && at < extent.end();) {
        const std::uint64_t end = std::clamp(image.described_end(at), at + 1, extent.end());
        tell({at, end - at, is_zero, false, image.describe(at)});
        at = end;
      }
      return goes_on;
    });
  }
  if (goes_on && held) visit(*held);
}

}  // namespace mkvirtfs::cli
