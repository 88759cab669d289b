// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "block/device.h"

namespace mkvirtfs {

/// Another device, read-only, as if it had `size_bytes`: cut off there, or with zeroes behind its
/// end. What an overlay lies over that was made over a device of another size.
class ResizedDevice final : public BlockDevice {
 public:
  ResizedDevice(std::shared_ptr<BlockDevice> below, std::uint64_t size_bytes);

  const Geometry& geometry() const noexcept override { return geometry_; }
  Result<void> read(std::uint64_t offset, std::span<std::byte> out) override;
  void map(Range range, ExtentSink& sink) const override;
  bool may_wait(DeviceCall call, Range range) const override;

  const std::shared_ptr<BlockDevice>& below() const noexcept { return below_; }

 private:
  /// How much of the range the other device has.
  std::uint64_t length_below(std::uint64_t offset, std::uint64_t length) const noexcept;

  const std::shared_ptr<BlockDevice> below_;
  Geometry geometry_;
};

}  // namespace mkvirtfs
