// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "block/image.h"

namespace mkvirtfs::testing {

/// A block that is computed, then bytes derived from content 0 (each its complement), a hole of a
/// block, and content 0 itself. Tests only.
class DerivedImage final : public Image {
 public:
  static constexpr std::uint64_t kBlock = 4096;
  static constexpr std::byte kComputed{0x11};
  static std::byte derived_byte(std::byte from) noexcept { return ~from; }

  explicit DerivedImage(std::uint64_t content_bytes) : content_bytes_(content_bytes) {}

  Range computed() const noexcept { return {0, kBlock}; }
  Range derived() const noexcept { return {kBlock, content_bytes_}; }
  Range hole() const noexcept { return {derived().end(), kBlock}; }
  Range content() const noexcept { return {hole().end(), content_bytes_}; }

  std::uint64_t size_bytes() const noexcept override { return content().end(); }
  std::uint32_t block_bytes() const noexcept override { return kBlock; }
  void map(Range range, ExtentSink& sink) const override {
    const auto extent_of = [](Range at, ExtentKind kind) {
      return Extent{.offset = at.offset, .length = at.length, .kind = kind};
    };
    for (const Extent& extent :
         {extent_of(computed(), ExtentKind::computed), extent_of(derived(), ExtentKind::derived),
          extent_of(hole(), ExtentKind::hole), extent_of(content(), ExtentKind::content)}) {
      if (extent.end() <= range.offset || extent.offset >= range.end()) continue;
      if (!sink.extent(extent.clipped(range.offset, range.end()))) return;
    }
  }
  Result<void> compute(std::uint64_t offset, std::span<std::byte> out,
                       ContentStore& contents) const override {
    if (offset < kBlock) {
      std::ranges::fill(out, kComputed);
      return {};
    }
    if (Result<void> got = contents.read(ContentNo{0}, offset - derived().offset, out); !got) {
      return got;
    }
    std::ranges::transform(out, out.begin(), derived_byte);
    return {};
  }
  bool has_derived() const noexcept override { return true; }
  void derived_from(Range range, ContentRangeSink& sink) const override {
    sink.content_range(ContentNo{0}, {range.offset - derived().offset, range.length});
  }
  std::string describe(std::uint64_t) const override { return "derived"; }
  std::string volume_id() const override { return "derived"; }
  std::vector<ImageFact> facts() const override { return {}; }

 private:
  std::uint64_t content_bytes_;
};

}  // namespace mkvirtfs::testing
