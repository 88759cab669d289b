// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "block/device.h"
#include "block/testing/computed_extent.h"
#include "support/testing/bytes.h"

namespace mkvirtfs::testing {

/// Serves a vector of bytes: all of it is one memory extent. Tests only.
class MemoryDevice final : public BlockDevice {
 public:
  explicit MemoryDevice(std::vector<std::byte> bytes) : bytes_(std::move(bytes)) {
    geometry_.size_bytes = bytes_.size();
  }

  const Geometry& geometry() const noexcept override { return geometry_; }
  bool may_wait(DeviceCall, Range) const override { return false; }

  Result<void> read(std::uint64_t offset, std::span<std::byte> out) override {
    assert(offset <= bytes_.size() && out.size() <= bytes_.size() - offset);
    std::copy_n(bytes_.data() + offset, out.size(), out.data());
    return {};
  }

  void map(Range range, ExtentSink& sink) const override {
    assert(range.offset <= bytes_.size() && range.length <= bytes_.size() - range.offset);
    if (range.length == 0) return;
    Extent all;
    all.offset = range.offset;
    all.length = range.length;
    all.kind = ExtentKind::memory;
    all.memory = bytes_.data() + range.offset;
    sink.extent(all);
  }

  const std::vector<std::byte>& bytes() const noexcept { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
  Geometry geometry_;
};

/// A MemoryDevice that can be written, and counts what it is asked. Tests only, on one thread.
class WritableDevice final : public BlockDevice {
 public:
  explicit WritableDevice(std::size_t size) : bytes(size) {
    geometry_.size_bytes = size;
    geometry_.writable = true;
    geometry_.zeroes_fast = true;
  }

  const Geometry& geometry() const noexcept override { return geometry_; }
  bool may_wait(DeviceCall, Range) const override { return false; }
  Result<void> read(std::uint64_t offset, std::span<std::byte> out) override {
    std::copy_n(bytes.data() + offset, out.size(), out.data());
    return {};
  }
  void map(Range range, ExtentSink& sink) const override {
    mkvirtfs::testing::map_computed(range, sink);
  }
  Result<void> write(std::uint64_t offset, std::span<const std::byte> data) override {
    if (full) return fail(Errc::no_space, "the disk is full");
    ++writes;
    std::ranges::copy(data, bytes.begin() + static_cast<std::ptrdiff_t>(offset));
    return {};
  }
  Result<void> zero(Range range, bool keep_allocated) override {
    kept_allocated = keep_allocated;
    std::ranges::fill(std::span(bytes).subspan(range.offset, range.length), std::byte{0});
    return {};
  }
  Result<void> trim(Range range) override {
    ++trims;
    return zero(range, false);
  }
  Result<void> flush() override {
    if (full) return fail(Errc::io, "the disk broke");
    ++flushes;
    return {};
  }

  void zeroes_are_fast(bool fast) { geometry_.zeroes_fast = fast; }

  std::vector<std::byte> bytes;
  bool full = false;
  bool kept_allocated = false;
  int writes = 0;
  int trims = 0;
  int flushes = 0;

 private:
  Geometry geometry_;
};

}  // namespace mkvirtfs::testing
