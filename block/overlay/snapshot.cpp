// SPDX-License-Identifier: BSD-3-Clause
#include "block/overlay/snapshot.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>

#include <cerrno>
#include <charconv>
#include <optional>
#include <utility>

#include "block/overlay/base_manifest.h"
#include "support/open_file.h"
#include "support/path.h"

namespace mkvirtfs {
namespace {

constexpr std::string_view kUnfinished = ".~new~";

Result<LayerId> random_id() {
  LayerId id{};
  while (id == LayerId{}) {
    if (::getrandom(id.data(), id.size(), 0) != static_cast<ssize_t>(id.size()) && errno != EINTR) {
      return fail_errno(errno, "get random bytes");
    }
  }
  return id;
}

bool is_there(const std::string& path) {
  struct stat status{};
  return ::lstat(path.c_str(), &status) == 0 || errno != ENOENT;
}

bool is_same_file(const std::string& one, const std::string& other) {
  struct stat a{};
  struct stat b{};
  return ::lstat(one.c_str(), &a) == 0 && ::lstat(other.c_str(), &b) == 0 && a.st_dev == b.st_dev &&
         a.st_ino == b.st_ino;
}

/// Removes a name of a file that has others, too.
void remove_spare_name(const std::string& path, FileOperations& operations) {
  struct stat status{};
  if (::lstat(path.c_str(), &status) == 0 && status.st_nlink > 1) operations.unlink(path);
}

Result<void> sync_directory_of(const std::string& path, FileOperations& operations) {
  const std::string directory = directory_of(path);
  if (operations.sync_directory(directory) == 0) return {};
  return fail_errno(Errc::io, errno, fmt::format("{}: sync", directory));
}

const char* links_hint(int os_errno) {
  return os_errno == EPERM || os_errno == EOPNOTSUPP ? " (snapshots need hard links)" : "";
}

}  // namespace

std::string overlay_layer_path(const std::string& path, std::uint32_t layer) {
  return fmt::format("{}.~{}~", path, layer);
}

std::string unfinished_overlay_path(const std::string& path) {
  return std::string(path).append(kUnfinished);
}

std::string overlay_of_layer_path(std::string_view path) {
  const std::size_t at = path.rfind(".~");
  if (at == std::string_view::npos) return {};
  std::uint32_t layer = 0;
  std::from_chars(path.data() + at + 2, path.data() + path.size(), layer);
  std::string overlay(path.substr(0, at));
  // Only names that we write.
  const bool is_ours = layer >= 1 && layer <= OverlayHeader::kMostLayers &&
                       overlay_layer_path(overlay, layer) == path;
  return is_ours ? overlay : std::string();
}

std::string overlay_of_unfinished_path(std::string_view path) {
  if (!path.ends_with(kUnfinished)) return {};
  return std::string(path.substr(0, path.size() - kUnfinished.size()));
}

bool is_named(int fd, const std::string& path) {
  struct stat open{};
  struct stat named{};
  return ::fstat(fd, &open) == 0 && ::lstat(path.c_str(), &named) == 0 &&
         open.st_dev == named.st_dev && open.st_ino == named.st_ino;
}

Result<std::optional<OverlayHeader>> overlay_header_at(const std::string& path) {
  const Result<UniqueFd> file =
      open_regular_file(path, O_RDONLY | O_NOFOLLOW, fmt::format("{}: open the overlay", path));
  if (!file && file.error().os_errno == ENOENT) return std::nullopt;
  if (!file) return propagate(file);
  Result<FoundOverlayHeader> found = read_overlay_header(file->get(), path);
  if (!found) return propagate(found);
  return std::move(found->header);
}

Result<void> recover_overlay(const std::string& path, FileOperations& operations) {
  const std::string unfinished = unfinished_overlay_path(path);
  const Result<UniqueFd> opened = open_regular_file(
      unfinished, O_RDWR | O_NOFOLLOW, fmt::format("{}: open the overlay", unfinished));
  if (!opened && opened.error().os_errno == ENOENT) return {};
  if (!opened) return propagate(opened);
  const UniqueFd& file = *opened;
  // A snapshot that is being made holds the lock, and gives the file another name in the end.
  if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0 || !is_named(file.get(), unfinished)) return {};

  const Result<FoundOverlayHeader> top = read_overlay_header(file.get(), unfinished);
  Result<std::optional<OverlayHeader>> below = std::nullopt;
  std::string below_path;
  if (top && top->header.layer > 1) {
    below_path = overlay_layer_path(path, top->header.layer - 1);
    below = overlay_header_at(below_path);
    if (!below) return propagate(below);
  }
  const Result<std::optional<OverlayHeader>> there = overlay_header_at(path);
  const bool is_committed = top && *below && (*below)->id == top->header.below_id;
  if (is_committed && (!is_there(path) || is_same_file(path, below_path))) {
    if (operations.rename(unfinished, path) != 0) {
      return fail_errno(errno, fmt::format("rename {} to {}", unfinished, path));
    }
    return sync_directory_of(path, operations);
  }
  // Damage is reported when the overlay is opened, and its layers stay.
  if (!there || (*there && (*there)->is_frozen())) return {};
  operations.unlink(unfinished);
  if (!*there) remove_base_manifest(path, operations);
  for (std::uint32_t layer = *there ? (*there)->layer : 1; layer <= OverlayHeader::kMostLayers;
       ++layer) {
    remove_spare_name(overlay_layer_path(path, layer), operations);
  }
  return {};
}

OverlaySnapshot::OverlaySnapshot(OverlayFile& frozen, std::string child)
    : frozen_(frozen), operations_(frozen.operations_), child_path_(std::move(child)) {}

OverlaySnapshot::~OverlaySnapshot() {
  if (is_committed_ || frozen_.is_doubtful()) return;
  for (auto name = made_.rbegin(); name != made_.rend(); ++name) operations_.unlink(*name);
  remove_base_manifest(child_path_, operations_);
}

Result<std::unique_ptr<OverlaySnapshot>> OverlaySnapshot::begin(OverlayFile& frozen,
                                                                const std::string& child,
                                                                const std::string& origin) {
  const std::string& path = frozen.path();
  if (frozen.header().layer >= OverlayHeader::kMostLayers) {
    return fail(Errc::unsupported, fmt::format("{}: it has {} layers already, which is the limit",
                                               path, OverlayHeader::kMostLayers));
  }
  if (origin.size() > OverlayHeader::kLongestOrigin) {
    return fail(Errc::unsupported, "the name of its image's export is too long to be kept");
  }
  if (!is_named(frozen.store()->fd(), path)) {
    return fail(Errc::io, fmt::format("{}: it was moved or replaced since it was opened", path));
  }
  if (Result<void> recovered = recover_overlay(child, frozen.operations_); !recovered) {
    return propagate(recovered);
  }
  if (is_there(child)) return fail(Errc::usage, fmt::format("{}: there is such a file", child));
  auto snapshot = std::unique_ptr<OverlaySnapshot>(new OverlaySnapshot(frozen, child));
  if (Result<void> made = snapshot->make(origin); !made) {
    return propagate(made);
  }
  return snapshot;
}

Result<void> OverlaySnapshot::make(const std::string& origin) {
  const Result<LayerId> id = random_id();
  if (!id) return propagate(id);
  id_ = *id;
  OverlayHeader header = frozen_.header();
  const std::uint32_t layer = header.layer++;
  header.below_id = id_;
  auto top = make_top(frozen_.path(), header);
  if (!top) return propagate(top);
  top_ = std::move(*top);
  header.own_from = header.layer;
  header.origin = origin;
  // Before the child's header, as with any overlay.
  if (link_base_manifest(frozen_.path(), child_path_, operations_) != 0) {
    return fail_errno(errno,
                      fmt::format("{}: a second name, {}{}", base_manifest_path(frozen_.path()),
                                  base_manifest_path(child_path_), links_hint(errno)));
  }
  auto child = make_top(child_path_, std::move(header));
  if (!child) return propagate(child);
  child_ = std::move(*child);

  Result<void> done = add_name(frozen_.path(), overlay_layer_path(frozen_.path(), layer));
  if (done) done = add_name(frozen_.path(), overlay_layer_path(child_path_, layer));
  for (std::uint32_t below = layer - 1; done && below > 0; --below) {
    done =
        add_name(overlay_layer_path(frozen_.path(), below), overlay_layer_path(child_path_, below));
  }
  if (done) done = sync_directories();
  return done;
}

/// Makes the file that will have the name `path`, and locks it.
Result<std::unique_ptr<OverlayFile>> OverlaySnapshot::make_top(const std::string& path,
                                                               OverlayHeader header) {
  const std::string unfinished = unfinished_overlay_path(path);
  UniqueFd file(operations_.create(unfinished, O_RDWR | O_EXCL));
  if (!file) return fail_errno(errno, fmt::format("{}: make it", unfinished));
  made_.push_back(unfinished);
  if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0 || !is_named(file.get(), unfinished)) {
    return fail(Errc::io, fmt::format("{}: another process is at it", unfinished));
  }
  // Users who may read the overlay may read what is written from now on.
  struct stat status{};
  if (::fstat(frozen_.store()->fd(), &status) == 0) ::fchmod(file.get(), status.st_mode & 0777);
  return OverlayFile::format(std::move(file), std::move(header), path, operations_);
}

/// Gives the file `from` another name.
Result<void> OverlaySnapshot::add_name(const std::string& from, const std::string& to) {
  int linked = operations_.link(from, to);
  if (linked != 0 && errno == EEXIST) {
    // Of a snapshot that was cut off. What has no other name is not ours to remove.
    remove_spare_name(to, operations_);
    linked = operations_.link(from, to);
  }
  if (linked == 0) {
    made_.push_back(to);
    return {};
  }
  return fail_errno(errno, fmt::format("{}: a second name, {}{}", from, to, links_hint(errno)));
}

Result<void> OverlaySnapshot::sync_directories() {
  Result<void> done = sync_directory_of(frozen_.path(), operations_);
  if (done && directory_of(child_path_) != directory_of(frozen_.path())) {
    done = sync_directory_of(child_path_, operations_);
  }
  return done;
}

Result<void> OverlaySnapshot::commit(const BlockStates& states) {
  Result<void> done = frozen_.freeze(states, id_);
  is_committed_ = done.has_value();
  return done;
}

Result<void> OverlaySnapshot::finish() {
  if (is_there(child_path_)) {
    return fail(Errc::io,
                fmt::format("{}: another process made such a file meanwhile", child_path_));
  }
  for (const std::string& path : {frozen_.path(), child_path_}) {
    if (operations_.rename(unfinished_overlay_path(path), path) != 0) {
      return fail_errno(errno, fmt::format("rename {}", unfinished_overlay_path(path)));
    }
  }
  // From here on others may lie over it, too.
  ::flock(frozen_.store()->fd(), LOCK_SH);
  return sync_directories();
}

}  // namespace mkvirtfs
