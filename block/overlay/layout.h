// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "block/overlay/block_states.h"
#include "block/overlay/header.h"

// Where the parts of an overlay's file are, and the pages of its map (docs/layout-overlay.md).

namespace mkvirtfs {

/// What an overlay keeps apart from the device below.
inline constexpr std::uint32_t kOverlayBlockBytes = 4096;

/// A page of the map, which holds the states of kBlocksPerMapPage blocks.
enum class MapPageNo : std::uint64_t {};
inline constexpr std::uint64_t kBlocksPerMapPage = 31 * BlockStates::kGroupBlocks;

/// A function of the device's size alone.
class OverlayLayout {
 public:
  /// The pages that the journal holds, behind its header at kOverlayJournalAt.
  static constexpr std::uint64_t kJournalPagesAt = 2 * kOverlayPageBytes;

  explicit OverlayLayout(std::uint64_t size_bytes) noexcept;

  std::uint64_t blocks() const noexcept { return blocks_; }
  std::uint64_t map_pages() const noexcept { return map_pages_; }
  /// The blocks whose states are in that page.
  OverlayBlocks blocks_of(MapPageNo page) const noexcept;

  std::uint64_t offset_of(MapPageNo page) const noexcept {
    return map_at_ + static_cast<std::uint64_t>(page) * kOverlayPageBytes;
  }
  std::uint64_t map_offset() const noexcept { return map_at_; }
  std::uint64_t map_end() const noexcept { return map_at_ + map_pages_ * kOverlayPageBytes; }
  /// The bytes of the device, at their own offsets from here on.
  std::uint64_t data_offset() const noexcept { return data_at_; }
  std::uint64_t file_bytes() const noexcept { return file_bytes_; }

 private:
  std::uint64_t blocks_;
  std::uint64_t map_pages_;
  std::uint64_t map_at_;
  std::uint64_t data_at_;
  std::uint64_t file_bytes_;
};

/// The page of the map that holds the states of these blocks. Sealed.
OverlayPage make_map_page(MapPageNo number, OverlayBlocks blocks, const BlockStates& states);
/// The number that stands in a page of the map; nothing when it is no such page, or damaged.
std::optional<MapPageNo> map_page_number(const OverlayPage& page);
/// The two bits of a block, by its place in the page: a BlockState, or 3 where it is damaged.
unsigned state_bits(const OverlayPage& page, std::uint64_t place) noexcept;

}  // namespace mkvirtfs
