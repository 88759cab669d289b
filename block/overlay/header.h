// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "support/error.h"

// The pages of an overlay's file, and the first of them (docs/layout-overlay.md).

namespace mkvirtfs {

/// What an overlay lies over: the same tree and the same options give the same anywhere (law 1).
using ImageId = std::array<std::byte, 32>;
/// Made at random when a layer is frozen: it names the layer and what it holds for good.
using LayerId = std::array<std::byte, 16>;

inline constexpr std::size_t kOverlayPageBytes = 4096;
using OverlayPage = std::array<std::byte, kOverlayPageBytes>;

/// Each page begins with what kind it is.
inline constexpr std::string_view kOverlayHeaderMagic = "MKVOVL\r\n";
inline constexpr std::string_view kOverlayJournalMagic = "MKVJRNL\n";
inline constexpr std::string_view kOverlayMapMagic = "MKVMAP\r\n";

/// Where the fields of the journal's header are.
inline constexpr std::uint64_t kOverlayJournalAt = kOverlayPageBytes;
inline constexpr std::size_t kJournalSequenceAt = 8;
inline constexpr std::size_t kJournalCountAt = 16;
inline constexpr std::size_t kJournalChecksumAt = 24;

/// The first half of SHA-256.
inline constexpr std::size_t kOverlayChecksumBytes = 16;
using OverlayChecksum = std::array<std::byte, kOverlayChecksumBytes>;
OverlayChecksum overlay_checksum(std::span<const std::byte> bytes);

/// Puts the magic number in front and the checksum at the end.
void seal_overlay_page(OverlayPage& page, std::string_view magic);
/// The page is what it was when it was sealed, and of this kind.
bool is_sealed_overlay_page(const OverlayPage& page, std::string_view magic);

/// What the first page says.
struct OverlayHeader {
  static constexpr std::uint32_t kNewestVersion = 2;
  /// Each layer costs every read a look.
  static constexpr std::uint32_t kMostLayers = 16;
  static constexpr std::size_t kLongestOrigin = 255;

  std::uint64_t size_bytes = 0;  ///< of the device
  ImageId base{};
  /// How many layers there are with this one: 1 lies on the base itself.
  std::uint32_t layer = 1;
  /// The first of these that belongs to this overlay alone; above 1 when it began as a snapshot of
  /// another one.
  std::uint32_t own_from = 1;
  LayerId id{};        ///< zeroes until it is frozen
  LayerId below_id{};  ///< of the layer below; zeroes when that is the base
  /// The export whose image the base is, when the overlay began as a snapshot; "" is the default
  /// one.
  std::string origin{};

  bool is_frozen() const noexcept { return id != LayerId{}; }
  bool is_branch() const noexcept { return own_from > 1; }
  /// The oldest that can say all this.
  std::uint32_t version() const noexcept { return layer > 1 || is_frozen() ? 2 : 1; }

  OverlayPage page() const;
  bool operator==(const OverlayHeader&) const = default;
};

/// The header of a file, as it stands or as the journal says.
struct FoundOverlayHeader {
  OverlayHeader header;
  bool was_pending = false;  ///< it stands only in the journal
};

/// Errc::usage for what is no overlay, Errc::unsupported for a newer version, Errc::io for a
/// damaged one. `path` is for messages.
Result<FoundOverlayHeader> read_overlay_header(int fd, const std::string& path);

}  // namespace mkvirtfs
