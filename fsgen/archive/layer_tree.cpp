// SPDX-License-Identifier: BSD-3-Clause
// Two steps: what extraction would leave at each path (Extraction), then the numbering of a
// SourceTree (Numbering).
#include "fsgen/archive/layer_tree.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <tuple>
#include <utility>

#include "fsgen/tree/entry_rules.h"
#include "support/arithmetic.h"

namespace mkvirtfs::archive {
namespace {

constexpr std::uint32_t kNone = std::numeric_limits<std::uint32_t>::max();
constexpr std::uint32_t kRootPath = 0;
// The kernel's own bounds, as in tree_builder.cpp.
constexpr std::size_t kMostTargetBytes = 4095;
constexpr std::size_t kMostXattrNameBytes = 255;
constexpr std::size_t kMostXattrValueBytes = 65536;
constexpr std::uint32_t kMostMajor = (1u << 12) - 1;
constexpr std::uint32_t kMostMinor = (1u << 20) - 1;
constexpr std::size_t kMostNameBytes = 255;
constexpr std::uint16_t kDirectoryPermissions = 0755;
constexpr std::uint16_t kFilePermissions = 0644;
constexpr std::uint32_t kNoId = std::numeric_limits<std::uint32_t>::max();

enum class PathKind : std::uint8_t {
  implied,    // a directory that no member names so far
  directory,  // one that is: `target` is its member's position
  file,       // `target` is an inode
  link,       // a hard link that is not resolved: `target` is its member's position
  resolving,  // the same, while the way to its target is walked
  outward,    // a hard link to what is not here
};

/// A path that some member named or implied. It stays, whatever replaces what.
struct Path {
  const char* name = nullptr;  // into the log
  std::uint32_t parent = kRootPath;
  std::uint32_t target = kNone;
  std::uint32_t entry_count = 0;  // directly below it
  std::uint8_t name_bytes = 0;
  PathKind kind = PathKind::implied;

  std::string_view text() const noexcept { return {name, name_bytes}; }
  bool is_directory() const noexcept {
    return kind == PathKind::implied || kind == PathKind::directory;
  }
};
static_assert(sizeof(Path) == 24);

/// All paths, found by their parent and name: an open hash of numbers, so that a path costs 24
/// bytes and the eight of its place here.
class Paths {
 public:
  Paths() : paths_(1), table_(kFirstSize, kNone) {}

  Path& operator[](std::uint32_t no) noexcept { return paths_[no]; }
  const Path& operator[](std::uint32_t no) const noexcept { return paths_[no]; }
  std::uint32_t size() const noexcept { return static_cast<std::uint32_t>(paths_.size()); }

  std::uint32_t find(std::uint32_t parent, std::string_view name) const noexcept {
    return table_[place_of(parent, name)];
  }
  /// The path, made as an implied directory if it is new.
  std::uint32_t find_or_add(std::uint32_t parent, std::string_view name) {
    const std::size_t place = place_of(parent, name);
    if (table_[place] != kNone) return table_[place];
    const std::uint32_t no = size();
    table_[place] = no;
    paths_.push_back({.name = std::to_address(name.begin()),
                      .parent = parent,
                      .name_bytes = narrow<std::uint8_t>(name.size())});
    ++paths_[parent].entry_count;
    if (paths_.size() > table_.size() / 2) grow();
    return no;
  }
  std::string text(std::uint32_t no) const {
    std::vector<std::string_view> names;
    for (; no != kRootPath; no = paths_[no].parent) names.push_back(paths_[no].text());
    std::string text;
    for (auto name = names.rbegin(); name != names.rend(); ++name) {
      if (!text.empty()) text += '/';
      text += *name;
    }
    return text;
  }

 private:
  static constexpr std::size_t kFirstSize = 1024;  // a power of two

  std::size_t place_of(std::uint32_t parent, std::string_view name) const noexcept {
    const std::size_t mask = table_.size() - 1;
    std::size_t place =
        (std::hash<std::string_view>{}(name) ^ (parent * 0x9e3779b97f4a7c15)) & mask;
    while (table_[place] != kNone) {
      const Path& path = paths_[table_[place]];
      if (path.parent == parent && path.text() == name) break;
      place = (place + 1) & mask;
    }
    return place;
  }
  void grow() {
    table_.assign(table_.size() * 2, kNone);
    for (std::uint32_t no = 1; no < size(); ++no) {
      table_[place_of(paths_[no].parent, paths_[no].text())] = no;
    }
  }

  std::vector<Path> paths_;  // 0 is the root
  std::vector<std::uint32_t> table_;
};

/// What is wrong with a member's attributes, in words that follow its name; nullopt: nothing.
std::optional<std::string> objection_to(const Member& member) {
  if (S_ISLNK(member.mode) && !member.is_hard_link) {
    if (member.link_target.empty()) return "is a symlink to nowhere";
    if (member.link_target.size() > kMostTargetBytes) {
      return fmt::format("is a symlink with a target of {} bytes; {} is the most",
                         member.link_target.size(), kMostTargetBytes);
    }
    if (member.link_target.find('\0') != std::string_view::npos) {
      return "is a symlink with a NUL byte in its target";
    }
  }
  if (member.device.major > kMostMajor || member.device.minor > kMostMinor) {
    return fmt::format("is device {}:{}; {}:{} is the most", member.device.major,
                       member.device.minor, kMostMajor, kMostMinor);
  }
  for (const auto& [name, value] : member.xattrs) {
    if (name.size() > kMostXattrNameBytes || value.size() > kMostXattrValueBytes) {
      return fmt::format(
          "has an extended attribute of {} bytes with a name of {}; {} and {} are "
          "the most",
          value.size(), name.size(), kMostXattrValueBytes, kMostXattrNameBytes);
    }
  }
  if ((member.mode & S_IFMT) == 0 && !member.is_hard_link) return "is of no type";
  if (S_ISREG(member.mode) && member.size_bytes != 0 && member.place == Place::nowhere &&
      !(member.is_sparse && member.stored_runs.empty())) {
    return "has a size, but no bytes";
  }
  return std::nullopt;
}

/// The components of a path or of a symlink's target, as they stand there; no empty ones, no ".".
std::vector<std::string_view> components_of(std::string_view path) {
  std::vector<std::string_view> components;
  while (!path.empty()) {
    const std::size_t slash = path.find('/');
    const std::string_view component = path.substr(0, slash);
    path.remove_prefix(slash == std::string_view::npos ? path.size() : slash + 1);
    if (!component.empty() && component != ".") components.push_back(component);
  }
  return components;
}

std::string joined(std::string_view directory, std::string_view name) {
  std::string path(directory);
  if (!path.empty() && !name.empty()) path += '/';
  return path.append(name);
}

/// A directory that a way leads to.
struct Spot {
  std::uint32_t no = kRootPath;  ///< kNone: only the layers below have it, or nobody
  std::string path;              ///< without symlinks
};

/// One walk down from the root through symlinks: the archive's own and those of the layers below,
/// as extraction into what these show would find them. It is for the few ways on which one stands.
class SymlinkWalk {
 public:
  /// `make`: directories that are missing are made, as implied ones.
  SymlinkWalk(Paths& paths, const std::vector<MemberLog::Position>& inodes,
              const MemberLog& members, const LayerOptions& options, bool make)
      : paths_(paths), inodes_(inodes), members_(members), options_(options), make_(make) {}

  /// The directory at `way`. Errors are words that follow a name which lies below it.
  Result<Spot> run(std::span<const std::string_view> way);

 private:
  Result<void> step(std::string_view name);
  Result<void> up();
  Result<void> follow(std::string_view link, std::string_view target, bool is_own);
  Result<void> from_root(std::string_view link, std::vector<std::string_view>& target) const;
  Result<void> enter(std::string_view name, Standing::Kind below);
  std::uint32_t find(std::string_view path) const;
  /// The target of an own symlink; nullopt for what is none.
  std::optional<std::string_view> own_target(std::uint32_t no) const;
  bool is_in_target() const noexcept { return rest_.size() >= target_ends_; }

  std::unexpected<Error> wrong(std::string what) const {
    return fail(Errc::unreadable, std::move(what));
  }

  Paths& paths_;
  const std::vector<MemberLog::Position>& inodes_;
  const MemberLog& members_;
  const LayerOptions& options_;
  const bool make_;
  std::vector<std::string_view> rest_;  // the next one is the last
  Spot at_;
  int links_ = 0;
  // While this many components or more are left, the way is a symlink's target.
  std::size_t target_ends_ = std::numeric_limits<std::size_t>::max();
  std::string must_be_there_;  // the own symlink whose target must be, while it is the way
};

Result<Spot> SymlinkWalk::run(std::span<const std::string_view> way) {
  rest_.assign(way.rbegin(), way.rend());
  while (!rest_.empty()) {
    const std::string_view name = rest_.back();
    rest_.pop_back();
    if (!is_in_target()) {
      target_ends_ = std::numeric_limits<std::size_t>::max();
      must_be_there_.clear();
    }
    if (Result<void> good = name == ".." ? up() : step(name); !good) {
      return propagate(good);
    }
  }
  return std::move(at_);
}

std::uint32_t SymlinkWalk::find(std::string_view path) const {
  std::uint32_t no = kRootPath;
  for (const std::string_view name : components_of(path)) {
    no = paths_.find(no, name);
    if (no == kNone || !paths_[no].is_directory()) return kNone;
  }
  return no;
}

std::optional<std::string_view> SymlinkWalk::own_target(std::uint32_t no) const {
  if (paths_[no].kind != PathKind::file) return std::nullopt;  // links are to files
  Member member;
  members_.read(inodes_[paths_[no].target], member);
  if (!S_ISLNK(member.mode)) return std::nullopt;
  return member.link_target;
}

Result<void> SymlinkWalk::step(std::string_view name) {
  const std::string path = joined(at_.path, name);
  const std::uint32_t own = at_.no == kNone ? kNone : paths_.find(at_.no, name);
  if (own != kNone && !paths_[own].is_directory()) {
    const std::optional<std::string_view> target = own_target(own);
    if (!target) return wrong(fmt::format("lies below {}, which is a file", path));
    return follow(path, *target, /*is_own=*/true);
  }
  Standing below;
  if (own == kNone && options_.below != nullptr) {
    below = options_.below->look(joined(options_.at, path));
  }
  if (below.kind == Standing::Kind::symlink && options_.layer_symlinks != LayerSymlinks::replace) {
    if (options_.layer_symlinks == LayerSymlinks::error) {
      return wrong(
          fmt::format("lies below {}, which is a symlink to {} in the layers before "
                      "(--layer-symlinks=follow or replace)",
                      path, below.target));
    }
    return follow(path, below.target, /*is_own=*/false);
  }
  if (below.kind == Standing::Kind::other && is_in_target()) {
    return wrong(
        fmt::format("lies below {}, to which a symlink leads and which is no directory "
                    "in the layers before",
                    path));
  }
  return enter(name, below.kind);
}

Result<void> SymlinkWalk::enter(std::string_view name, Standing::Kind below) {
  std::string path = joined(at_.path, name);
  std::uint32_t own = at_.no == kNone ? kNone : paths_.find(at_.no, name);
  const bool is_there = own != kNone || below == Standing::Kind::directory;
  if (!is_there && !must_be_there_.empty()) {
    return wrong(fmt::format("lies below {}, which is a symlink", must_be_there_));
  }
  if (name.size() > kMostNameBytes) {
    return wrong(
        fmt::format("lies below a symlink whose target has a component of {} bytes; {} is "
                    "the most",
                    name.size(), kMostNameBytes));
  }
  if (own == kNone && make_) own = paths_.find_or_add(at_.no, name);
  at_ = {own, std::move(path)};
  return {};
}

Result<void> SymlinkWalk::up() {
  if (at_.path.empty()) {
    if (options_.at.empty()) return {};  // the root's own parent is the root
    return wrong(
        fmt::format("lies below a symlink that leads out of --at=/{} "
                    "(--layer-symlinks=replace takes its place)",
                    options_.at));
  }
  const std::size_t slash = at_.path.rfind('/');
  at_.path.resize(slash == std::string::npos ? 0 : slash);
  at_.no = at_.no == kNone ? find(at_.path) : paths_[at_.no].parent;
  return {};
}

/// Goes to the root, where `target` goes on: without the way to where the archive's root is placed.
Result<void> SymlinkWalk::from_root(std::string_view link,
                                    std::vector<std::string_view>& target) const {
  for (const std::string_view name : components_of(options_.at)) {
    if (target.empty() || target.front() != name) {
      return wrong(
          fmt::format("lies below {}, a symlink that leads out of --at=/{} "
                      "(--layer-symlinks=replace takes its place)",
                      link, options_.at));
    }
    target.erase(target.begin());
  }
  return {};
}

Result<void> SymlinkWalk::follow(std::string_view link, std::string_view target, bool is_own) {
  if (++links_ > kMostSymlinksOnAWay) {
    return wrong(fmt::format("lies below {}, from where symlinks lead on without an end", link));
  }
  std::vector<std::string_view> way = components_of(target);
  if (is_own && !options_.follows_own_symlinks) {
    // GNU tar makes no other symlinks before all else is extracted.
    const bool is_followed = !target.starts_with('/') && std::ranges::find(way, "..") == way.end();
    if (!is_followed) return wrong(fmt::format("lies below {}, which is a symlink", link));
    if (must_be_there_.empty()) must_be_there_ = link;
  }
  target_ends_ = std::min(target_ends_, rest_.size());
  if (target.starts_with('/')) {
    if (Result<void> good = from_root(link, way); !good) return good;
    at_ = {};
  }
  rest_.insert(rest_.end(), way.rbegin(), way.rend());
  return {};
}

/// What extracting all members would leave.
class Extraction {
 public:
  Extraction(const MemberLog& members, std::string_view name, const LayerOptions& options)
      : members_(members), name_(name), options_(options) {}

  Result<void> run(LogSink& log);
  /// A path of the archive as it stands in the whole: where symlinks lead, as they are in the end.
  Result<std::string> settled(const MemberPath& path);

  Paths paths;
  std::vector<MemberLog::Position> inodes;  // what is no directory: the member that made it
  MemberLog::Position root = kNone;
  std::vector<MemberLog::Position> overrides;  // of what changes only, or is a directory in part
  std::vector<OutwardLink> outward_links;

 private:
  Result<void> take(MemberLog::Position at);
  /// The directory that holds the last of path_'s components.
  Result<std::uint32_t> parent();
  /// What a hard link names.
  struct Target {
    std::uint32_t no = kNone;  ///< kNone: it is not in the archive
    std::string path;          ///< then, without symlinks
  };
  Result<Target> find(std::string_view target);
  Result<Spot> walk(std::span<const std::string_view> way, bool make) {
    return SymlinkWalk(paths, inodes, members_, options_, make).run(way);
  }
  Result<void> put(std::uint32_t no, PathKind kind, std::uint32_t target);
  Result<void> put_link(std::uint32_t no, MemberLog::Position at);
  Result<void> resolve_links();
  std::unexpected<Error> wrong(std::string_view member, std::string_view what) const {
    return fail(Errc::unreadable, fmt::format("{}: member {} {}", name_, member, what));
  }

  const MemberLog& members_;
  const std::string name_;
  const LayerOptions& options_;
  Member member_;
  MemberPath path_;
  std::vector<std::uint32_t> links_;
  // The last member's directory, because the next one is mostly beside it.
  std::string last_directory_;
  std::uint32_t last_parent_ = kNone;
  std::uint64_t replaced_ = 0;
  std::uint64_t absolute_ = 0;
  std::uint64_t stripped_ = 0;
};

Result<std::uint32_t> Extraction::parent() {
  const auto way = std::span(path_.components).first(path_.components.size() - 1);
  std::uint32_t at = kRootPath;
  for (const std::string_view name : way) {
    const std::uint32_t known = paths.find(at, name);
    const bool is_plain = known == kNone ? options_.below == nullptr : paths[known].is_directory();
    if (!is_plain) {
      Result<Spot> spot = walk(way, /*make=*/true);
      if (!spot) return wrong(member_.path, spot.error().what);
      return spot->no;
    }
    at = known == kNone ? paths.find_or_add(at, name) : known;
  }
  return at;
}

Result<void> Extraction::put(std::uint32_t no, PathKind kind, std::uint32_t target) {
  Path& path = paths[no];
  if (kind != PathKind::directory && path.is_directory() && path.entry_count != 0) {
    return wrong(member_.path, "is no directory, but others lie below it");
  }
  const bool adds_attributes = path.is_directory() && kind == PathKind::directory;
  if (path.kind != PathKind::implied && !adds_attributes) ++replaced_;
  path.kind = kind;
  path.target = target;
  return {};
}

Result<void> Extraction::put_link(std::uint32_t no, MemberLog::Position at) {
  const Result<Target> target = find(member_.link_target);
  if (!target) return propagate(target);
  const std::uint32_t found = target->no;
  if (found == no && paths[no].kind == PathKind::file) return {};
  if (found == kNone || paths[found].kind != PathKind::file) {
    // It may come later. What it is then, and whether it is, is looked at in the end.
    links_.push_back(no);
    return put(no, PathKind::link, at);
  }
  const std::uint32_t inode = paths[found].target;
  if (Result<void> good = put(no, PathKind::file, inode); !good) return good;
  // cpio brings the bytes with the last name, and pax may with any.
  if (S_ISREG(member_.mode) && member_.size_bytes != 0) inodes[inode] = at;
  return {};
}

Result<Extraction::Target> Extraction::find(std::string_view target) {
  MemberPath path;
  if (Result<void> good = path.parse(target, options_.unsafe_names); !good) {
    return wrong(member_.path,
                 fmt::format("is a hard link to {}, which {}", target, good.error().what));
  }
  std::uint32_t at = kRootPath;
  for (const std::string_view component : path.components) {
    at = paths.find(at, component);
    if (at == kNone) break;
  }
  if (at != kNone) return Target{at, {}};
  Result<std::string> settled_path = settled(path);
  if (!settled_path) {
    return wrong(member_.path,
                 fmt::format("is a hard link to {}, which {}", target, settled_path.error().what));
  }
  at = kRootPath;
  for (const std::string_view component : components_of(*settled_path)) {
    at = paths.find(at, component);
    if (at == kNone) break;
  }
  return Target{at, std::move(*settled_path)};
}

Result<std::string> Extraction::settled(const MemberPath& path) {
  if (path.components.empty()) return std::string();
  const auto way = std::span(path.components).first(path.components.size() - 1);
  std::uint32_t at = kRootPath;
  for (const std::string_view name : way) {
    at = paths.find(at, name);
    if (at == kNone || !paths[at].is_directory()) break;
  }
  const bool is_plain = at == kNone ? options_.below == nullptr : paths[at].is_directory();
  if (is_plain) return path.text();
  Result<Spot> spot = walk(way, /*make=*/false);
  if (!spot) return propagate(spot);
  return joined(spot->path, path.components.back());
}

Result<void> Extraction::take(MemberLog::Position at) {
  if (Result<void> good = path_.parse(member_.path, options_.unsafe_names); !good) {
    return wrong(member_.path, good.error().what);
  }
  absolute_ += path_.was_absolute ? 1 : 0;
  stripped_ += path_.was_stripped ? 1 : 0;
  if (member_.changes_only) {
    overrides.push_back(at);
    return {};
  }
  if (const auto reason = objection_to(member_)) return wrong(member_.path, *reason);
  const bool is_directory_in_part =
      S_ISDIR(member_.mode) && !member_.is_hard_link && !member_.tells_all();
  if (is_directory_in_part) overrides.push_back(at);
  if (path_.components.empty() && is_directory_in_part) return {};
  if (path_.components.empty()) {
    if (!S_ISDIR(member_.mode) || member_.is_hard_link) {
      return wrong(member_.path, "names the root, but is no directory");
    }
    root = at;
    return {};
  }

  const std::string_view name = path_.components.back();
  const std::string_view directory =
      member_.path.substr(0, static_cast<std::size_t>(name.data() - member_.path.data()));
  if (last_parent_ == kNone || directory != last_directory_ ||
      !paths[last_parent_].is_directory()) {
    const Result<std::uint32_t> found = parent();
    if (!found) return propagate(found);
    last_parent_ = *found;
    last_directory_ = directory;
  }
  const std::uint32_t known = paths.find(last_parent_, name);
  const std::uint32_t no = known != kNone ? known : paths.find_or_add(last_parent_, name);
  if (member_.is_hard_link) return put_link(no, at);
  // As if it were not named: what is told of it changes what is there in the end.
  if (is_directory_in_part && paths[no].is_directory()) return {};
  if (S_ISDIR(member_.mode)) return put(no, PathKind::directory, at);
  const auto inode = narrow<std::uint32_t>(inodes.size());
  if (Result<void> good = put(no, PathKind::file, inode); !good) return good;
  inodes.push_back(at);
  return {};
}

Result<void> Extraction::resolve_links() {
  std::vector<std::uint32_t> chain;
  for (const std::uint32_t first : links_) {
    if (paths[first].kind != PathKind::link) continue;  // resolved, or replaced
    chain.clear();
    std::uint32_t at = first;
    while (at != kNone && paths[at].kind == PathKind::link) {
      paths[at].kind = PathKind::resolving;
      chain.push_back(at);
      members_.read(paths[at].target, member_);
      const Result<Target> found = find(member_.link_target);
      if (!found) return propagate(found);
      at = found->no;
    }
    // member_ is the one whose target `at` is.
    const bool is_nowhere = at == kNone || paths[at].kind == PathKind::outward;
    if (is_nowhere && !options_.outward_links) {
      return wrong(member_.path,
                   fmt::format("is a hard link to {}, which the archive does not hold",
                               member_.link_target));
    }
    if (!is_nowhere && paths[at].kind != PathKind::file) {
      return wrong(member_.path,
                   fmt::format("is a hard link to {}, which is {}", member_.link_target,
                               paths[at].is_directory() ? "a directory" : "a link back to it"));
    }
    for (const std::uint32_t no : chain) {
      if (!is_nowhere) {
        members_.read(paths[no].target, member_);
        const MemberLog::Position brings = paths[no].target;
        paths[no].kind = PathKind::file;
        paths[no].target = paths[at].target;
        if (S_ISREG(member_.mode) && member_.size_bytes != 0) {
          inodes[paths[at].target] = brings;
        }
        continue;
      }
      members_.read(paths[no].target, member_);
      Result<Target> found = find(member_.link_target);
      if (!found) return propagate(found);
      // One in a chain of them names another, which becomes a name of what lies below, too.
      std::string target = found->no == kNone ? std::move(found->path) : paths.text(found->no);
      outward_links.push_back({paths.text(no), std::move(target)});
      paths[no].kind = PathKind::outward;
    }
  }
  return {};
}

Result<void> Extraction::run(LogSink& log) {
  for (MemberLog::Position at = 0; at < members_.end();) {
    const MemberLog::Position next = members_.read(at, member_);
    if (Result<void> good = take(at); !good) return good;
    at = next;
  }
  if (Result<void> good = resolve_links(); !good) return good;
  if (replaced_ != 0) {
    log.write(LogLevel::info, fmt::format("{}: {} of its members are replaced by later ones of the "
                                          "same name",
                                          name_, replaced_));
  }
  if (absolute_ != 0) {
    log.write(LogLevel::debug,
              fmt::format("{}: {} absolute names are taken as below its root", name_, absolute_));
  }
  if (stripped_ != 0) {
    log.write(LogLevel::warning,
              fmt::format("{}: \"..\" was taken off {} names", name_, stripped_));
  }
  return {};
}

/// The same, as a SourceTree numbers it.
class Numbering {
 public:
  Numbering(const MemberLog& members, std::string_view name, const LayerOptions& options,
            const EntryRules& rules, Extraction& extraction)
      : members_(members),
        name_(name),
        options_(options),
        rules_(rules),
        paths_(extraction.paths),
        extraction_(extraction) {}

  Result<LayerTree> run();

 private:
  void collect_entries();
  /// The attributes of `member_` as the image shall have them.
  NewNode node_of_member() const;
  NewNode with_rules(EntryAttributes attributes) const;
  NewNode implied_directory() const;
  std::vector<Xattr> xattrs_of_member() const;
  /// The names of `member_`'s attributes that no file can have, until the next call.
  std::string_view lost_xattrs_of_member();
  Result<NewNode> owned(NewNode node) const;
  Result<void> add_directory(TreeAssembler& assembler, const Path& path);
  Result<void> add_file(TreeAssembler& assembler, const Path& path);
  bool takes(std::string_view path) const;
  Result<void> add_overrides();
  Result<void> check_sizes() const;
  /// The files by where they lie.
  std::vector<NodeNo> data_order() const;

  const MemberLog& members_;
  const std::string name_;
  const LayerOptions& options_;
  const EntryRules& rules_;
  const Paths& paths_;
  Extraction& extraction_;

  Member member_;
  // The entries of directory d are entries_[first_[d]] .. entries_[first_[d + 1] - 1].
  std::vector<std::uint32_t> first_;
  std::vector<std::uint32_t> entries_;
  std::vector<NodeNo> node_of_inode_;
  std::string lost_xattrs_;
  LayerTree made_;
};

void Numbering::collect_entries() {
  first_.resize(std::size_t{paths_.size()} + 1);
  std::uint32_t sum = 0;
  for (std::uint32_t no = 0; no < paths_.size(); ++no) {
    first_[no] = sum;
    sum += paths_[no].entry_count;
  }
  first_[paths_.size()] = sum;
  entries_.resize(sum);
  std::vector<std::uint32_t> next(first_.begin(), first_.end() - 1);
  for (std::uint32_t no = 1; no < paths_.size(); ++no) entries_[next[paths_[no].parent]++] = no;
}

NewNode Numbering::with_rules(EntryAttributes attributes) const {
  rules_.apply(attributes);
  NewNode node;
  node.mode = attributes.mode;
  node.uid = attributes.uid;
  node.gid = attributes.gid;
  node.mtime = attributes.mtime;
  return node;
}

NewNode Numbering::node_of_member() const {
  std::uint16_t mode = member_.mode;
  if (!member_.has_permissions) {
    mode = static_cast<std::uint16_t>((mode & S_IFMT) |
                                      (S_ISDIR(mode) ? kDirectoryPermissions : kFilePermissions));
  }
  // Symlinks have no permissions; Linux shows all of them.
  if (S_ISLNK(mode)) mode = S_IFLNK | 0777;
  NewNode node = with_rules({mode, member_.uid, member_.gid, member_.mtime});
  if (S_ISREG(node.mode)) {
    node.size_bytes = member_.size_bytes;
    node.sparse = member_.is_sparse;
    node.data_runs = member_.stored_runs;
  }
  if (S_ISLNK(node.mode)) node.symlink_target = member_.link_target;
  node.device = member_.device;
  return node;
}

NewNode Numbering::implied_directory() const {
  return with_rules({S_IFDIR | kDirectoryPermissions, 0, 0, {}});
}

std::vector<Xattr> Numbering::xattrs_of_member() const {
  std::vector<Xattr> set;
  if (!options_.entries.xattrs) return set;
  for (const auto& [name, value] : member_.xattrs) {
    if (!XattrRules::keeps_name(name)) continue;
    Xattr xattr{std::string(name), std::string(value)};
    if (rules_.xattrs().normalise(xattr.name, xattr.value)) set.push_back(std::move(xattr));
  }
  return set;
}

std::string_view Numbering::lost_xattrs_of_member() {
  lost_xattrs_.clear();
  if (!options_.entries.lists_lost_xattrs) return {};
  for (const auto& [name, value] : member_.xattrs) {
    if (XattrRules::is_linux_name(name)) continue;
    if (!lost_xattrs_.empty()) lost_xattrs_ += ", ";
    lost_xattrs_ += name;
  }
  return lost_xattrs_;
}

/// 2^32 - 1 means "nobody asked" to the kernel, so it is no id; but --owner, --map-uid and
/// --exclude come first.
Result<NewNode> Numbering::owned(NewNode node) const {
  if (node.uid != kNoId && node.gid != kNoId) return node;
  return fail(Errc::unreadable,
              fmt::format("{}: member {} belongs to {}:{}, which no file can (try --owner, "
                          "--map-uid, --map-gid or --exclude)",
                          name_, member_.path, node.uid, node.gid));
}

Result<void> Numbering::add_directory(TreeAssembler& assembler, const Path& path) {
  NewNode node;
  if (path.kind == PathKind::implied) {
    node = implied_directory();
    made_.layer.implied_directories.push_back(narrow<NodeNo>(made_.places.size()));
  } else {
    members_.read(path.target, member_);
    Result<NewNode> made = owned(node_of_member());
    if (!made) return propagate(made);
    node = *made;
    node.xattrs = assembler.intern(xattrs_of_member());
    node.lost_xattrs = lost_xattrs_of_member();
  }
  assembler.add(path.text(), node);
  made_.places.add_nowhere();
  return {};
}

Result<void> Numbering::add_file(TreeAssembler& assembler, const Path& path) {
  NodeNo& known = node_of_inode_[path.target];
  if (known != kNone) {
    assembler.add_link(path.text(), known);
    return {};
  }
  members_.read(extraction_.inodes[path.target], member_);
  Result<NewNode> node = owned(node_of_member());
  if (!node) return propagate(node);
  node->xattrs = assembler.intern(xattrs_of_member());
  node->lost_xattrs = lost_xattrs_of_member();
  known = assembler.add(path.text(), *node);
  made_.places.add(member_);
  return {};
}

/// Whether what `member_` changes is in the image, and is not left out with all its like.
bool Numbering::takes(std::string_view path) const {
  if (rules_.takes_all() || path.empty()) return true;
  for (std::size_t from = 0;;) {
    const std::size_t slash = path.find('/', from);
    const std::string_view directory = path.substr(0, from);
    const std::string_view name = path.substr(from, slash - from);
    if (slash == std::string_view::npos) {
      return rules_.takes(directory, name, S_ISDIR(member_.mode));
    }
    if (!rules_.takes(directory, name, /*is_directory=*/true)) return false;
    from = slash + 1;
  }
}

Result<void> Numbering::add_overrides() {
  MemberPath path;
  for (const MemberLog::Position at : extraction_.overrides) {
    members_.read(at, member_);
    const bool good = path.parse(member_.path, options_.unsafe_names).has_value();
    assert(good);
    static_cast<void>(good);
    EntryAttributes attributes{member_.mode, member_.uid, member_.gid, member_.mtime};
    rules_.apply(attributes);
    AttributeOverride change;
    Result<std::string> settled = extraction_.settled(path);
    if (!settled) {
      return fail(Errc::unreadable,
                  fmt::format("{}: member {} {}", name_, member_.path, settled.error().what));
    }
    change.path = std::move(*settled);
    if (!takes(change.path)) continue;
    change.type = static_cast<std::uint16_t>(member_.mode & S_IFMT);
    change.is_optional = member_.is_optional;
    if (member_.has_permissions) {
      change.permissions = static_cast<std::uint16_t>(attributes.mode & 07777);
    }
    if (member_.has_uid) change.uid = attributes.uid;
    if (member_.has_gid) change.gid = attributes.gid;
    if (member_.has_mtime) change.mtime = attributes.mtime;
    made_.layer.overrides.push_back(std::move(change));
  }
  return {};
}

/// What the tree's indexes of 32 bits can not hold.
Result<void> Numbering::check_sizes() const {
  constexpr std::uint64_t kMost = std::numeric_limits<std::uint32_t>::max();
  // The log has less than 4 GiB, so all names, targets and runs in it have, once each. Names of a
  // directory stand behind a length byte, targets behind four.
  if (std::uint64_t{members_.end()} + std::uint64_t{paths_.size()} * 5 > kMost) {
    return fail(Errc::does_not_fit, fmt::format("{}: its names have more than 4 GiB", name_));
  }
  return {};
}

std::vector<NodeNo> Numbering::data_order() const {
  struct Lies {
    bool in_archive;
    std::uint64_t offset;
    NodeNo no;
  };
  std::vector<Lies> files;
  for (NodeNo no = 0; no < made_.places.size(); ++no) {
    const Place place = made_.places.place(no);
    if (place == Place::nowhere || place == Place::host) continue;
    files.push_back({place != Place::spooled, made_.places.lies_at(no), no});
  }
  std::ranges::sort(files, {}, [](const Lies& lies) {
    return std::tuple(!lies.in_archive, lies.offset, lies.no);
  });
  std::vector<NodeNo> order;
  order.reserve(files.size());
  for (const Lies& lies : files) order.push_back(lies.no);
  return order;
}

Result<LayerTree> Numbering::run() {
  if (Result<void> good = check_sizes(); !good) return propagate(good);
  collect_entries();
  node_of_inode_.assign(extraction_.inodes.size(), kNone);

  NewNode root;
  std::vector<Xattr> root_xattrs;
  if (extraction_.root == kNone) {
    root = implied_directory();
    made_.layer.implied_directories.push_back(kRootNode);
  } else {
    members_.read(extraction_.root, member_);
    Result<NewNode> made = owned(node_of_member());
    if (!made) return propagate(made);
    root = *made;
    root_xattrs = xattrs_of_member();
    root.lost_xattrs = lost_xattrs_of_member();
  }
  TreeAssembler assembler(root, std::move(root_xattrs));
  assembler.reserve(paths_.size(), paths_.size(), 1, 0);
  made_.places.reserve(paths_.size());
  made_.places.add_nowhere();

  std::vector<std::uint32_t> directories = {kRootPath};
  std::string directory_path;
  for (std::uint32_t d = 0; d < assembler.directory_count(); ++d) {
    assembler.open_directory(d);
    const std::uint32_t at = directories[d];
    const auto entries = std::span(entries_).subspan(first_[at], paths_[at].entry_count);
    std::ranges::sort(entries, {}, [&](std::uint32_t no) { return paths_[no].text(); });
    if (!rules_.takes_all()) {
      directory_path = paths_.text(at);
      if (!directory_path.empty()) directory_path += '/';
    }
    for (const std::uint32_t no : entries) {
      const Path& path = paths_[no];
      if (path.kind == PathKind::outward) continue;
      if (!rules_.takes_all() && !rules_.takes(directory_path, path.text(), path.is_directory())) {
        ++made_.excluded_count;
        continue;
      }
      if (path.is_directory()) {
        if (Result<void> good = add_directory(assembler, path); !good) {
          return propagate(good);
        }
        directories.push_back(no);
      } else if (Result<void> good = add_file(assembler, path); !good) {
        return propagate(good);
      }
    }
  }
  if (options_.data_order == DataOrder::archive) assembler.set_data_order(data_order());
  if (Result<void> good = add_overrides(); !good) return propagate(good);
  made_.layer.outward_links = extraction_.outward_links;
  made_.layer.tree = std::make_shared<const SourceTree>(std::move(assembler).finish());
  return std::move(made_);
}

}  // namespace

void FilePlaces::reserve(std::size_t nodes) {
  place_.reserve(nodes);
  sparse_place_.reserve(nodes);
  where_.reserve(nodes);
}

std::uint64_t FilePlaces::lies_at(NodeNo no) const noexcept {
  if (place_[no] == Place::deflated) return deflated(no).offset;
  return is_sparse(no) ? sparse(no).offset : where_[no];
}

void FilePlaces::add_nowhere() {
  place_.push_back(Place::nowhere);
  sparse_place_.push_back(false);
  where_.push_back(0);
}

void FilePlaces::add(const Member& member) {
  place_.push_back(member.place);
  const bool plain = member.place == Place::stored || member.place == Place::spooled;
  sparse_place_.push_back(plain && member.is_sparse);
  switch (member.place) {
    case Place::nowhere:
      where_.push_back(0);
      break;
    case Place::stored:
    case Place::spooled:
      if (!member.is_sparse) {
        where_.push_back(member.data_offset);
      } else {
        Sparse sparse{member.data_offset, {}};
        std::uint64_t skipped = 0;
        for (const Range& run : member.stored_runs) {
          sparse.skipped.push_back(member.stores_holes ? run.offset : skipped);
          skipped += run.length;
        }
        where_.push_back(sparse_.size());
        sparse_.push_back(std::move(sparse));
      }
      break;
    case Place::deflated:
      where_.push_back(deflated_.size());
      deflated_.push_back({member.data_offset, member.packed_bytes, member.crc32});
      break;
    case Place::host:
      where_.push_back(contents_.size());
      contents_.emplace_back(member.contents);
      break;
  }
}

Result<LayerTree> make_layer_tree(const MemberLog& members, std::string_view name,
                                  const LayerOptions& given, LogSink& log) {
  const Result<EntryRules> rules = EntryRules::make(given.entries);
  if (!rules) return propagate(rules);
  LayerOptions options = given;
  options.at = fmt::format("{}", fmt::join(components_of(given.at), "/"));
  Extraction extraction(members, name, options);
  if (Result<void> good = extraction.run(log); !good) return propagate(good);
  return Numbering(members, name, options, *rules, extraction).run();
}

}  // namespace mkvirtfs::archive
