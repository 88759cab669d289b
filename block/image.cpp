// SPDX-License-Identifier: BSD-3-Clause
#include "block/image.h"

#include <algorithm>
#include <cassert>

namespace mkvirtfs {

ImageDevice::ImageDevice(std::shared_ptr<const Image> image, std::shared_ptr<ContentStore> store)
    : image_(std::move(image)), store_(std::move(store)) {
  geometry_.size_bytes = image_->size_bytes();
  geometry_.preferred_block_bytes = image_->preferred_block_bytes();
}

Result<void> ImageDevice::read(std::uint64_t offset, std::span<std::byte> out) {
  assert(offset <= geometry_.size_bytes && out.size() <= geometry_.size_bytes - offset);
  Result<void> result;
  for_each_extent(*image_, {offset, out.size()}, [&](const Extent& extent) {
    const std::span<std::byte> part = out.subspan(extent.offset - offset, extent.length);
    switch (extent.kind) {
      case ExtentKind::hole:
        std::ranges::fill(part, std::byte{0});
        break;
      case ExtentKind::memory:
        std::copy_n(extent.memory, part.size(), part.begin());
        break;
      case ExtentKind::computed:
        image_->compute(extent.offset, part);
        break;
      case ExtentKind::content:
        result = store_->read(extent.content, extent.content_offset, part);
        break;
    }
    return result.has_value();
  });
  return result;
}

void ImageDevice::map(Range range, ExtentSink& sink) const {
  for_each_extent(*image_, range, [&](const Extent& extent) {
    Extent owned = extent;
    if (owned.kind == ExtentKind::content) owned.store = store_.get();
    return sink.extent(owned);
  });
}

}  // namespace mkvirtfs
