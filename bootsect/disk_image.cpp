// SPDX-License-Identifier: BSD-3-Clause
//
// A disk is a sorted list of pieces, the images of its parts and the bytes of its tables, with
// holes between them. An extent of a part becomes one of the disk by two additions: where the part
// begins, and, of a content, where the numbers of the part's contents begin.
#include "bootsect/disk_image.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <iterator>
#include <utility>

namespace mkvirtfs::bootsect {
namespace {

ContentNo shifted(ContentNo content, std::uint32_t by) noexcept {
  return ContentNo{static_cast<std::uint32_t>(content) + by};
}

/// A disk's store as a part of it sees it: what an image derives, it derives of its own numbers.
class PartView final : public ContentStore {
 public:
  PartView(ContentStore& store, std::uint32_t first) : store_(store), first_(first) {}

  Result<void> read(ContentNo content, std::uint64_t offset, std::span<std::byte> out) override {
    return store_.read(shifted(content, first_), offset, out);
  }
  Result<bool> read_at_once(ContentNo content, std::uint64_t offset,
                            std::span<std::byte> out) override {
    return store_.read_at_once(shifted(content, first_), offset, out);
  }
  Result<Pin> pin(ContentNo content) override { return store_.pin(shifted(content, first_)); }
  Result<void> recheck(ContentNo content, const PinnedFile& file) override {
    return store_.recheck(shifted(content, first_), file);
  }
  std::string name(ContentNo content) const override {
    return store_.name(shifted(content, first_));
  }

 private:
  ContentStore& store_;
  std::uint32_t first_;
};

}  // namespace

DiskImage::DiskImage(std::uint64_t size_bytes, std::vector<DiskPart> parts,
                     std::vector<Patch> tables, Identity identity)
    : size_bytes_(size_bytes),
      parts_(std::move(parts)),
      tables_(std::move(tables)),
      identity_(std::move(identity)) {
  for (const DiskPart& part : parts_) {
    const Image& image = *part.contents.image;
    if (image.size_bytes() == 0) continue;
    pieces_.push_back({{part.placed.range.offset, image.size_bytes()}, &part, nullptr});
    preferred_block_bytes_ = std::max(preferred_block_bytes_, image.preferred_block_bytes());
  }
  for (const Patch& table : tables_) {
    if (table.bytes.empty()) continue;
    pieces_.push_back({{table.offset, table.bytes.size()}, nullptr, &table});
  }
  std::ranges::sort(pieces_, {}, [](const Piece& piece) { return piece.range.offset; });
}

std::vector<DiskImage::Piece>::const_iterator DiskImage::first_behind(
    std::uint64_t offset) const noexcept {
  return std::ranges::upper_bound(pieces_, offset, {},
                                  [](const Piece& piece) { return piece.range.end(); });
}

const DiskImage::Piece* DiskImage::piece_at(std::uint64_t offset) const noexcept {
  const auto piece = first_behind(offset);
  return piece != pieces_.end() && piece->range.offset <= offset ? &*piece : nullptr;
}

void DiskImage::map(Range range, ExtentSink& sink) const {
  assert(range.end() <= size_bytes_);
  auto piece = first_behind(range.offset);
  bool goes_on = true;
  for (std::uint64_t at = range.offset; goes_on && at < range.end();) {
    const std::uint64_t next =
        piece == pieces_.end() ? range.end() : std::min(piece->range.offset, range.end());
    if (at < next) {
      goes_on = sink.extent({.offset = at, .length = next - at});
      at = next;
      continue;
    }
    const std::uint64_t start = piece->range.offset;
    const std::uint64_t end = std::min(piece->range.end(), range.end());
    if (piece->table != nullptr) {
      const Extent memory{.offset = start,
                          .length = piece->range.length,
                          .kind = ExtentKind::memory,
                          .memory = piece->table->bytes.data()};
      goes_on = sink.extent(memory.clipped(at, end));
    } else {
      const DiskPart& part = *piece->part;
      for_each_extent(*part.contents.image, {at - start, end - at}, [&](Extent extent) {
        extent.offset += start;
        if (extent.kind == ExtentKind::content) {
          extent.content = shifted(extent.content, part.first_content);
        }
        return goes_on = sink.extent(extent);
      });
    }
    at = end;
    ++piece;
  }
}

Result<void> DiskImage::compute(std::uint64_t offset, std::span<std::byte> out,
                                ContentStore& contents) const {
  const Piece* const piece = piece_at(offset);
  assert(piece != nullptr && piece->part != nullptr);
  PartView view(contents, piece->part->first_content);
  return piece->part->contents.image->compute(offset - piece->range.offset, out, view);
}

bool DiskImage::has_derived() const noexcept {
  return std::ranges::any_of(
      parts_, [](const DiskPart& part) { return part.contents.image->has_derived(); });
}

void DiskImage::derived_from(Range range, ContentRangeSink& sink) const {
  struct Shifting final : ContentRangeSink {
    Shifting(ContentRangeSink& sink, std::uint32_t first) : sink_(sink), first_(first) {}
    bool content_range(ContentNo content, Range part) override {
      return sink_.content_range(shifted(content, first_), part);
    }

   private:
    ContentRangeSink& sink_;
    std::uint32_t first_;
  };
  const Piece* const piece = piece_at(range.offset);
  assert(piece != nullptr && piece->part != nullptr);
  Shifting shifting(sink, piece->part->first_content);
  piece->part->contents.image->derived_from({range.offset - piece->range.offset, range.length},
                                            shifting);
}

std::string DiskImage::describe(std::uint64_t offset) const {
  if (const Piece* const piece = piece_at(offset)) {
    const std::uint64_t in_piece = offset - piece->range.offset;
    if (piece->table != nullptr) return fmt::format("{}, at {}", piece->table->what, in_piece);
    return fmt::format("{}: {}", piece->part->what,
                       piece->part->contents.image->describe(in_piece));
  }
  for (const DiskPart& part : parts_) {
    const Range& range = part.placed.range;
    if (offset >= range.offset && offset < range.end()) {
      return fmt::format("{}: behind its image, at {}", part.what, offset - range.offset);
    }
  }
  return "outside the partitions";
}

std::uint64_t DiskImage::described_end(std::uint64_t offset) const {
  const auto piece = first_behind(offset);
  std::uint64_t end = piece == pieces_.end() ? size_bytes_ : piece->range.offset;
  if (end <= offset) {
    const std::uint64_t start = end;
    if (piece->table != nullptr) return piece->range.end();
    return start + piece->part->contents.image->described_end(offset - start);
  }
  for (const DiskPart& part : parts_) {
    if (part.placed.range.end() > offset) end = std::min(end, part.placed.range.end());
  }
  return end;
}

std::string DiskImage::remark() const {
  std::string all;
  for (const DiskPart& part : parts_) {
    const std::string remark = part.contents.image->remark();
    if (remark.empty()) continue;
    all += fmt::format("{}{}: {}", all.empty() ? "" : "; ", part.what, remark);
  }
  return all;
}

void DiskImage::differences(DifferenceSink& sink) const {
  for (const DiskPart& part : parts_) part.contents.image->differences(sink);
}

DiskContents::DiskContents(const std::vector<DiskPart>& parts) {
  for (const DiskPart& part : parts) {
    firsts_.push_back(part.first_content);
    stores_.push_back(part.contents.store);
  }
}

DiskContents::Place DiskContents::place_of(ContentNo content) const noexcept {
  const auto number = static_cast<std::uint32_t>(content);
  // Of parts without contents, which begin where the next one does, the last one is taken.
  const auto after = std::ranges::upper_bound(firsts_, number);
  assert(after != firsts_.begin());
  const auto part = static_cast<std::size_t>(after - firsts_.begin()) - 1;
  return {*stores_[part], ContentNo{number - firsts_[part]}};
}

Result<void> DiskContents::read(ContentNo content, std::uint64_t offset, std::span<std::byte> out) {
  const Place place = place_of(content);
  return place.store.read(place.content, offset, out);
}

Result<bool> DiskContents::read_at_once(ContentNo content, std::uint64_t offset,
                                        std::span<std::byte> out) {
  const Place place = place_of(content);
  return place.store.read_at_once(place.content, offset, out);
}

bool DiskContents::is_at_hand(ContentNo content, std::uint64_t offset, std::uint64_t length) {
  const Place place = place_of(content);
  return place.store.is_at_hand(place.content, offset, length);
}

void DiskContents::fetch(ContentNo content, std::uint64_t offset, std::uint64_t length) {
  const Place place = place_of(content);
  place.store.fetch(place.content, offset, length);
}

bool DiskContents::keeps_fetched(ContentNo content) {
  const Place place = place_of(content);
  return place.store.keeps_fetched(place.content);
}

Result<ContentStore::Pin> DiskContents::pin(ContentNo content) {
  const Place place = place_of(content);
  return place.store.pin(place.content);
}

Result<void> DiskContents::recheck(ContentNo content, const PinnedFile& file) {
  const Place place = place_of(content);
  return place.store.recheck(place.content, file);
}

void DiskContents::map(ContentNo content, Range range, ExtentSink& sink) {
  const Place place = place_of(content);
  place.store.map(place.content, range, sink);
}

std::string DiskContents::name(ContentNo content) const {
  const Place place = place_of(content);
  return place.store.name(place.content);
}

std::optional<ContentStore::HostFile> DiskContents::host_file(ContentNo content) const {
  const Place place = place_of(content);
  return place.store.host_file(place.content);
}

std::uint32_t DiskContents::source_of(ContentNo content) const {
  const Place place = place_of(content);
  return place.store.source_of(place.content);
}

}  // namespace mkvirtfs::bootsect
