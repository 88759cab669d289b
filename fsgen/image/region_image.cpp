// SPDX-License-Identifier: BSD-3-Clause
//
// From regions to extents. A region is asked for once for each extent, never for a byte or a block:
// what is looked up is where the walk stands, and the walk goes on behind the extent that was found
// there. Neighbours of one kind are joined, so that a reader sees one stretch of metadata and not
// its thousand tables; those that name a file are not.
#include "fsgen/image/region_image.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>
#include <iterator>

namespace mkvirtfs {

/// A file with holes is cut into its data runs. `offset` lies before the end of its data.
Extent RegionImage::file_extent(const Region& region, std::uint64_t offset) const {
  Extent extent;
  extent.kind = ExtentKind::content;
  extent.offset = region.range.offset;
  extent.length = region.data_bytes;
  extent.content = content_no(region.file);
  extent.content_offset = region.file_offset;
  if (!region.has_holes) return extent;

  Range dense;
  const std::span<const Range> runs = tree().data_runs(region.file, dense);
  const std::uint64_t at = region.file_offset + (offset - region.range.offset);
  const auto after = std::ranges::upper_bound(runs, at, {}, &Range::offset);
  const auto place = [&](std::uint64_t file_offset) {
    return region.range.offset + (file_offset - region.file_offset);
  };
  if (after != runs.begin() && std::prev(after)->end() > at) {
    const Range& run = *std::prev(after);
    const std::uint64_t from = std::max(run.offset, region.file_offset);
    const std::uint64_t to = std::min(run.end(), region.file_offset + region.data_bytes);
    extent.offset = place(from);
    extent.length = to - from;
    extent.content_offset = from;
    return extent;
  }
  // A hole, which ends where the next data begins, or else with the region.
  const std::uint64_t end =
      after == runs.end() ? region.range.end() : std::min(place(after->offset), region.range.end());
  return {.offset = offset, .length = end - offset};
}

Extent RegionImage::extent_at(std::uint64_t offset) const {
  const Region region = region_at(offset);
  assert(offset >= region.range.offset && offset < region.range.end());
  const std::uint64_t data_end = region.range.offset + region.data_bytes;
  if (offset >= data_end) return {.offset = data_end, .length = region.range.end() - data_end};
  if (region.kind == Region::Kind::file) return file_extent(region, offset);
  return {
      .offset = region.range.offset,
      .length = region.data_bytes,
      .kind = region.kind == Region::Kind::derived ? ExtentKind::derived : ExtentKind::computed};
}

void RegionImage::map(Range range, ExtentSink& sink) const {
  assert(range.end() <= size_bytes());
  Extent pending;
  std::uint64_t at = range.offset;
  while (at < range.end()) {
    const Extent extent = extent_at(at).clipped(at, range.end());
    at = extent.end();
    const bool joins =
        pending.length > 0 && pending.kind == extent.kind && extent.kind != ExtentKind::content;
    if (joins) {
      pending.length += extent.length;
      continue;
    }
    if (pending.length > 0 && !sink.extent(pending)) return;
    pending = extent;
  }
  if (pending.length > 0) sink.extent(pending);
}

Result<void> RegionImage::compute(std::uint64_t offset, std::span<std::byte> out,
                                  ContentStore& contents) const {
  const bool derived = has_derived() && region_at(offset).kind == Region::Kind::derived;
  const std::uint32_t bytes = block_bytes();
  assert(bytes <= kMostBlockBytes);
  std::array<std::byte, kMostBlockBytes> scratch;
  while (!out.empty()) {
    const std::uint64_t block = offset / bytes;
    const std::size_t skip = offset % bytes;
    const std::size_t length = std::min<std::size_t>(bytes - skip, out.size());
    const bool whole = length == bytes;
    const std::span<std::byte> made = whole ? out.first(bytes) : std::span(scratch).first(bytes);
    if (!derived) {
      write_block(block, made);
    } else if (Result<void> done = derive_block(block, made, contents); !done) {
      return done;
    }
    if (!whole) std::memcpy(out.data(), scratch.data() + skip, length);
    offset += length;
    out = out.subspan(length);
  }
  return {};
}

Result<void> RegionImage::derive_block(std::uint64_t /*block*/, std::span<std::byte> out,
                                       ContentStore& /*contents*/) const {
  assert(false && "nothing is derived here");
  std::ranges::fill(out, std::byte{0});
  return {};
}

}  // namespace mkvirtfs
