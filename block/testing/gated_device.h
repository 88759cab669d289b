// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "block/device.h"
#include "block/testing/computed_extent.h"

namespace mkvirtfs::testing {

/// A disk as an embedder writes one who overrides nothing that need not be overridden. Its gate is
/// open at first; while it is closed, each call waits there. Any thread. Tests only.
class GatedDevice final : public BlockDevice {
 public:
  explicit GatedDevice(std::size_t size, std::uint32_t minimum_block_bytes = 1) : bytes_(size) {
    geometry_.size_bytes = size;
    geometry_.minimum_block_bytes = minimum_block_bytes;
    geometry_.writable = true;
  }

  void close_gate() {
    const std::lock_guard lock(mutex_);
    is_open_ = false;
  }
  void open_gate() {
    const std::lock_guard lock(mutex_);
    is_open_ = true;
    opened_.notify_all();
  }
  void never_waits() { may_wait_ = false; }
  bool may_wait(DeviceCall call, Range range) const override {
    return may_wait_ && BlockDevice::may_wait(call, range);
  }
  /// Calls that wait at the gate now.
  int waiting() const noexcept { return waiting_; }
  /// Calls that have been made.
  int calls() const noexcept { return calls_; }
  /// The ranges of the writes, as they came.
  std::vector<Range> writes() const {
    const std::lock_guard lock(mutex_);
    return writes_;
  }
  std::vector<std::byte> bytes() const {
    const std::lock_guard lock(mutex_);
    return bytes_;
  }
  /// Writes from there on lack space.
  void fill_up_from(std::uint64_t offset) { full_from_ = offset; }

  const Geometry& geometry() const noexcept override { return geometry_; }
  Result<void> read(std::uint64_t offset, std::span<std::byte> out) override {
    const auto lock = pass({offset, out.size()});
    std::copy_n(at(offset), out.size(), out.begin());
    return {};
  }
  void map(Range range, ExtentSink& sink) const override {
    mkvirtfs::testing::map_computed(range, sink);
  }
  Result<void> write(std::uint64_t offset, std::span<const std::byte> data) override {
    const auto lock = pass({offset, data.size()});
    if (offset + data.size() > full_from_) return fail(Errc::no_space, "the disk is full");
    std::ranges::copy(data, at(offset));
    writes_.push_back({offset, data.size()});
    return {};
  }
  Result<void> zero(Range range, bool) override {
    const auto lock = pass(range);
    std::fill_n(at(range.offset), range.length, std::byte{0});
    return {};
  }
  Result<void> trim(Range range) override {
    const auto lock = pass(range);
    return {};
  }
  Result<void> flush() override {
    const auto lock = pass({});
    return {};
  }

  /// All requests kept to the minimum block.
  bool is_aligned() const noexcept { return is_aligned_; }

 private:
  std::vector<std::byte>::iterator at(std::uint64_t offset) {
    return bytes_.begin() + static_cast<std::ptrdiff_t>(offset);
  }
  std::unique_lock<std::mutex> pass(Range range) {
    std::unique_lock lock(mutex_);
    ++calls_;
    if ((range.offset | range.length) % geometry_.minimum_block_bytes != 0) is_aligned_ = false;
    ++waiting_;
    opened_.wait(lock, [&] { return is_open_; });
    --waiting_;
    return lock;
  }

  mutable std::mutex mutex_;
  std::condition_variable opened_;
  bool is_open_ = true;
  std::vector<std::byte> bytes_;
  std::vector<Range> writes_;
  std::atomic<std::uint64_t> full_from_ = ~std::uint64_t{0};
  std::atomic<int> waiting_ = 0;
  std::atomic<int> calls_ = 0;
  std::atomic<bool> is_aligned_ = true;
  bool may_wait_ = true;
  Geometry geometry_;
};

}  // namespace mkvirtfs::testing
