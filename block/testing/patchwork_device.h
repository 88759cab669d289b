// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <list>
#include <span>
#include <string>
#include <vector>

#include "block/content.h"
#include "block/device.h"

namespace mkvirtfs::testing {

/// A device sewn together from extents of any kind and length, one behind the other. Tests only.
class PatchworkDevice final : public BlockDevice {
 public:
  PatchworkDevice& hole(std::uint64_t length) { return append(length, ExtentKind::hole); }
  /// Byte n of the device becomes a function of n that is never zero.
  PatchworkDevice& computed(std::uint64_t length) { return append(length, ExtentKind::computed); }
  PatchworkDevice& memory(std::string bytes) {
    stored_.push_back(std::move(bytes));
    append(stored_.back().size(), ExtentKind::memory);
    extents_.back().memory = reinterpret_cast<const std::byte*>(stored_.back().data());
    return *this;
  }
  PatchworkDevice& file(ContentStore& store, ContentNo no, std::uint64_t offset,
                        std::uint64_t length) {
    append(length, ExtentKind::content);
    extents_.back().store = &store;
    extents_.back().content = no;
    extents_.back().content_offset = offset;
    return *this;
  }

  static std::byte computed_at(std::uint64_t offset) noexcept {
    return static_cast<std::byte>(offset % 255 + 1);
  }

  const Geometry& geometry() const noexcept override { return geometry_; }

  Result<void> read(std::uint64_t offset, std::span<std::byte> out) override {
    assert(offset <= geometry_.size_bytes && out.size() <= geometry_.size_bytes - offset);
    Result<void> result;
    for_each_extent(*this, {offset, out.size()}, [&](const Extent& extent) {
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
          for (std::size_t i = 0; i < part.size(); ++i) part[i] = computed_at(extent.offset + i);
          break;
        case ExtentKind::content:
          result = extent.store->read(extent.content, extent.content_offset, part);
          break;
      }
      return result.has_value();
    });
    return result;
  }

  void map(Range range, ExtentSink& sink) const override {
    assert(range.end() <= geometry_.size_bytes);
    auto at = std::ranges::upper_bound(extents_, range.offset, {}, &Extent::offset);
    if (at != extents_.begin()) --at;
    for (; at != extents_.end() && at->offset < range.end(); ++at) {
      if (!sink.extent(at->clipped(range.offset, range.end()))) return;
    }
  }

 private:
  PatchworkDevice& append(std::uint64_t length, ExtentKind kind) {
    assert(length != 0);
    extents_.push_back({.offset = geometry_.size_bytes, .length = length, .kind = kind});
    geometry_.size_bytes += length;
    return *this;
  }

  Geometry geometry_;
  std::list<std::string> stored_;  // addresses stay
  std::vector<Extent> extents_;
};

}  // namespace mkvirtfs::testing
