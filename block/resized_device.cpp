// SPDX-License-Identifier: BSD-3-Clause
#include "block/resized_device.h"

#include <algorithm>
#include <utility>

namespace mkvirtfs {

ResizedDevice::ResizedDevice(std::shared_ptr<BlockDevice> below, std::uint64_t size_bytes)
    : below_(std::move(below)), geometry_(below_->geometry()) {
  geometry_.size_bytes = size_bytes;
  geometry_.writable = false;
}

std::uint64_t ResizedDevice::length_below(std::uint64_t offset,
                                          std::uint64_t length) const noexcept {
  const std::uint64_t end = below_->geometry().size_bytes;
  return offset >= end ? 0 : std::min(length, end - offset);
}

Result<void> ResizedDevice::read(std::uint64_t offset, std::span<std::byte> out) {
  const auto there = static_cast<std::size_t>(length_below(offset, out.size()));
  std::ranges::fill(out.subspan(there), std::byte{0});
  return there == 0 ? Result<void>() : below_->read(offset, out.first(there));
}

void ResizedDevice::map(Range range, ExtentSink& sink) const {
  const std::uint64_t there = length_below(range.offset, range.length);
  bool goes_on = true;
  if (there > 0) {
    for_each_extent(*below_, {range.offset, there},
                    [&](const Extent& extent) { return goes_on = sink.extent(extent); });
  }
  if (!goes_on || there == range.length) return;
  Extent behind;
  behind.offset = range.offset + there;
  behind.length = range.length - there;
  sink.extent(behind);
}

bool ResizedDevice::may_wait(DeviceCall call, Range range) const {
  const std::uint64_t there = length_below(range.offset, range.length);
  return there > 0 && below_->may_wait(call, {range.offset, there});
}

}  // namespace mkvirtfs
