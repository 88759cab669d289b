// SPDX-License-Identifier: BSD-3-Clause
//
// An image knows no store, and so its map says which file lies where, and no more. The device puts
// the store behind it; where the store has contents that are made of others, it looks into them, so
// that whatever moves an image's bytes meets the pieces, and every format has them for nothing.
#include "block/image.h"

#include <algorithm>
#include <cassert>

namespace mkvirtfs {

ImageDevice::ImageDevice(std::shared_ptr<const Image> image, std::shared_ptr<ContentStore> store)
    : image_(std::move(image)),
      store_(std::move(store)),
      has_derived_(image_->has_derived()),
      has_joined_(store_->has_joined()) {
  geometry_.size_bytes = image_->size_bytes();
  geometry_.minimum_block_bytes = image_->minimum_block_bytes();
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
      case ExtentKind::derived:
        result = image_->compute(extent.offset, part, *store_);
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
    if (extent.kind != ExtentKind::content) return sink.extent(extent);
    if (!has_joined_) {
      Extent owned = extent;
      owned.store = store_.get();
      return sink.extent(owned);
    }
    bool goes_on = true;
    const auto place = [&](Extent piece) {
      piece.offset += extent.offset - extent.content_offset;
      return goes_on = sink.extent(piece);
    };
    CallableSink<decltype(place)> pieces(place);
    store_->map(extent.content, {extent.content_offset, extent.length}, pieces);
    return goes_on;
  });
}

bool ImageDevice::may_wait(DeviceCall, Range range) const {
  if (!has_derived_) return false;
  struct Sources final : ContentRangeSink {
    explicit Sources(ContentStore& store) : store_(store) {}
    bool content_range(ContentNo content, Range part) override {
      waits = !store_.is_at_hand(content, part.offset, part.length);
      return !waits;
    }
    bool waits = false;

   private:
    ContentStore& store_;
  };
  Sources sources(*store_);
  for_each_extent(*image_, range, [&](const Extent& extent) {
    if (extent.kind == ExtentKind::derived) {
      image_->derived_from({extent.offset, extent.length}, sources);
    }
    return !sources.waits;
  });
  return sources.waits;
}

}  // namespace mkvirtfs
