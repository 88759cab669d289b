// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "fsgen/image/planned_image.h"

namespace mkvirtfs {

/// A stretch of an image that is one thing: a table, a directory, a file.
struct Region {
  enum class Kind : std::uint8_t {
    empty,     ///< all zeroes
    computed,  ///< made by RegionImage::write_block()
    derived,   ///< made of bytes of files, by derive_block()
    file,      ///< bytes of a file of the source
  };
  Kind kind = Kind::empty;
  Range range{};                  ///< in the image
  std::uint64_t data_bytes = 0;   ///< so much of its start is of that kind; the rest is zeroes
  NodeNo file{};                  ///< Kind::file only, and so is all that follows
  std::uint64_t file_offset = 0;  ///< of the byte that stands first
  /// The holes of the file lie in it, too, as zeroes; else the planner has left them out.
  bool has_holes = false;

  /// How regions are made. `range` is not empty.
  static Region empty(Range range) { return {.range = range}; }
  static Region computed(Range range, std::uint64_t data_bytes) {
    return {.kind = Kind::computed, .range = range, .data_bytes = data_bytes};
  }
  static Region computed(Range range) { return computed(range, range.length); }
};

/// What the images of all planners have in common: a planner says which region lies at a byte and
/// makes the blocks that are computed, and has map(), compute() and described_end() for it.
class RegionImage : public PlannedImage {
 public:
  void map(Range range, ExtentSink& sink) const final;
  Result<void> compute(std::uint64_t offset, std::span<std::byte> out,
                       ContentStore& contents) const final;
  /// The end of the region.
  std::uint64_t described_end(std::uint64_t offset) const final {
    return region_at(offset).range.end();
  }

 protected:
  static constexpr std::size_t kMostBlockBytes = 4096;

  /// The region that holds `offset`, which lies inside the image. It may begin where it likes
  /// before `offset`.
  virtual Region region_at(std::uint64_t offset) const = 0;
  /// Makes a block of a computed region: fills the whole of `out`, which is block_bytes() long and
  /// at most kMostBlockBytes. `block` counts such blocks from the image's start.
  virtual void write_block(std::uint64_t block, std::span<std::byte> out) const = 0;
  /// The same for a derived region, of bytes of `contents`; for images that has_derived().
  virtual Result<void> derive_block(std::uint64_t block, std::span<std::byte> out,
                                    ContentStore& contents) const;

 private:
  Extent extent_at(std::uint64_t offset) const;
  Extent file_extent(const Region& region, std::uint64_t offset) const;
};

}  // namespace mkvirtfs
