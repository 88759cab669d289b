// SPDX-License-Identifier: BSD-3-Clause
#include "block/overlay/layout.h"

#include <algorithm>
#include <span>

#include "support/arithmetic.h"
#include "support/byte_order.h"

namespace mkvirtfs {
namespace {

constexpr std::uint64_t kPage = kOverlayPageBytes;
constexpr std::uint64_t kDataAlignment = 2U << 20;

// Where the fields of a page of the map stand.
constexpr std::size_t kNumberAt = 8;
constexpr std::size_t kStatesAt = 64;
constexpr std::size_t kBlocksPerByte = 4;
static_assert(kStatesAt + kBlocksPerMapPage / kBlocksPerByte <= kPage - kOverlayChecksumBytes);

constexpr unsigned shift_of(std::uint64_t place) noexcept {
  return static_cast<unsigned>(place % kBlocksPerByte * 2);
}

}  // namespace

OverlayLayout::OverlayLayout(std::uint64_t size_bytes) noexcept
    : blocks_(ceil_div<std::uint64_t>(size_bytes, kOverlayBlockBytes)),
      map_pages_(ceil_div(blocks_, kBlocksPerMapPage)),
      // The journal has room for all pages of the map.
      map_at_(kJournalPagesAt + map_pages_ * kPage),
      data_at_(round_up<std::uint64_t>(map_at_ + map_pages_ * kPage, kDataAlignment)),
      file_bytes_(data_at_ + size_bytes) {}

OverlayBlocks OverlayLayout::blocks_of(MapPageNo page) const noexcept {
  const std::uint64_t first = static_cast<std::uint64_t>(page) * kBlocksPerMapPage;
  return {first, std::min(kBlocksPerMapPage, blocks_ - first)};
}

OverlayPage make_map_page(MapPageNo number, OverlayBlocks blocks, const BlockStates& states) {
  OverlayPage page{};
  store_le(std::span(page), kNumberAt, static_cast<std::uint64_t>(number));
  for (std::uint64_t block = blocks.first; block < blocks.end();) {
    const BlockStates::Run run = states.run_at({block, blocks.end() - block});
    for (; block < run.blocks.end(); ++block) {
      const std::uint64_t place = block - blocks.first;
      page[kStatesAt + place / kBlocksPerByte] |=
          static_cast<std::byte>(static_cast<unsigned>(run.state) << shift_of(place));
    }
  }
  seal_overlay_page(page, kOverlayMapMagic);
  return page;
}

std::optional<MapPageNo> map_page_number(const OverlayPage& page) {
  if (!is_sealed_overlay_page(page, kOverlayMapMagic)) return std::nullopt;
  return MapPageNo{load_le<std::uint64_t>(page, kNumberAt)};
}

unsigned state_bits(const OverlayPage& page, std::uint64_t place) noexcept {
  return static_cast<unsigned>(page[kStatesAt + place / kBlocksPerByte]) >> shift_of(place) & 3U;
}

}  // namespace mkvirtfs
