// SPDX-License-Identifier: BSD-3-Clause
#include "block/overlay/found_overlay.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <span>
#include <utility>

#include "block/page_cache.h"
#include "support/arithmetic.h"
#include "support/byte_order.h"
#include "support/sha256.h"

// The header says how large the device is, and with that where everything lies. The journal comes
// before the map: where it is whole, its pages are newer than those in their places, which the host
// may have torn when it went down.

namespace mkvirtfs {
namespace {

constexpr std::uint64_t kPage = kOverlayPageBytes;

bool is_zero(std::span<const std::byte> bytes) noexcept {
  return std::ranges::all_of(bytes, [](std::byte byte) { return byte == std::byte{0}; });
}

class OverlayReader {
 public:
  OverlayReader(int fd, const std::string& path) : fd_(fd), path_(path) {}

  Result<FoundOverlay> read();

 private:
  std::unexpected<Error> damaged(std::string_view what) const {
    return fail(Errc::io, fmt::format("{}: {}", path_, what));
  }
  std::unexpected<Error> damaged_page(MapPageNo number) const {
    return damaged(
        fmt::format("page {} of its map is damaged", static_cast<std::uint64_t>(number)));
  }
  Result<void> read_page(std::uint64_t offset, OverlayPage& page) const;
  Result<void> read_facts();
  Result<void> read_journal(const OverlayLayout& layout);
  Result<void> read_map(const OverlayLayout& layout);
  void apply_journal(const OverlayLayout& layout);
  Result<void> count_states(const OverlayLayout& layout);

  const int fd_;
  const std::string& path_;
  FoundOverlay found_;
};

Result<void> OverlayReader::read_page(std::uint64_t offset, OverlayPage& page) const {
  const Result<std::size_t> count = read_fully(fd_, offset, page);
  if (!count) return fail_errno(Errc::io, count.error().os_errno, fmt::format("{}: read", path_));
  if (*count < page.size()) return damaged(fmt::format("it ends at byte {}", offset + *count));
  return {};
}

Result<void> OverlayReader::read_facts() {
  struct stat status{};
  if (::fstat(fd_, &status) != 0) return fail_errno(errno, fmt::format("{}: examine", path_));
  Result<FoundOverlayHeader> header = read_overlay_header(fd_, path_);
  if (!header) return propagate(header);
  found_.facts.path = path_;
  found_.facts.header = std::move(header->header);
  found_.facts.journal_was_pending = header->was_pending;
  found_.facts.file_bytes = static_cast<std::uint64_t>(status.st_blocks) * 512;
  const std::uint64_t whole_bytes = OverlayLayout(found_.facts.header.size_bytes).file_bytes();
  const auto file_size = static_cast<std::uint64_t>(status.st_size);
  if (file_size < whole_bytes) {
    return damaged(fmt::format("it has {} bytes of {}", file_size, whole_bytes));
  }
  return {};
}

/// A journal that is not whole was being written when the host went down: what it was to replace is
/// still there.
Result<void> OverlayReader::read_journal(const OverlayLayout& layout) {
  OverlayPage header;
  if (Result<void> got = read_page(kOverlayJournalAt, header); !got) return got;
  if (!is_sealed_overlay_page(header, kOverlayJournalMagic)) return {};
  found_.sequence = load_le<std::uint64_t>(header, kJournalSequenceAt);
  const auto count = load_le<std::uint64_t>(header, kJournalCountAt);
  if (count > layout.map_pages()) return damaged("its journal is damaged");
  OverlayPage page;
  Sha256 sha;
  std::uint64_t entries = 0;
  for (; entries < count; ++entries) {
    if (Result<void> got = read_page(OverlayLayout::kJournalPagesAt + entries * kPage, page);
        !got) {
      return got;
    }
    // Any other page ends it: a count is no reason to read a file of holes for years.
    const std::optional<MapPageNo> number = map_page_number(page);
    if (!number || static_cast<std::uint64_t>(*number) >= layout.map_pages()) break;
    sha.update(page);
    found_.journal[*number] = page;
  }
  const std::array<std::byte, 32> sum = sha.finish();
  const auto expected = std::span(header).subspan(kJournalChecksumAt, kOverlayChecksumBytes);
  if (entries < count ||
      !std::ranges::equal(std::span(sum).first(kOverlayChecksumBytes), expected)) {
    found_.journal.clear();
  }
  return {};
}

/// Pages that were never written are holes of the file.
Result<void> OverlayReader::read_map(const OverlayLayout& layout) {
  OverlayPage page;
  for (std::uint64_t at = layout.map_offset(); at < layout.map_end(); at += kPage) {
    const off_t data = ::lseek(fd_, static_cast<off_t>(at), SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;
    if (data >= 0) {
      at = std::max(at, round_down<std::uint64_t>(static_cast<std::uint64_t>(data), kPage));
    }
    if (at >= layout.map_end()) break;
    const MapPageNo number{(at - layout.map_offset()) / kPage};
    if (Result<void> got = read_page(at, page); !got) return got;
    if (found_.journal.contains(number) || is_zero(page)) continue;
    if (map_page_number(page) != number) return damaged_page(number);
    found_.pages[number] = page;
  }
  return {};
}

void OverlayReader::apply_journal(const OverlayLayout& layout) {
  for (const auto& [number, page] : found_.journal) {
    OverlayPage in_place{};
    const bool is_done = read_page(layout.offset_of(number), in_place) && in_place == page;
    if (!is_done) found_.facts.journal_was_pending = true;
    found_.pages[number] = page;
  }
}

Result<void> OverlayReader::count_states(const OverlayLayout& layout) {
  for (const auto& [number, page] : found_.pages) {
    const std::uint64_t blocks = layout.blocks_of(number).count;
    for (std::uint64_t place = 0; place < kBlocksPerMapPage; ++place) {
      const unsigned state = state_bits(page, place);
      if (state == 3 || (state != 0 && place >= blocks)) return damaged_page(number);
      if (BlockState{static_cast<std::uint8_t>(state)} == BlockState::here) {
        ++found_.facts.written_blocks;
      } else if (state != 0) {
        ++found_.facts.zero_blocks;
      }
    }
  }
  return {};
}

Result<FoundOverlay> OverlayReader::read() {
  if (Result<void> done = read_facts(); !done) return propagate(done);
  const OverlayLayout layout(found_.facts.header.size_bytes);
  if (Result<void> done = read_journal(layout); !done) return propagate(done);
  if (Result<void> done = read_map(layout); !done) return propagate(done);
  apply_journal(layout);
  if (Result<void> done = count_states(layout); !done) return propagate(done);
  return std::move(found_);
}

}  // namespace

Result<FoundOverlay> read_overlay(const UniqueFd& file, const std::string& path) {
  return OverlayReader(file.get(), path).read();
}

}  // namespace mkvirtfs
