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

namespace mkvirtfs::nbd::testing {

/// Serves a vector of bytes: all of it is one memory extent. Tests only.
class MemoryDevice final : public BlockDevice {
 public:
  explicit MemoryDevice(std::vector<std::byte> bytes) : bytes_(std::move(bytes)) {
    geometry_.size_bytes = bytes_.size();
  }

  const Geometry& geometry() const noexcept override { return geometry_; }

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

/// `size` bytes that differ from block to block and from byte to byte.
inline std::vector<std::byte> pattern_bytes(std::size_t size) {
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i < size; ++i)
    bytes[i] = static_cast<std::byte>((i * 7 + i / 512 * 31) & 0xFF);
  return bytes;
}

}  // namespace mkvirtfs::nbd::testing
