// SPDX-License-Identifier: BSD-3-Clause
// At each step the walk looks for the next name in the archive, then in the layers below. A
// directory is entered. A symlink's target is put in front of what is left of the way, which goes
// on from where the symlink is, or from the root. docs/layers.md has the rules.
#include "fsgen/archive/symlink_walk.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "fsgen/tree/node_limits.h"
#include "fsgen/tree/tree_path.h"

namespace mkvirtfs::archive {
namespace {

std::unexpected<Error> wrong(std::string what) { return fail(Errc::unreadable, std::move(what)); }

std::unexpected<Error> leads_out(std::string what) {
  return fail(Errc::unreadable, std::move(what), {{"layer-symlinks", "replace"}});
}

/// Where the archive's root is placed: "/etc".
std::string place_of(const LayerOptions& options) {
  return fmt::format("/{}", fmt::join(components_of(options.at), "/"));
}

std::unexpected<Error> is_symlink(std::string_view link) {
  return wrong(fmt::format("lies below {}, which is a symlink", link));
}

}  // namespace

Result<WalkEnd> SymlinkWalk::run(std::span<const std::string_view> way) {
  way_ = SymlinkWay(way);
  while (!way_.at_end()) {
    const std::string_view name = way_.take();
    if (!way_.is_in_target()) must_be_there_.clear();
    if (Result<void> good = name == ".." ? up() : step(name); !good) return propagate(good);
  }
  return std::move(at_);
}

/// A directory of the archive at a path without symlinks; kNoPath when there is none.
PathNo SymlinkWalk::find(std::string_view path) const {
  PathNo no = kRootPath;
  for (const std::string_view name : components_of(path)) {
    no = paths_.find(no, name);
    if (no == kNoPath || !paths_[no].is_directory()) return kNoPath;
  }
  return no;
}

/// The target of a symlink of the archive; nullopt for what is none.
std::optional<std::string_view> SymlinkWalk::own_target(PathNo no) const {
  if (paths_[no].kind() != PathKind::file) return std::nullopt;  // links are to files
  Member member;
  members_.read(files_[paths_[no].file()], member);
  if (!S_ISLNK(member.mode)) return std::nullopt;
  return member.link_target;
}

Result<void> SymlinkWalk::step(std::string_view name) {
  const std::string path = join_path(at_.path, name);
  const PathNo own = this->own(name);
  if (own != kNoPath && !paths_[own].is_directory()) {
    const std::optional<std::string_view> target = own_target(own);
    if (!target) return wrong(fmt::format("lies below {}, which is a file", path));
    return follow(path, *target, LinkOf::this_archive);
  }
  Standing below;
  if (own == kNoPath && options_.below != nullptr) {
    below = options_.below->look(join_path(options_.at, path));
  }
  if (below.kind == Standing::Kind::symlink && options_.layer_symlinks != LayerSymlinks::replace) {
    if (options_.layer_symlinks == LayerSymlinks::error) return refused_symlink(path, below.target);
    return follow(path, below.target, LinkOf::layers_below);
  }
  if (below.kind == Standing::Kind::other && way_.is_in_target()) {
    return wrong(
        fmt::format("lies below {}, to which a symlink leads and which is no directory "
                    "in the layers before",
                    path));
  }
  return enter(name, below.kind);
}

Result<void> SymlinkWalk::enter(std::string_view name, Standing::Kind below) {
  std::string path = join_path(at_.path, name);
  PathNo own = this->own(name);
  const bool is_there = own != kNoPath || below == Standing::Kind::directory;
  if (!is_there && !must_be_there_.empty()) return is_symlink(must_be_there_);
  if (name.size() > kMostNameBytes) {
    return wrong(
        fmt::format("lies below a symlink whose target has a component of {} bytes; {} is "
                    "the most",
                    name.size(), kMostNameBytes));
  }
  if (own == kNoPath && missing_ == MissingDirectories::are_made) {
    own = paths_.find_or_add(at_.no, name);
  }
  at_ = {own, std::move(path)};
  return {};
}

Result<void> SymlinkWalk::up() {
  if (at_.path.empty()) {
    if (options_.at.empty()) return {};  // the root's own parent is the root
    return leads_out(fmt::format("lies below a symlink that leads out of {}", place_of(options_)));
  }
  at_.path.resize(parent_path(at_.path).size());
  at_.no = at_.no == kNoPath ? find(at_.path) : paths_[at_.no].parent();
  return {};
}

/// Goes to the root, where `target` goes on: without the way to where the archive's root is placed.
Result<void> SymlinkWalk::from_root(std::string_view link,
                                    std::vector<std::string_view>& target) const {
  for (const std::string_view name : components_of(options_.at)) {
    if (target.empty() || target.front() != name) {
      return leads_out(
          fmt::format("lies below {}, a symlink that leads out of {}", link, place_of(options_)));
    }
    target.erase(target.begin());
  }
  return {};
}

Result<void> SymlinkWalk::follow(std::string_view link, std::string_view target, LinkOf owner) {
  if (!way_.count_symlink()) return endless_symlinks(link);
  std::vector<std::string_view> way = components_of(target);
  if (owner == LinkOf::this_archive && !options_.follows_own_symlinks) {
    // GNU tar makes no other symlinks before all else is extracted.
    const bool is_followed = !target.starts_with('/') && std::ranges::find(way, "..") == way.end();
    if (!is_followed) return is_symlink(link);
    if (must_be_there_.empty()) must_be_there_ = link;
  }
  if (target.starts_with('/')) {
    if (Result<void> good = from_root(link, way); !good) return good;
    at_ = {};
  }
  way_.lead_on(way);
  return {};
}

}  // namespace mkvirtfs::archive
