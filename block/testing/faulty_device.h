// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <functional>
#include <memory>

#include "block/device.h"

namespace mkvirtfs::testing {

/// Hands every call on to a device, but fails one read with EIO. Tests only.
class FaultyDevice final : public BlockDevice {
 public:
  /// Read number `failing_read` fails, counted from 0 over all threads.
  FaultyDevice(BlockDevice& below, std::uint64_t failing_read)
      : below_(below), failing_read_(failing_read) {}

  /// Called before each read, with its number.
  std::function<void(std::uint64_t)> before_read;

  const Geometry& geometry() const noexcept override { return below_.geometry(); }
  Result<void> read(std::uint64_t offset, std::span<std::byte> out) override {
    const std::uint64_t number = reads_++;
    if (before_read) before_read(number);
    if (number == failing_read_) return fail_errno(EIO, "read a faulty device");
    return below_.read(offset, out);
  }
  void map(Range range, ExtentSink& sink) const override { below_.map(range, sink); }

  std::uint64_t reads() const noexcept { return reads_; }

 private:
  BlockDevice& below_;
  const std::uint64_t failing_read_;
  std::atomic<std::uint64_t> reads_ = 0;
};

}  // namespace mkvirtfs::testing
