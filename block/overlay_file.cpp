// SPDX-License-Identifier: BSD-3-Clause
#include "block/overlay_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include "block/overlay.h"
#include "block/page_cache.h"
#include "support/arithmetic.h"
#include "support/byte_order.h"
#include "support/sha256.h"

namespace mkvirtfs {
namespace {

constexpr std::uint64_t kPage = OverlayFile::kPageBytes;
constexpr std::string_view kHeaderMagic = "MKVOVL\r\n";
constexpr std::string_view kJournalMagic = "MKVJRNL\n";
constexpr std::string_view kMapMagic = "MKVMAP\r\n";
constexpr std::size_t kChecksumBytes = 16;

// Where the fields stand in their pages. Each page begins with its magic number and ends with its
// checksum.
constexpr std::size_t kVersionAt = 8;
constexpr std::size_t kBlockBytesAt = 12;
constexpr std::size_t kSizeAt = 16;
constexpr std::size_t kBaseAt = 24;
constexpr std::size_t kSequenceAt = 8;
constexpr std::size_t kCountAt = 16;
constexpr std::size_t kEntriesChecksumAt = 24;
constexpr std::size_t kNumberAt = 8;
constexpr std::size_t kStatesAt = 64;
constexpr std::size_t kStatesBytes = OverlayFile::kBlocksPerPage / 4;
constexpr std::size_t kChecksumAt = kPage - kChecksumBytes;
static_assert(kStatesAt + kStatesBytes <= kChecksumAt);

using Checksum = std::array<std::byte, kChecksumBytes>;

/// The first half of SHA-256.
template <class... Parts>
Checksum checksum_of(const Parts&... parts) {
  Sha256 sha;
  (sha.update(std::as_bytes(std::span(parts))), ...);
  const std::array<std::byte, 32> whole = sha.finish();
  Checksum half;
  std::copy_n(whole.begin(), half.size(), half.begin());
  return half;
}

bool is_zero(std::span<const std::byte> bytes) noexcept {
  return std::ranges::all_of(bytes, [](std::byte byte) { return byte == std::byte{0}; });
}

void put(std::span<std::byte> page, std::size_t at, std::string_view text) noexcept {
  std::memcpy(page.data() + at, text.data(), text.size());
}

void seal(std::span<std::byte> page) {
  std::ranges::copy(checksum_of(page.first(kChecksumAt)), page.begin() + kChecksumAt);
}

/// The page is what it was when it was written, and of this kind.
bool is_sealed(std::span<const std::byte> page, std::string_view magic) {
  return std::memcmp(page.data(), magic.data(), magic.size()) == 0 &&
         std::ranges::equal(checksum_of(page.first(kChecksumAt)), page.subspan(kChecksumAt));
}

std::string in_file(const std::string& path, std::string_view what) {
  return fmt::format("{}: {}", path, what);
}

/// Whether the file is empty, or was given its length and nothing else: what ended before its
/// header was on the disk holds nothing that was promised to anybody.
Result<bool> is_unwritten(int fd, std::uint64_t whole_bytes, const std::string& path) {
  struct stat status{};
  if (::fstat(fd, &status) != 0) return fail_errno(errno, in_file(path, "examine"));
  if (!S_ISREG(status.st_mode)) return fail(Errc::usage, in_file(path, "it is not a regular file"));
  if (status.st_size == 0) return true;
  if (static_cast<std::uint64_t>(status.st_size) != whole_bytes) return false;
  std::array<std::byte, kPage> header;
  const Result<std::size_t> count = read_fully(fd, 0, header);
  if (!count) return fail_errno(Errc::io, count.error().os_errno, in_file(path, "read"));
  return is_zero(header) && ::lseek(fd, kPage, SEEK_DATA) < 0;
}

/// A new name is on the disk when its directory is.
Result<void> sync_directory_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "."
                                : slash == 0               ? "/"
                                                           : path.substr(0, slash);
  const UniqueFd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd || ::fsync(fd.get()) != 0) return fail_errno(Errc::io, errno, in_file(directory, "sync"));
  return {};
}

}  // namespace

/// Where the parts of a file are: a function of the device's size alone.
struct OverlayFile::Layout {
  explicit Layout(std::uint64_t size_bytes)
      : blocks(ceil_div<std::uint64_t>(size_bytes, Overlay::kBlockBytes)),
        map_pages(ceil_div(blocks, kBlocksPerPage)),
        map_at(2 * kPage + map_pages * kPage),
        data_at(round_up<std::uint64_t>(map_at + map_pages * kPage, 2U << 20)),
        file_bytes(data_at + size_bytes) {}

  static constexpr std::uint64_t journal_at = kPage;
  static constexpr std::uint64_t journal_pages_at = 2 * kPage;
  std::uint64_t blocks;
  std::uint64_t map_pages;
  std::uint64_t map_at;
  std::uint64_t data_at;
  std::uint64_t file_bytes;
};

/// What an overlay holds, as it was found.
struct OverlayFile::Opened {
  Facts facts;
  std::map<std::uint64_t, Page> pages;    // of the map, with what the journal says of them
  std::map<std::uint64_t, Page> journal;  // of these
  std::uint64_t sequence = 0;
};

Result<ImageId> image_id(BlockDevice& device) {
  Sha256 sha;
  const auto add = [&](std::uint64_t number) {
    std::array<std::byte, 8> bytes;
    store_le(bytes, 0, number);
    sha.update(bytes);
  };
  const std::uint64_t size_bytes = device.geometry().size_bytes;
  add(size_bytes);
  std::vector<std::byte> bytes;
  Result<void> result;
  for_each_extent(device, {0, size_bytes}, [&](const Extent& extent) {
    add(extent.offset);
    add(extent.length);
    if (extent.kind == ExtentKind::hole) {
      add(0);
    } else if (extent.kind == ExtentKind::content) {
      // The bytes of files are told by their names, sizes and times, which stand elsewhere.
      add(1);
      add(static_cast<std::uint64_t>(extent.content));
      add(extent.content_offset);
    } else {
      // Computed or in memory is for the planner to choose.
      add(2);
      for (std::uint64_t done = 0; result && done < extent.length; done += bytes.size()) {
        bytes.resize(static_cast<std::size_t>(
            std::min<std::uint64_t>(extent.length - done, std::uint64_t{1} << 20)));
        result = device.read(extent.offset + done, bytes);
        sha.update(bytes);
      }
    }
    return result.has_value();
  });
  if (!result) return std::unexpected(std::move(result.error()));
  return sha.finish();
}

OverlayFile::OverlayFile(UniqueFd file, std::uint64_t size_bytes, std::string path,
                         FileOperations& operations)
    : size_bytes_(size_bytes),
      path_(std::move(path)),
      operations_(operations),
      store_(std::make_shared<OverlayStore>(std::move(file), Layout(size_bytes).data_at, path_,
                                            operations)),
      changed_(Layout(size_bytes).map_pages) {}

Result<OverlayFile::Opened> OverlayFile::read_all(const UniqueFd& file, const std::string& path) {
  const auto damaged = [&](const std::string& what) { return fail(Errc::io, in_file(path, what)); };
  const auto read_page = [&](std::uint64_t offset, Page& page) -> Result<void> {
    const Result<std::size_t> count = read_fully(file.get(), offset, page);
    if (!count) return fail_errno(Errc::io, count.error().os_errno, in_file(path, "read"));
    if (*count < page.size()) return damaged(fmt::format("it ends at byte {}", offset + *count));
    return {};
  };
  struct stat status{};
  if (::fstat(file.get(), &status) != 0) return fail_errno(errno, in_file(path, "examine"));

  Opened found;
  Page page;
  if (Result<void> got = read_page(0, page); !got) {
    return damaged("it is too short to be an overlay");
  }
  if (std::memcmp(page.data(), kHeaderMagic.data(), kHeaderMagic.size()) != 0) {
    return fail(Errc::usage, in_file(path, "it is not an overlay of mkvirtfs"));
  }
  found.facts.version = load_le<std::uint32_t>(page, kVersionAt);
  if (found.facts.version > kVersion) {
    return fail(Errc::unsupported,
                in_file(path, fmt::format("it is an overlay of version {}, and this program knows "
                                          "versions up to {}",
                                          found.facts.version, kVersion)));
  }
  if (!is_sealed(page, kHeaderMagic) || found.facts.version == 0 ||
      load_le<std::uint32_t>(page, kBlockBytesAt) != Overlay::kBlockBytes) {
    return damaged("its header is damaged");
  }
  found.facts.size_bytes = load_le<std::uint64_t>(page, kSizeAt);
  if (found.facts.size_bytes >= std::uint64_t{1} << 62) return damaged("its header is damaged");
  std::copy_n(page.begin() + kBaseAt, found.facts.base.size(), found.facts.base.begin());
  const Layout layout(found.facts.size_bytes);
  const auto file_size = static_cast<std::uint64_t>(status.st_size);
  if (file_size < layout.file_bytes) {
    return damaged(fmt::format("it has {} bytes of {}", file_size, layout.file_bytes));
  }
  found.facts.file_bytes = static_cast<std::uint64_t>(status.st_blocks) * 512;

  // A journal that is not whole was being written when the host went down: what it was to replace
  // is still there.
  Page journal;
  if (Result<void> got = read_page(Layout::journal_at, journal); !got) {
    return std::unexpected(got.error());
  }
  if (is_sealed(journal, kJournalMagic)) {
    found.sequence = load_le<std::uint64_t>(journal, kSequenceAt);
    const auto count = load_le<std::uint64_t>(journal, kCountAt);
    if (count > layout.map_pages) return damaged("its journal is damaged");
    Sha256 sha;
    std::uint64_t entries = 0;
    while (entries < count) {
      if (Result<void> got = read_page(Layout::journal_pages_at + entries * kPage, page); !got) {
        return std::unexpected(got.error());
      }
      // Any other page ends it: a count is no reason to read a file of holes for years.
      const auto number = load_le<std::uint64_t>(page, kNumberAt);
      if (!is_sealed(page, kMapMagic) || number >= layout.map_pages) break;
      sha.update(page);
      found.journal[number] = page;
      ++entries;
    }
    const std::array<std::byte, 32> sum = sha.finish();
    if (entries < count ||
        !std::ranges::equal(std::span(sum).first(kChecksumBytes),
                            std::span(journal).subspan(kEntriesChecksumAt, kChecksumBytes))) {
      found.journal.clear();
    }
  }

  // Pages that were never written are holes of the file.
  const std::uint64_t map_end = layout.map_at + layout.map_pages * kPage;
  for (std::uint64_t at = layout.map_at; at < map_end; at += kPage) {
    const off_t data = ::lseek(file.get(), static_cast<off_t>(at), SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;
    if (data >= 0)
      at = std::max(at, round_down<std::uint64_t>(static_cast<std::uint64_t>(data), kPage));
    if (at >= map_end) break;
    const std::uint64_t number = (at - layout.map_at) / kPage;
    if (Result<void> got = read_page(at, page); !got) return std::unexpected(got.error());
    if (found.journal.contains(number) || is_zero(page)) continue;
    if (!is_sealed(page, kMapMagic) || load_le<std::uint64_t>(page, kNumberAt) != number) {
      return damaged(fmt::format("page {} of its map is damaged", number));
    }
    found.pages[number] = page;
  }
  for (const auto& [number, replaced] : found.journal) {
    const Page now = [&] {
      Page in_place;
      return read_page(layout.map_at + number * kPage, in_place) ? in_place : Page{};
    }();
    if (now != replaced) found.facts.journal_was_pending = true;
    found.pages[number] = replaced;
  }
  for (const auto& [number, states] : found.pages) {
    const std::uint64_t blocks = std::min(kBlocksPerPage, layout.blocks - number * kBlocksPerPage);
    for (std::uint64_t block = 0; block < kBlocksPerPage; ++block) {
      const auto byte = static_cast<unsigned>(states[kStatesAt + block / 4]);
      const unsigned state = byte >> (block % 4 * 2) & 3;
      if (state == 3 || (state != 0 && block >= blocks)) {
        return damaged(fmt::format("page {} of its map is damaged", number));
      }
      if (state == 1) ++found.facts.written_blocks;
      if (state == 2) ++found.facts.zero_blocks;
    }
  }
  return found;
}

Result<std::unique_ptr<OverlayFile>> OverlayFile::open(const std::string& path,
                                                       std::uint64_t size_bytes,
                                                       const ImageId& base,
                                                       FileOperations& operations) {
  UniqueFd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) return fail_errno(errno, in_file(path, "open the overlay"));
  if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    return fail(Errc::io, in_file(path, "the overlay is in use by another process"));
  }
  const Result<bool> is_new = is_unwritten(file.get(), Layout(size_bytes).file_bytes, path);
  if (!is_new) return std::unexpected(is_new.error());
  if (*is_new) {
    auto made = std::unique_ptr<OverlayFile>(
        new OverlayFile(std::move(file), size_bytes, path, operations));
    if (Result<void> done = made->format(base); !done) {
      return std::unexpected(std::move(done.error()));
    }
    return made;
  }
  Result<Opened> found = read_all(file, path);
  if (!found) return std::unexpected(std::move(found.error()));
  if (found->facts.size_bytes != size_bytes || found->facts.base != base) {
    return fail(Errc::usage,
                in_file(path,
                        "it lies over another image: the tree or an option changed since it "
                        "was made"));
  }
  auto opened =
      std::unique_ptr<OverlayFile>(new OverlayFile(std::move(file), size_bytes, path, operations));
  // Before the journal is used again, what it says must stand in its place.
  const Layout layout(size_bytes);
  for (const auto& [number, page] : found->journal) {
    if (Result<void> done = opened->write_fully(page, layout.map_at + number * kPage); !done) {
      return std::unexpected(std::move(done.error()));
    }
  }
  if (!found->journal.empty()) {
    if (Result<void> done = opened->sync(); !done) return std::unexpected(std::move(done.error()));
  }
  opened->loaded_ = std::move(found->pages);
  {
    const MutexLock lock(opened->flushing_);
    opened->sequence_ = found->sequence;
  }
  return opened;
}

Result<OverlayFile::Facts> OverlayFile::check(const std::string& path) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return fail_errno(errno, in_file(path, "open the overlay"));
  if (::flock(file.get(), LOCK_SH | LOCK_NB) != 0) {
    return fail(Errc::io, in_file(path, "the overlay is in use by another process"));
  }
  Result<Opened> found = read_all(file, path);
  if (!found) return std::unexpected(std::move(found.error()));
  return found->facts;
}

/// Makes an empty file an overlay. The length comes first, so that a header means all of it.
Result<void> OverlayFile::format(const ImageId& base) {
  const std::uint64_t whole = Layout(size_bytes_).file_bytes;
  if (::ftruncate(store_->fd(), static_cast<off_t>(whole)) != 0) {
    return fail_errno(errno, in_file(path_, fmt::format("make it {} bytes long", whole)));
  }
  if (Result<void> done = sync(); !done) return done;
  Page header{};
  put(header, 0, kHeaderMagic);
  store_le(std::span(header), kVersionAt, kVersion);
  store_le(std::span(header), kBlockBytesAt, Overlay::kBlockBytes);
  store_le(std::span(header), kSizeAt, size_bytes_);
  std::ranges::copy(base, header.begin() + kBaseAt);
  seal(header);
  if (Result<void> done = write_fully(header, 0); !done) return done;
  if (Result<void> done = sync(); !done) return done;
  return sync_directory_of(path_);
}

void OverlayFile::load(BlockStates& states) {
  for (const auto& [number, page] : loaded_) {
    const std::uint64_t first = number * kBlocksPerPage;
    const std::uint64_t count = std::min(kBlocksPerPage, states.blocks() - first);
    const auto state_at = [&, &bytes = page](std::uint64_t block) {
      return static_cast<BlockState>(
          static_cast<unsigned>(bytes[kStatesAt + block / 4]) >> (block % 4 * 2) & 3);
    };
    for (std::uint64_t block = 0; block < count;) {
      const BlockState state = state_at(block);
      std::uint64_t end = block + 1;
      while (end < count && state_at(end) == state) ++end;
      if (state != BlockState::below) states.set(first + block, end - block, state);
      block = end;
    }
  }
  loaded_.clear();
}

void OverlayFile::changed(std::uint64_t first, std::uint64_t count) noexcept {
  for (std::uint64_t page = first / kBlocksPerPage; page * kBlocksPerPage < first + count; ++page) {
    changed_[page].store(true, std::memory_order_release);
  }
}

OverlayFile::Page OverlayFile::make_page(const BlockStates& states, std::uint64_t number) const {
  Page page{};
  put(page, 0, kMapMagic);
  store_le(std::span(page), kNumberAt, number);
  const std::uint64_t first = number * kBlocksPerPage;
  const std::uint64_t end = std::min(first + kBlocksPerPage, states.blocks());
  for (std::uint64_t block = first; block < end;) {
    const BlockStates::Run run = states.run_at(block, end - block);
    for (; block < run.first + run.count; ++block) {
      const std::uint64_t place = block - first;
      page[kStatesAt + place / 4] |=
          static_cast<std::byte>(static_cast<unsigned>(run.state) << (place % 4 * 2));
    }
  }
  seal(page);
  return page;
}

Result<void> OverlayFile::write_fully(std::span<const std::byte> bytes, std::uint64_t offset) {
  while (!bytes.empty()) {
    const ssize_t count = operations_.pwrite(store_->fd(), bytes, offset);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return fail_errno(count < 0 ? errno : ENOSPC, in_file(path_, "write"));
    bytes = bytes.subspan(static_cast<std::size_t>(count));
    offset += static_cast<std::uint64_t>(count);
  }
  return {};
}

Result<void> OverlayFile::sync() {
  if (operations_.fdatasync(store_->fd()) != 0)
    return fail_errno(Errc::io, errno, in_file(path_, "sync"));
  return {};
}

Result<void> OverlayFile::flush(const BlockStates& states) {
  const MutexLock lock(flushing_);
  if (failed_) {
    return fail(Errc::io, in_file(path_, "it could not be written once, and is not trusted since"));
  }
  // States as they are now: their bytes were written before, and reach the disk with the sync that
  // follows. What changes from here on is for the next flush.
  std::map<std::uint64_t, Page> pages;
  for (std::uint64_t number = 0; number < changed_.size(); ++number) {
    if (!changed_[number].load(std::memory_order_relaxed)) continue;
    if (changed_[number].exchange(false, std::memory_order_acq_rel)) {
      pages.emplace(number, make_page(states, number));
    }
  }
  Result<void> done = sync();
  if (done && !pages.empty()) done = commit(pages);
  if (!done) {
    // A lack of space may pass: the states are still known here, and written by the next flush.
    for (const auto& [number, page] : pages) changed_[number] = true;
    failed_ = done.error().code != Errc::no_space;
    done.error().code = Errc::io;
  }
  return done;
}

/// Writes pages of the map: to the journal, and when that is on the disk, to their places.
Result<void> OverlayFile::commit(const std::map<std::uint64_t, Page>& pages) {
  Page journal{};
  put(journal, 0, kJournalMagic);
  Sha256 sha;
  std::uint64_t at = Layout::journal_pages_at;
  for (const auto& [number, page] : pages) {
    sha.update(page);
    if (Result<void> done = write_fully(page, at); !done) return done;
    at += kPage;
  }
  store_le(std::span(journal), kSequenceAt, ++sequence_);
  store_le<std::uint64_t>(std::span(journal), kCountAt, pages.size());
  const std::array<std::byte, 32> sum = sha.finish();
  std::copy_n(sum.begin(), kChecksumBytes, journal.begin() + kEntriesChecksumAt);
  seal(journal);
  if (Result<void> done = write_fully(journal, Layout::journal_at); !done) return done;
  if (Result<void> done = sync(); !done) return done;
  // From here on the journal vouches for them; the sync that begins the next flush brings them to
  // their places before the journal is written again.
  const Layout layout(size_bytes_);
  for (const auto& [number, page] : pages) {
    if (Result<void> done = write_fully(page, layout.map_at + number * kPage); !done) return done;
  }
  return {};
}

}  // namespace mkvirtfs
