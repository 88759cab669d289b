// SPDX-License-Identifier: BSD-3-Clause
//
// A range of a joined content is cut where its pieces begin, and each part is asked of what the
// piece is made of. A piece may be a joined content itself: its own store cuts it further.
#include "block/joined_contents.h"

#include <algorithm>
#include <cassert>
#include <iterator>
#include <utility>

namespace mkvirtfs {
namespace {

const ContentPiece::Other* other_of(const ContentPiece& piece) noexcept {
  return std::get_if<ContentPiece::Other>(&piece.from);
}

/// Zeroes, or bytes in memory; false for a piece that another store has.
bool copied(const ContentPiece& piece, Range part, std::span<std::byte> out) noexcept {
  if (other_of(piece) != nullptr) return false;
  if (const auto* memory = std::get_if<ContentPiece::Memory>(&piece.from)) {
    std::copy_n(memory->bytes->data() + memory->offset + part.offset, part.length, out.data());
  } else {
    std::ranges::fill(out, std::byte{0});
  }
  return true;
}

}  // namespace

ContentPiece ContentPiece::memory(std::vector<std::byte> bytes) {
  const std::uint64_t length = bytes.size();
  return {length, Memory{std::make_shared<const std::vector<std::byte>>(std::move(bytes)), 0}};
}

std::uint64_t JoinedContent::size_bytes() const noexcept {
  std::uint64_t sum = 0;
  for (const ContentPiece& piece : pieces) sum += piece.length;
  return sum;
}

JoinedContents::JoinedContents(std::map<ContentNo, JoinedContent> contents) {
  for (auto& [number, content] : contents) {
    Placed placed;
    std::uint64_t at = 0;
    for (const ContentPiece& piece : content.pieces) {
      assert(piece.length != 0);
      placed.starts.push_back(at);
      at += piece.length;
    }
    placed.content = std::move(content);
    contents_.emplace(number, std::move(placed));
  }
}

template <class Visit>
void JoinedContents::for_each_part(ContentNo content, Range range, Visit&& visit) const {
  const Placed& placed = contents_.at(content);
  const std::vector<ContentPiece>& pieces = placed.content.pieces;
  auto piece = static_cast<std::size_t>(std::ranges::upper_bound(placed.starts, range.offset) -
                                        placed.starts.begin());
  for (--piece; range.length > 0; ++piece) {
    assert(piece < pieces.size());
    const std::uint64_t skip = range.offset - placed.starts[piece];
    const std::uint64_t length = std::min(range.length, pieces[piece].length - skip);
    if (!visit(pieces[piece], Range{skip, length}, range.offset)) return;
    range = {range.offset + length, range.length - length};
  }
}

Result<void> JoinedContents::read(ContentNo content, std::uint64_t offset,
                                  std::span<std::byte> out) {
  Result<void> done;
  for_each_part(content, {offset, out.size()},
                [&](const ContentPiece& piece, Range part, std::uint64_t at) {
                  const auto into = out.subspan(at - offset, part.length);
                  if (copied(piece, part, into)) return true;
                  const ContentPiece::Other& other = *other_of(piece);
                  done = other.store->read(other.content, other.offset + part.offset, into);
                  return done.has_value();
                });
  return done;
}

Result<bool> JoinedContents::read_at_once(ContentNo content, std::uint64_t offset,
                                          std::span<std::byte> out) {
  Result<bool> done = true;
  for_each_part(content, {offset, out.size()},
                [&](const ContentPiece& piece, Range part, std::uint64_t at) {
                  const auto into = out.subspan(at - offset, part.length);
                  if (copied(piece, part, into)) return true;
                  const ContentPiece::Other& other = *other_of(piece);
                  done = other.store->read_at_once(other.content, other.offset + part.offset, into);
                  return done && *done;
                });
  return done;
}

bool JoinedContents::is_at_hand(ContentNo content, std::uint64_t offset, std::uint64_t length) {
  bool all = true;
  for_each_part(
      content, {offset, length}, [&](const ContentPiece& piece, Range part, std::uint64_t) {
        const ContentPiece::Other* other = other_of(piece);
        all = other == nullptr ||
              other->store->is_at_hand(other->content, other->offset + part.offset, part.length);
        return all;
      });
  return all;
}

void JoinedContents::fetch(ContentNo content, std::uint64_t offset, std::uint64_t length) {
  for_each_part(content, {offset, length},
                [&](const ContentPiece& piece, Range part, std::uint64_t) {
                  if (const ContentPiece::Other* other = other_of(piece)) {
                    other->store->fetch(other->content, other->offset + part.offset, part.length);
                  }
                  return true;
                });
}

bool JoinedContents::keeps_fetched(ContentNo content) {
  return std::ranges::all_of(contents_.at(content).content.pieces, [](const ContentPiece& piece) {
    const ContentPiece::Other* other = other_of(piece);
    return other == nullptr || other->store->keeps_fetched(other->content);
  });
}

std::string JoinedContents::name(ContentNo content) const {
  return contents_.at(content).content.name;
}

void JoinedContents::map(ContentNo content, Range range, ExtentSink& sink) {
  for_each_part(content, range, [&](const ContentPiece& piece, Range part, std::uint64_t at) {
    if (const ContentPiece::Other* other = other_of(piece)) {
      // Its offsets become those of this content.
      bool goes_on = true;
      const std::uint64_t begin = other->offset + part.offset;
      const auto place = [&](Extent extent) {
        extent.offset = at + (extent.offset - begin);
        return goes_on = sink.extent(extent);
      };
      CallableSink<decltype(place)> places(place);
      other->store->map(other->content, {begin, part.length}, places);
      return goes_on;
    }
    Extent extent{.offset = at, .length = part.length};
    if (const auto* memory = std::get_if<ContentPiece::Memory>(&piece.from)) {
      extent.kind = ExtentKind::memory;
      extent.memory = memory->bytes->data() + memory->offset + part.offset;
    }
    return sink.extent(extent);
  });
}

}  // namespace mkvirtfs
