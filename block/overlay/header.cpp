// SPDX-License-Identifier: BSD-3-Clause
#include "block/overlay/header.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cstring>

#include "block/overlay/layer.h"
#include "block/page_cache.h"
#include "support/byte_order.h"
#include "support/sha256.h"

namespace mkvirtfs {
namespace {

constexpr std::size_t kChecksumAt = kOverlayPageBytes - kOverlayChecksumBytes;

constexpr std::size_t kVersionAt = 8;
constexpr std::size_t kBlockBytesAt = 12;
constexpr std::size_t kSizeAt = 16;
constexpr std::size_t kBaseAt = 24;
// From here on of version 2.
constexpr std::size_t kLayerAt = 56;
constexpr std::size_t kOwnFromAt = 60;
constexpr std::size_t kIdAt = 64;
constexpr std::size_t kBelowIdAt = 80;
constexpr std::size_t kOriginLengthAt = 96;
constexpr std::size_t kOriginAt = 98;
static_assert(kOriginAt + OverlayHeader::kLongestOrigin <= kChecksumAt);

template <std::size_t size>
void load(const OverlayPage& page, std::size_t at, std::array<std::byte, size>& into) noexcept {
  std::memcpy(into.data(), page.data() + at, size);
}

template <std::size_t size>
void store(OverlayPage& page, std::size_t at, const std::array<std::byte, size>& from) noexcept {
  std::memcpy(page.data() + at, from.data(), size);
}

/// False when the file ends before.
Result<bool> read_page(int fd, std::uint64_t offset, OverlayPage& page, const std::string& path) {
  const Result<std::size_t> count = read_fully(fd, offset, page);
  if (!count) return fail_errno(Errc::io, count.error().os_errno, fmt::format("{}: read", path));
  return *count == page.size();
}

/// A header is replaced by way of the journal, so that no torn write can end it: then the journal
/// holds nothing else.
bool is_journaled_header(const OverlayPage& journal, const OverlayPage& entry) {
  return is_sealed_overlay_page(journal, kOverlayJournalMagic) &&
         load_le<std::uint64_t>(journal, kJournalCountAt) == 1 &&
         is_sealed_overlay_page(entry, kOverlayHeaderMagic) &&
         std::ranges::equal(overlay_checksum(entry),
                            std::span(journal).subspan(kJournalChecksumAt, kOverlayChecksumBytes));
}

/// What a sealed header says; false when no program of ours would write it so.
bool parse(const OverlayPage& page, OverlayHeader& header) {
  const auto version = load_le<std::uint32_t>(page, kVersionAt);
  header.size_bytes = load_le<std::uint64_t>(page, kSizeAt);
  load(page, kBaseAt, header.base);
  if (load_le<std::uint32_t>(page, kBlockBytesAt) != OverlayLayer::kBlockBytes || version == 0 ||
      header.size_bytes >= std::uint64_t{1} << 62) {
    return false;
  }
  if (version == 1) return true;
  header.layer = load_le<std::uint32_t>(page, kLayerAt);
  header.own_from = load_le<std::uint32_t>(page, kOwnFromAt);
  load(page, kIdAt, header.id);
  load(page, kBelowIdAt, header.below_id);
  const auto length = load_le<std::uint16_t>(page, kOriginLengthAt);
  if (length > OverlayHeader::kLongestOrigin) return false;
  header.origin.assign(reinterpret_cast<const char*>(page.data()) + kOriginAt, length);
  return header.version() == version && header.layer >= 1 &&
         header.layer <= OverlayHeader::kMostLayers && header.own_from >= 1 &&
         header.own_from <= header.layer && (header.layer == 1) == (header.below_id == LayerId{}) &&
         header.page() == page;  // all else is zero
}

}  // namespace

OverlayChecksum overlay_checksum(std::span<const std::byte> bytes) {
  Sha256 sha;
  sha.update(bytes);
  const std::array<std::byte, 32> whole = sha.finish();
  OverlayChecksum half;
  std::copy_n(whole.begin(), half.size(), half.begin());
  return half;
}

void seal_overlay_page(OverlayPage& page, std::string_view magic) {
  std::memcpy(page.data(), magic.data(), magic.size());
  std::ranges::copy(overlay_checksum(std::span(page).first(kChecksumAt)),
                    page.begin() + kChecksumAt);
}

bool is_sealed_overlay_page(const OverlayPage& page, std::string_view magic) {
  return std::memcmp(page.data(), magic.data(), magic.size()) == 0 &&
         std::ranges::equal(overlay_checksum(std::span(page).first(kChecksumAt)),
                            std::span(page).subspan(kChecksumAt));
}

OverlayPage OverlayHeader::page() const {
  assert(origin.size() <= kLongestOrigin);
  OverlayPage page{};
  store_le(std::span(page), kVersionAt, version());
  store_le(std::span(page), kBlockBytesAt, OverlayLayer::kBlockBytes);
  store_le(std::span(page), kSizeAt, size_bytes);
  store(page, kBaseAt, base);
  if (version() > 1) {
    store_le(std::span(page), kLayerAt, layer);
    store_le(std::span(page), kOwnFromAt, own_from);
    store(page, kIdAt, id);
    store(page, kBelowIdAt, below_id);
    store_le(std::span(page), kOriginLengthAt, static_cast<std::uint16_t>(origin.size()));
    std::memcpy(page.data() + kOriginAt, origin.data(), origin.size());
  }
  seal_overlay_page(page, kOverlayHeaderMagic);
  return page;
}

Result<FoundOverlayHeader> read_overlay_header(int fd, const std::string& path) {
  const auto damaged = [&](const char* what) {
    return fail(Errc::io, fmt::format("{}: {}", path, what));
  };
  OverlayPage page;
  Result<bool> got = read_page(fd, 0, page, path);
  if (!got) return propagate(got);
  if (!*got) return damaged("it is too short to be an overlay");
  if (std::memcmp(page.data(), kOverlayHeaderMagic.data(), kOverlayHeaderMagic.size()) != 0) {
    return fail(Errc::usage, fmt::format("{}: it is not an overlay of mkvirtfs", path));
  }
  const auto check_version = [&]() -> Result<void> {
    const auto version = load_le<std::uint32_t>(page, kVersionAt);
    if (version <= OverlayHeader::kNewestVersion) return {};
    return fail(Errc::unsupported,
                fmt::format("{}: it is an overlay of version {}, and this program knows versions "
                            "up to {}",
                            path, version, OverlayHeader::kNewestVersion));
  };
  if (Result<void> known = check_version(); !known) return propagate(known);
  FoundOverlayHeader found;
  OverlayPage journal;
  OverlayPage entry;
  // Where the file ends before the entry, there is none.
  got = read_page(fd, kOverlayJournalAt, journal, path);
  if (got && *got) got = read_page(fd, kOverlayJournalAt + kOverlayPageBytes, entry, path);
  if (!got) return propagate(got);
  if (*got && is_journaled_header(journal, entry)) {
    found.was_pending = page != entry;
    page = entry;
    if (Result<void> known = check_version(); !known) return propagate(known);
  }
  if (!is_sealed_overlay_page(page, kOverlayHeaderMagic) || !parse(page, found.header)) {
    return damaged("its header is damaged");
  }
  return found;
}

}  // namespace mkvirtfs
