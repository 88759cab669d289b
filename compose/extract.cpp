// SPDX-License-Identifier: BSD-3-Clause
// Directories come before what is in them, as the tree numbers them; one is open at a time, found
// from the target down without following a symlink. An entry is made by its name in that
// directory, never by a path, and must be new; its attributes are set through a descriptor of it.
// Directories are made 0700, and get their attributes last, from the deepest up, when nothing more
// is made in them.
#include "compose/extract.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <map>
#include <optional>
#include <span>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "fsgen/tree/tree_path.h"
#include "support/confined_open.h"
#include "support/unique_fd.h"

namespace mkvirtfs {
namespace {

constexpr std::uint64_t kPieceBytes = std::uint64_t{1} << 20;
constexpr std::uint64_t kMostInLog = 20;
constexpr mode_t kPermissions = 07777;

class Extraction {
 public:
  Extraction(const SourceTree& tree, ContentStore& contents, NodeNo from,
             const ExtractOptions& options)
      : tree_(tree), contents_(contents), from_(from), options_(options), buffer_(kPieceBytes) {}

  Result<ExtractSummary> run(const std::string& directory);

 private:
  /// A name in a directory.
  struct Place {
    DirectoryNo directory;
    std::string_view name;
  };

  Result<void> open_target(const std::string& directory);
  void find_directories();
  void count_data();
  std::expected<UniqueFd, int> open_directory(DirectoryNo no) const;
  void extract_directory(DirectoryNo no);
  void extract_entry(int directory, Place place, NodeNo no);
  bool make_directory(int directory, Place place);
  bool make_link(int directory, Place place, Place first);
  bool make_file(int directory, Place place, NodeNo no);
  bool make_other(int directory, Place place, NodeNo no);
  /// What speaks against it; "" when nothing does.
  std::string write_data(int file, NodeNo no, std::string_view path);
  void restore(int fd, NodeNo no, std::string_view path);
  mode_t restore_owner(int fd, const Node& node, std::string_view path);
  void restore_directories();

  std::string path_of(Place place) const {
    return join_path(tree_.path(tree_.directory(place.directory).node), place.name);
  }
  void fail_at(std::string_view path, std::string_view what);
  void fail_at(std::string_view path, std::string_view what, int error) {
    fail_at(path, fmt::format("{}: {}", what, std::generic_category().message(error)));
  }

  const SourceTree& tree_;
  ContentStore& contents_;
  const NodeNo from_;
  const ExtractOptions& options_;
  const ConfinedOpener opener_{/*cross_mounts=*/true};
  const bool is_root_ = ::geteuid() == 0;
  std::vector<std::byte> buffer_;
  UniqueFd target_;
  bool is_target_new_ = false;
  std::vector<bool> is_wanted_;   // directories: below `from_`, and there
  std::map<NodeNo, Place> made_;  // nodes with several names: the first one that was made
  ExtractProgress progress_;
  ExtractSummary summary_;
};

void Extraction::fail_at(std::string_view path, std::string_view what) {
  if (++summary_.failure_count <= kMostInLog) {
    options_.log->write(LogLevel::warning, fmt::format("{}: {}", path.empty() ? "/" : path, what));
  }
  if (summary_.failure_count == kMostInLog) {
    options_.log->write(LogLevel::warning, "what else cannot be restored is only counted");
  }
}

Result<void> Extraction::open_target(const std::string& directory) {
  is_target_new_ = ::mkdir(directory.c_str(), 0777) == 0;
  if (!is_target_new_ && errno != EEXIST) {
    return fail_errno(Errc::io, errno, "make the directory " + directory);
  }
  target_ = UniqueFd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!target_) return fail_errno(Errc::io, errno, "open the directory " + directory);
  return {};
}

/// A directory has a higher number than the one that it is in.
void Extraction::find_directories() {
  is_wanted_.resize(tree_.directories().size());
  if (!tree_.node(from_).is_directory()) return;
  const DirectoryNo top = tree_.directory_no(from_);
  for (DirectoryNo no = top; no < is_wanted_.size(); ++no) {
    const NodeNo node = tree_.directory(no).node;
    is_wanted_[no] = no == top || (node != kRootNode && is_wanted_[tree_.node(node).parent]);
  }
}

void Extraction::count_data() {
  std::vector<bool> is_counted(tree_.node_count());
  const auto count = [&](NodeNo no) {
    if (!tree_.node(no).is_regular() || is_counted[no]) return;
    is_counted[no] = true;
    Range dense;
    for (const Range& run : tree_.data_runs(no, dense)) progress_.data_bytes += run.length;
  };
  count(from_);
  for (DirectoryNo no; no < is_wanted_.size(); ++no) {
    if (!is_wanted_[no]) continue;
    for (const Entry entry : tree_.entries(tree_.directory(no))) count(entry.node);
  }
}

std::expected<UniqueFd, int> Extraction::open_directory(DirectoryNo no) const {
  std::vector<std::string_view> names;
  for (NodeNo node = tree_.directory(no).node; node != from_ && node != kRootNode;) {
    const Directory& parent = tree_.parent_of(node);
    names.push_back(tree_.name(parent, tree_.entries(parent)[tree_.node(node).entry]));
    node = parent.node;
  }
  std::ranges::reverse(names);
  return opener_.open_chain(target_.get(), names, O_RDONLY | O_DIRECTORY);
}

void Extraction::extract_directory(DirectoryNo no) {
  const Directory& directory = tree_.directory(no);
  const auto fd = open_directory(no);
  if (!fd) {
    fail_at(tree_.path(directory.node), "cannot be opened, and all below it is left out",
            fd.error());
    is_wanted_[no] = false;
    return;
  }
  for (const Entry entry : tree_.entries(directory)) {
    extract_entry(fd->get(), {no, tree_.name(directory, entry)}, entry.node);
  }
}

void Extraction::extract_entry(int directory, Place place, NodeNo no) {
  const Node& node = tree_.node(no);
  if (node.is_directory()) {
    const bool is_there = make_directory(directory, place);
    is_wanted_[tree_.directory_no(no)] = is_there;
    if (is_there) ++summary_.entry_count;
    return;
  }
  bool is_made = false;
  const auto first = made_.find(no);
  if (first != made_.end()) {
    is_made = make_link(directory, place, first->second);
  } else {
    is_made =
        node.is_regular() ? make_file(directory, place, no) : make_other(directory, place, no);
    if (is_made && node.link_count > 1) made_.emplace(no, place);
  }
  if (is_made) ++summary_.entry_count;
}

bool Extraction::make_directory(int directory, Place place) {
  const std::string name(place.name);
  if (::mkdirat(directory, name.c_str(), 0700) == 0) return true;
  const int error = errno;
  struct stat status{};
  if (error == EEXIST && ::fstatat(directory, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 &&
      S_ISDIR(status.st_mode)) {
    return true;
  }
  fail_at(path_of(place), "cannot be made, and all below it is left out", error);
  return false;
}

bool Extraction::make_link(int directory, Place place, Place first) {
  const auto other = open_directory(first.directory);
  const std::string name(place.name);
  if (other &&
      ::linkat(other->get(), std::string(first.name).c_str(), directory, name.c_str(), 0) == 0) {
    return true;
  }
  fail_at(path_of(place), "cannot be linked to " + path_of(first), other ? errno : other.error());
  return false;
}

std::string Extraction::write_data(int file, NodeNo no, std::string_view path) {
  const auto unwritable = [](int error) {
    return fmt::format("cannot be written: {}", std::generic_category().message(error));
  };
  Range dense;
  for (const Range& run : tree_.data_runs(no, dense)) {
    for (std::uint64_t at = run.offset; at < run.end();) {
      const auto piece = std::span(buffer_).first(std::min(run.end() - at, kPieceBytes));
      if (const Result<void> read = contents_.read(content_no(no), at, piece); !read) {
        // Some stores begin with the path, which is said before this, too.
        std::string_view why = read.error().what;
        if (why.starts_with(path) && why.substr(path.size()).starts_with(": ")) {
          why.remove_prefix(path.size() + 2);
        }
        return fmt::format("cannot be read: {}", why);
      }
      for (std::size_t done = 0; done < piece.size();) {
        const ssize_t written =
            ::pwrite(file, piece.data() + done, piece.size() - done, static_cast<off_t>(at + done));
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return unwritable(written < 0 ? errno : ENOSPC);
        done += static_cast<std::size_t>(written);
      }
      at += piece.size();
      summary_.data_bytes += piece.size();
      progress_.done_bytes += piece.size();
      if (options_.progress) options_.progress(progress_);
    }
  }
  const auto size = static_cast<off_t>(tree_.node(no).size_bytes);
  return ::ftruncate(file, size) == 0 ? "" : unwritable(errno);
}

bool Extraction::make_file(int directory, Place place, NodeNo no) {
  const std::string name(place.name);
  const UniqueFd file(::openat(directory, name.c_str(),
                               O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file) {
    fail_at(path_of(place), "cannot be made", errno);
    return false;
  }
  if (const std::string objection = write_data(file.get(), no, path_of(place));
      !objection.empty()) {
    // Nobody is to take a part for the whole.
    static_cast<void>(::unlinkat(directory, name.c_str(), 0));
    fail_at(path_of(place), objection);
    return false;
  }
  restore(file.get(), no, path_of(place));
  return true;
}

bool Extraction::make_other(int directory, Place place, NodeNo no) {
  const Node& node = tree_.node(no);
  const std::string name(place.name);
  int made = 0;
  if (node.is_symlink()) {
    made = ::symlinkat(std::string(tree_.symlink_target(no)).c_str(), directory, name.c_str());
  } else {
    const DeviceNumber device = node.is_device() ? tree_.device_number(no) : DeviceNumber{};
    made = ::mknodat(directory, name.c_str(), (node.mode & S_IFMT) | 0600U,
                     gnu_dev_makedev(device.major, device.minor));
  }
  const UniqueFd file(made == 0 ? ::openat(directory, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC)
                                : -1);
  if (!file) {
    fail_at(path_of(place), "cannot be made", errno);
    return false;
  }
  restore(file.get(), no, path_of(place));
  return true;
}

/// Returns the mode that the file may have.
mode_t Extraction::restore_owner(int fd, const Node& node, std::string_view path) {
  const mode_t mode = node.mode & kPermissions;
  bool same_user = true;
  bool same_group = true;
  if (is_root_) {
    if (::fchownat(fd, "", node.uid, node.gid, AT_EMPTY_PATH) != 0) {
      fail_at(path, "its owner is not restored", errno);
      same_user = false;
      same_group = false;
    }
  } else {
    struct stat status{};
    const bool known = ::fstatat(fd, "", &status, AT_EMPTY_PATH) == 0;
    same_user = known && status.st_uid == node.uid;
    same_group = known && status.st_gid == node.gid;
    if (!same_user || !same_group) ++summary_.other_owner_count;
  }
  mode_t dropped = 0;
  if (!same_user) dropped |= S_ISUID;
  if (!same_group && !node.is_directory()) dropped |= S_ISGID;
  if ((mode & dropped) != 0) {
    fail_at(path, "its set-ID bits are not restored, because its owner is another");
  }
  return mode & ~dropped;
}

/// `fd` may be an O_PATH descriptor: what takes none takes its name in /proc.
void Extraction::restore(int fd, NodeNo no, std::string_view path) {
  const Node& node = tree_.node(no);
  const std::string self = fmt::format("/proc/self/fd/{}", fd);
  // Whoever becomes the owner loses capabilities; who may write sets attributes.
  const mode_t mode = restore_owner(fd, node, path);
  for (const Xattr& xattr : tree_.xattrs(node.xattrs)) {
    const std::string name(xattr.name);
    if (::setxattr(self.c_str(), name.c_str(), xattr.value.data(), xattr.value.size(), 0) != 0) {
      fail_at(path, "its attribute " + name + " is not restored", errno);
    }
  }
  if (!node.is_symlink() && ::chmod(self.c_str(), mode) != 0) {
    fail_at(path, "its mode is not restored", errno);
  }
  const std::array<struct timespec, 2> times = {
      {{0, UTIME_OMIT}, {node.mtime_s, static_cast<long>(node.mtime_ns)}}};
  if (::utimensat(AT_FDCWD, self.c_str(), times.data(), 0) != 0) {
    fail_at(path, "its time is not restored", errno);
  }
}

void Extraction::restore_directories() {
  for (std::size_t left = is_wanted_.size(); left > 0; --left) {
    const DirectoryNo no{static_cast<std::uint32_t>(left - 1)};
    if (!is_wanted_[no]) continue;
    const NodeNo node = tree_.directory(no).node;
    if (node == from_ && !is_target_new_) continue;
    if (const auto fd = open_directory(no)) {
      restore(fd->get(), node, tree_.path(node));
    } else {
      fail_at(tree_.path(node), "its attributes are not restored", fd.error());
    }
  }
}

Result<ExtractSummary> Extraction::run(const std::string& directory) {
  if (Result<void> good = open_target(directory); !good) return propagate(good);
  find_directories();
  count_data();
  const Node& node = tree_.node(from_);
  if (!node.is_directory()) {
    const Directory& parent = tree_.parent_of(from_);
    const std::string_view name = tree_.name(parent, tree_.entries(parent)[node.entry]);
    extract_entry(target_.get(), {node.parent, name}, from_);
    return summary_;
  }
  for (DirectoryNo no; no < is_wanted_.size(); ++no) {
    // Below one that is not there, nothing is.
    const NodeNo at = tree_.directory(no).node;
    if (at != from_ && at != kRootNode && !is_wanted_[tree_.node(at).parent])
      is_wanted_[no] = false;
    if (is_wanted_[no]) extract_directory(no);
  }
  restore_directories();
  return summary_;
}

}  // namespace

Result<ExtractSummary> extract(const SourceTree& tree, ContentStore& contents, NodeNo from,
                               const std::string& directory, const ExtractOptions& options) {
  return Extraction(tree, contents, from, options).run(directory);
}

}  // namespace mkvirtfs
