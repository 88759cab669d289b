// SPDX-License-Identifier: BSD-3-Clause
#include "block/overlay/file.h"

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

#include "block/overlay/base_manifest.h"
#include "block/overlay/found_overlay.h"
#include "block/overlay/snapshot.h"
#include "block/page_cache.h"
#include "support/arithmetic.h"
#include "support/byte_order.h"
#include "support/open_file.h"
#include "support/path.h"
#include "support/sha256.h"

namespace mkvirtfs {
namespace {

constexpr std::uint64_t kPage = kOverlayPageBytes;

bool is_zero(std::span<const std::byte> bytes) noexcept {
  return std::ranges::all_of(bytes, [](std::byte byte) { return byte == std::byte{0}; });
}

std::string in_file(const std::string& path, std::string_view what) {
  return fmt::format("{}: {}", path, what);
}

/// Whether the file is empty, or was given its length and nothing else: what ended before its
/// header was on the disk holds nothing that a flush promised.
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

std::unexpected<Error> in_use(const std::string& path) {
  return fail(Errc::io, in_file(path, "the overlay is in use by another process"));
}

/// Opens a file that shall not change meanwhile.
Result<UniqueFd> open_to_read(const std::string& path) {
  Result<UniqueFd> file = open_regular_file(path, O_RDONLY, in_file(path, "open the overlay"));
  if (!file) return file;
  if (::flock(file->get(), LOCK_SH | LOCK_NB) != 0) return in_use(path);
  return file;
}

/// Opens and locks the file of that name, even when a snapshot of another process gives the name to
/// another file meanwhile.
Result<UniqueFd> open_to_write(const std::string& path, FileOperations& operations) {
  while (true) {
    UniqueFd file(operations.create(path, O_RDWR));
    if (!file) return fail_errno(errno, in_file(path, "open the overlay"));
    if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) return in_use(path);
    if (is_named(file.get(), path)) return file;
  }
}

/// Whether `header`, of a layer found below the overlay `above`, is that of the layer it was made
/// over.
Result<void> check_below(const OverlayHeader& above, const OverlayHeader& header,
                         const std::string& path) {
  if (!header.is_frozen())
    return fail(Errc::io, in_file(path,
                                  "it lies below another, and is not "
                                  "frozen: it may have changed"));
  if (header.id != above.below_id || header.layer + 1 != above.layer ||
      header.size_bytes != above.size_bytes || header.base != above.base) {
    return fail(Errc::io,
                in_file(path, fmt::format("it is another layer than the one that layer {} "
                                          "was made over",
                                          above.layer)));
  }
  return {};
}

/// An overlay as it is found by a path, whatever a snapshot has left to be finished.
struct TopName {
  std::string file;     ///< where its highest layer is
  std::string overlay;  ///< what the names of the layers below begin with
};
Result<TopName> top_of(const std::string& path) {
  const Result<std::optional<OverlayHeader>> header = overlay_header_at(path);
  if (!header) return propagate(header);
  TopName top{path, path};
  if (!*header || !(*header)->is_frozen()) return top;
  const std::string suffix = overlay_layer_path({}, (*header)->layer);
  if (path.ends_with(suffix)) {
    top.overlay.resize(path.size() - suffix.size());
    return top;
  }
  // A snapshot that was cut off has made the next top, which waits for its name.
  const auto next = overlay_header_at(unfinished_overlay_path(path));
  if (next && *next && (*next)->below_id == (*header)->id) top.file = unfinished_overlay_path(path);
  return top;
}

/// The error for a layer that cannot be opened.
Error not_below(Error error, const std::string& above, std::uint32_t layer) {
  if (error.os_errno == ENOENT) {
    error.code = Errc::io;
    error.what = in_file(above, fmt::format("the layer that it lies over is gone: {}",
                                            overlay_layer_path(above, layer)));
  }
  return error;
}

}  // namespace

OverlayFile::OverlayFile(UniqueFd file, OverlayHeader header, std::string path,
                         FileOperations& operations)
    : header_(std::move(header)),
      path_(std::move(path)),
      operations_(operations),
      store_(std::make_shared<OverlayStore>(
          std::move(file), OverlayLayout(header_.size_bytes).data_offset(), path_, operations)),
      changed_(OverlayLayout(header_.size_bytes).map_pages()) {}

Result<std::unique_ptr<OverlayFile>> OverlayFile::open(const std::string& path,
                                                       std::uint64_t size_bytes,
                                                       const ImageId& base,
                                                       FileOperations& operations,
                                                       const BaseCheck& check_base) {
  if (Result<void> recovered = recover_overlay(path, operations); !recovered) {
    return propagate(recovered);
  }
  Result<UniqueFd> file = open_to_write(path, operations);
  if (!file) return propagate(file);
  const Result<bool> is_new =
      is_unwritten(file->get(), OverlayLayout(size_bytes).file_bytes(), path);
  if (!is_new) return propagate(is_new);
  if (*is_new) {
    // What its base was stands on the disk before there is an overlay that needs it.
    if (check_base) {
      if (Result<void> stored = check_base(nullptr); !stored) return propagate(stored);
    }
    auto made =
        format(std::move(*file), {.size_bytes = size_bytes, .base = base}, path, operations);
    if (!made) return made;
    if (operations.sync_directory(directory_of(path)) != 0) {
      return fail_errno(Errc::io, errno, in_file(directory_of(path), "sync"));
    }
    return made;
  }
  Result<FoundOverlay> found = read_overlay(*file, path);
  if (!found) return propagate(found);
  if (found->facts.header.is_frozen()) {
    return fail(Errc::usage, in_file(path,
                                     "it is frozen, because a snapshot lies over it: what is "
                                     "written goes to the overlay above"));
  }
  if (check_base) {
    Result<void> good = check_base(&found->facts.header);
    if (!good) return propagate(good);
  }
  if (found->facts.header.size_bytes != size_bytes || found->facts.header.base != base) {
    return fail(Errc::usage,
                in_file(path,
                        "it lies over another image: the tree or an option changed since it "
                        "was made"));
  }
  auto opened = std::unique_ptr<OverlayFile>(
      new OverlayFile(std::move(*file), std::move(found->facts.header), path, operations));
  if (Result<void> done = opened->open_below(); !done) {
    return propagate(done);
  }
  // Before the journal is used again, what it says must stand in its place.
  const OverlayLayout layout(size_bytes);
  for (const auto& [number, page] : found->journal) {
    if (Result<void> done = opened->write_fully(page, layout.offset_of(number)); !done) {
      return propagate(done);
    }
  }
  if (!found->journal.empty()) {
    if (Result<void> done = opened->sync(); !done) return propagate(done);
  }
  opened->loaded_ = std::move(found->pages);
  {
    const MutexLock lock(opened->flushing_);
    opened->sequence_ = found->sequence;
  }
  return opened;
}

Result<std::unique_ptr<OverlayFile>> OverlayFile::open_read_only(const std::string& path) {
  const Result<TopName> top = top_of(path);
  if (!top) return propagate(top);
  Result<UniqueFd> file = open_to_read(top->file);
  if (!file) return propagate(file);
  Result<FoundOverlay> found = read_overlay(*file, top->file);
  if (!found) return propagate(found);
  auto opened = std::unique_ptr<OverlayFile>(new OverlayFile(
      std::move(*file), std::move(found->facts.header), top->overlay, FileOperations::host()));
  if (Result<void> done = opened->open_below(); !done) {
    return propagate(done);
  }
  opened->loaded_ = std::move(found->pages);
  const MutexLock lock(opened->flushing_);
  opened->frozen_ = true;  // there is nothing to flush
  return opened;
}

/// Opens all layers below, from the highest down: each names the next.
Result<void> OverlayFile::open_below() {
  OverlayHeader above = header_;
  while (above.layer > 1) {
    const std::string path = overlay_layer_path(path_, above.layer - 1);
    Result<UniqueFd> file = open_to_read(path);
    if (!file) return std::unexpected(not_below(std::move(file.error()), path_, above.layer - 1));
    Result<FoundOverlay> found = read_overlay(*file, path);
    if (!found) return propagate(found);
    if (Result<void> right = check_below(above, found->facts.header, path); !right) return right;
    above = found->facts.header;
    auto layer = std::unique_ptr<OverlayFile>(
        new OverlayFile(std::move(*file), std::move(found->facts.header), path, operations_));
    layer->loaded_ = std::move(found->pages);
    below_.insert(below_.begin(), std::move(layer));
  }
  return {};
}

Result<OverlayFile::Facts> OverlayFile::check(const std::string& path) {
  std::string name = path;
  const auto read = [](const std::string& from) -> Result<Facts> {
    const Result<UniqueFd> file = open_to_read(from);
    if (!file) return propagate(file);
    Result<FoundOverlay> found = read_overlay(*file, from);
    if (!found) return propagate(found);
    return std::move(found->facts);
  };
  Result<Facts> top = read(path);
  if (!top) return top;
  if (top->header.is_frozen()) {
    const std::string suffix = overlay_layer_path({}, top->header.layer);
    if (path.ends_with(suffix)) {
      name.resize(name.size() - suffix.size());
    } else {
      // A snapshot that was cut off has made the next top, which waits for its name.
      Result<Facts> next = read(unfinished_overlay_path(path));
      if (next && next->header.below_id == top->header.id) {
        top = std::move(next);
        top->snapshot_was_pending = true;
      }
    }
  }
  for (OverlayHeader above = top->header; above.layer > 1; above = top->below.back().header) {
    const std::string below = overlay_layer_path(name, above.layer - 1);
    Result<Facts> facts = read(below);
    if (!facts) return std::unexpected(not_below(std::move(facts.error()), name, above.layer - 1));
    if (Result<void> right = check_below(above, facts->header, below); !right) {
      return propagate(right);
    }
    top->below.push_back(std::move(*facts));
  }
  return top;
}

Result<void> OverlayFile::remove(const std::string& path, FileOperations& operations) {
  // What waits for the name of the top would become it again.
  std::vector<std::string> names = {unfinished_overlay_path(path), path};
  for (std::uint32_t layer = OverlayHeader::kMostLayers; layer > 0; --layer) {
    names.push_back(overlay_layer_path(path, layer));
  }
  for (const std::string& name : names) {
    if (operations.unlink(name) != 0 && errno != ENOENT) {
      return fail_errno(errno, fmt::format("remove {}", name));
    }
  }
  if (remove_base_manifest(path, operations) != 0) {
    return fail_errno(errno, fmt::format("remove {}", base_manifest_path(path)));
  }
  return {};
}

/// The length comes first, so that a header means all of it.
Result<std::unique_ptr<OverlayFile>> OverlayFile::format(UniqueFd file, OverlayHeader header,
                                                         std::string path,
                                                         FileOperations& operations) {
  const std::uint64_t whole = OverlayLayout(header.size_bytes).file_bytes();
  if (operations.ftruncate(file.get(), whole) != 0) {
    return fail_errno(errno, in_file(path, fmt::format("make it {} bytes long", whole)));
  }
  auto made = std::unique_ptr<OverlayFile>(
      new OverlayFile(std::move(file), std::move(header), std::move(path), operations));
  Result<void> done = made->sync();
  if (done) done = made->write_fully(made->header_.page(), 0);
  if (done) done = made->sync();
  if (!done) return propagate(done);
  return made;
}

void OverlayFile::load(BlockStates& states) {
  const OverlayLayout layout(header_.size_bytes);
  for (const auto& [number, page] : loaded_) {
    const auto [first, count] = layout.blocks_of(number);
    for (std::uint64_t place = 0; place < count;) {
      const unsigned bits = state_bits(page, place);
      std::uint64_t end = place + 1;
      while (end < count && state_bits(page, end) == bits) ++end;
      if (bits != 0) states.set({first + place, end - place}, static_cast<BlockState>(bits));
      place = end;
    }
  }
  loaded_.clear();
}

void OverlayFile::changed(OverlayBlocks blocks) noexcept {
  for (std::uint64_t page = blocks.first / kBlocksPerMapPage;
       page * kBlocksPerMapPage < blocks.end(); ++page) {
    changed_[page].store(true, std::memory_order_release);
  }
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
  // What the caller wrote stands before its ticket.
  const std::uint64_t ticket = flushes_asked_.fetch_add(1) + 1;
  const MutexLock lock(flushing_);
  if (ticket <= flushes_covered_) return last_flush_;
  flushes_covered_ = flushes_asked_.load();
  last_flush_ = flush_locked(states);
  return last_flush_;
}

Result<void> OverlayFile::flush_locked(const BlockStates& states) {
  if (failed_) {
    return fail(Errc::io, in_file(path_, "it could not be written once, and is not trusted since"));
  }
  // A flush that began before a snapshot, and comes behind it, finds all of it done.
  if (frozen_) return {};
  // States as they are now: their bytes were written before, and reach the disk with the sync that
  // follows. What changes from here on is for the next flush.
  const OverlayLayout layout(header_.size_bytes);
  std::map<MapPageNo, Page> pages;
  for (std::uint64_t number = 0; number < changed_.size(); ++number) {
    if (!changed_[number].load(std::memory_order_relaxed)) continue;
    if (changed_[number].exchange(false, std::memory_order_acq_rel)) {
      const MapPageNo page{number};
      pages.emplace(page, make_map_page(page, layout.blocks_of(page), states));
    }
  }
  Result<void> done = sync();
  if (done && !pages.empty()) done = commit(pages);
  if (!done) {
    // A lack of space may pass: the states are still known here, and written by the next flush.
    for (const auto& [number, page] : pages) changed_[static_cast<std::size_t>(number)] = true;
    failed_ = done.error().code != Errc::no_space;
  }
  return done;
}

/// Writes pages of the map: to the journal, and when that is on the disk, to their places.
Result<void> OverlayFile::commit(const std::map<MapPageNo, Page>& pages) {
  Page journal{};
  Sha256 sha;
  std::uint64_t at = OverlayLayout::kJournalPagesAt;
  for (const auto& [number, page] : pages) {
    sha.update(page);
    if (Result<void> done = write_fully(page, at); !done) return done;
    at += kPage;
  }
  store_le<std::uint64_t>(std::span(journal), kJournalCountAt, pages.size());
  const std::array<std::byte, 32> sum = sha.finish();
  std::copy_n(sum.begin(), kOverlayChecksumBytes, journal.begin() + kJournalChecksumAt);
  if (Result<void> done = write_journal(journal); !done) return done;
  if (Result<void> done = sync(); !done) return done;
  // From here on the journal vouches for them; the sync that begins the next flush brings them to
  // their places before the journal is written again.
  const OverlayLayout layout(header_.size_bytes);
  for (const auto& [number, page] : pages) {
    if (Result<void> done = write_fully(page, layout.offset_of(number)); !done) return done;
  }
  return {};
}

/// Writes the header of the journal: with the sync behind it, all that it stands for has happened.
Result<void> OverlayFile::write_journal(Page& header) {
  store_le(std::span(header), kJournalSequenceAt, ++sequence_);
  seal_overlay_page(header, kOverlayJournalMagic);
  return write_fully(header, kOverlayJournalAt);
}

Result<void> OverlayFile::freeze(const BlockStates& states, const LayerId& id) {
  const MutexLock lock(flushing_);
  Result<void> done = flush_locked(states);
  if (!done) return done;
  // What the flush put into the map must stay there before the journal is written again.
  done = sync();
  if (!done) {
    failed_ = true;
    return done;
  }
  OverlayHeader header = header_;
  header.id = id;
  const Page page = header.page();
  Page journal{};
  store_le<std::uint64_t>(std::span(journal), kJournalCountAt, 1);
  std::ranges::copy(overlay_checksum(page), journal.begin() + kJournalChecksumAt);
  // Until its header is written as a whole, the journal says nothing.
  done = write_fully(page, OverlayLayout::kJournalPagesAt);
  if (done) done = write_journal(journal);
  if (!done) return done;
  done = sync();
  if (!done) {
    failed_ = true;
    return done;
  }
  frozen_ = true;
  // The journal vouches for it, and is never written again.
  [[maybe_unused]] const Result<void> in_place = write_fully(page, 0);
  return {};
}

bool OverlayFile::is_doubtful() const {
  const MutexLock lock(flushing_);
  return failed_;
}

}  // namespace mkvirtfs
