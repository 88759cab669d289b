// SPDX-License-Identifier: BSD-3-Clause
// One pass over the member log sorts out whiteouts. MarkedView lays them over what lies below: a
// path is hidden by a whiteout of it or of a parent, or by an opaque parent.
#include "fsgen/oci/whiteouts.h"

#include <fmt/format.h>

#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <utility>

#include "fsgen/tree/symlink_way.h"
#include "fsgen/tree/tree_path.h"

namespace mkvirtfs::oci {
namespace {

using archive::Member;
using archive::MemberLog;
using archive::MemberPath;

constexpr std::string_view kWhiteout = ".wh.";
constexpr std::string_view kMeta = ".wh..wh.";
constexpr std::string_view kOpaque = ".wh..wh..opq";
constexpr std::string_view kLinkStore = ".wh..wh.plnk";

bool has_marks(const MemberLog& members) {
  for (MemberLog::Position at = 0; at < members.end();) {
    Member member;
    at = members.read(at, member);
    if (member.path.find(kWhiteout) != std::string_view::npos) return true;
  }
  return false;
}

/// What AUFS keeps of files with several names: regular files in .wh..wh.plnk of the root, to which
/// those names are hard links.
class LinkStore {
 public:
  LinkStore(const MemberLog& members, archive::UnsafeNames unsafe_names)
      : unsafe_names_(unsafe_names), members_(members) {
    Member member;
    for (MemberLog::Position at = 0; at < members.end();) {
      const MemberLog::Position here = at;
      at = members.read(at, member);
      if (member.is_hard_link || !S_ISREG(member.mode)) continue;
      if (auto path = path_in_store(member.path)) kept_[std::move(*path)] = {here, {}};
    }
  }

  /// Makes of a hard link into the store the file that lies there, or a hard link to the name that
  /// was made this file before. `name` is the member's own path.
  void resolve(Member& member) {
    if (kept_.empty() || !member.is_hard_link) return;
    const auto target = path_in_store(member.link_target);
    const auto kept = target ? kept_.find(*target) : kept_.end();
    if (kept == kept_.end()) return;
    const std::string_view path = member.path;
    if (!kept->second.first_name.empty()) {
      member.link_target = kept->second.first_name;
      return;
    }
    kept->second.first_name = path;
    members_.read(kept->second.at, member);
    member.path = kept->second.first_name;
  }

 private:
  struct Kept {
    MemberLog::Position at = 0;
    std::string_view first_name;  // into the log
  };

  std::optional<std::string> path_in_store(std::string_view raw) const {
    MemberPath path;
    if (!path.parse(raw, unsafe_names_) || path.components.size() < 2 ||
        path.components.front() != kLinkStore) {
      return std::nullopt;
    }
    return path.text();
  }

  const archive::UnsafeNames unsafe_names_;
  const MemberLog& members_;
  std::map<std::string, Kept, std::less<>> kept_;
};

/// Which directories on the ways to the marks the layer names.
std::vector<std::string> named_directories(const MemberLog& members,
                                           const std::vector<LayerMark>& marks,
                                           archive::UnsafeNames unsafe_names) {
  std::set<std::string, std::less<>> ways;
  for (const LayerMark& mark : marks) {
    for (std::size_t slash = mark.path.find('/'); slash != std::string::npos;
         slash = mark.path.find('/', slash + 1)) {
      ways.insert(mark.path.substr(0, slash));
    }
    if (mark.is_opaque && !mark.path.empty()) ways.insert(mark.path);
  }
  std::vector<std::string> named;
  if (ways.empty()) return named;
  Member member;
  MemberPath path;
  for (MemberLog::Position at = 0; at < members.end();) {
    at = members.read(at, member);
    if (member.is_hard_link || !S_ISDIR(member.mode)) continue;
    if (!path.parse(member.path, unsafe_names)) continue;
    if (std::string text = path.text(); ways.contains(text)) named.push_back(std::move(text));
  }
  std::ranges::sort(named);
  return named;
}

bool is_mark(std::string_view component) { return component.starts_with(kWhiteout); }

/// What a member with a mark in its path says; nullopt: it is what AUFS keeps for itself.
Result<std::optional<LayerMark>> mark_of(std::span<const std::string_view> components,
                                         std::string_view member) {
  const auto mark = std::ranges::find_if(components, is_mark);
  const auto parents = components.first(static_cast<std::size_t>(mark - components.begin()));
  const bool is_last = std::next(mark) == components.end();
  if (*mark == kOpaque && is_last) return LayerMark{join_path(parents), true};
  if (mark->starts_with(kMeta)) return std::nullopt;
  const std::string_view hidden = mark->substr(kWhiteout.size());
  if (!is_last || hidden.empty() || hidden == "." || hidden == "..") {
    return fail(Errc::unreadable,
                fmt::format("{} is no valid whiteout: .wh.NAME hides NAME", member));
  }
  return LayerMark{join_path(join_path(parents), hidden), false};
}

}  // namespace

Result<LayerMarks> take_whiteouts(MemberLog& members, std::string_view name,
                                  archive::UnsafeNames unsafe_names) {
  LayerMarks marks;
  if (!has_marks(members)) return marks;
  LinkStore link_store(members, unsafe_names);
  MemberLog rest;
  Member member;
  MemberPath path;
  for (MemberLog::Position at = 0; at < members.end();) {
    at = members.read(at, member);
    // Whatever makes the tree reports a path that cannot be.
    const bool is_good = path.parse(member.path, unsafe_names).has_value();
    if (!is_good || std::ranges::none_of(path.components, is_mark)) {
      link_store.resolve(member);
      if (Result<void> kept = rest.append(member); !kept) return propagate(kept);
      continue;
    }
    Result<std::optional<LayerMark>> mark = mark_of(path.components, member.path);
    if (!mark) return propagate(name, mark);
    if (*mark) marks.marks.push_back(std::move(**mark));
  }
  members = std::move(rest);
  marks.named_directories = named_directories(members, marks.marks, unsafe_names);
  return marks;
}

Standing MarkedView::look(std::string_view path) const {
  if (whiteouts_.empty() && opaque_.empty()) return below_.look(path);
  if (opaque_.contains(std::string_view{}) && !path.empty()) return {};
  for (std::size_t slash = path.find('/');; slash = path.find('/', slash + 1)) {
    const std::string_view prefix = path.substr(0, slash);
    if (whiteouts_.contains(prefix)) return {};
    if (slash == std::string_view::npos) break;
    if (opaque_.contains(prefix)) return {};
  }
  return below_.look(path);
}

Result<std::optional<std::string>> MarkedView::directory_of(std::string_view path,
                                                            const LayerMarks& marks,
                                                            LayerSymlinks symlinks) const {
  SymlinkWay way(components_of(path));
  std::string at;
  while (!way.at_end()) {
    const std::string_view name = way.take();
    if (name == "..") {
      at.resize(parent_path(at).size());
      continue;
    }
    const std::size_t parent_bytes = at.size();
    at = join_path(at, name);
    if (std::ranges::binary_search(marks.named_directories, at)) continue;
    const Standing there = look(at);
    if (there.kind == Standing::Kind::symlink) {
      if (symlinks == LayerSymlinks::error) return refused_symlink(at, there.target);
      if (!way.count_symlink()) return endless_symlinks(at);
      at.resize(there.target.starts_with('/') ? 0 : parent_bytes);
      way.lead_on(components_of(there.target));
      continue;
    }
    if (there.kind != Standing::Kind::directory) return std::nullopt;
  }
  return at;
}

Result<void> MarkedView::settle(const LayerMarks& marks, std::string_view name,
                                LayerSymlinks symlinks) {
  for (const LayerMark& mark : marks.marks) {
    const std::string_view parent = mark.is_opaque ? mark.path : parent_path(mark.path);
    std::string path = mark.path;
    if (symlinks != LayerSymlinks::replace && !parent.empty()) {
      Result<std::optional<std::string>> found = directory_of(parent, marks, symlinks);
      if (!found) {
        return fail(found.error().code,
                    fmt::format("{}: the whiteout of {} {}", name, mark.path, found.error().what),
                    found.error().hints);
      }
      if (!*found) continue;  // nothing of the layers below is there
      path = mark.is_opaque
                 ? std::move(**found)
                 : join_path(**found, std::string_view(mark.path).substr(parent.size() + 1));
    }
    (mark.is_opaque ? opaque_ : whiteouts_).insert(std::move(path));
  }
  return {};
}

}  // namespace mkvirtfs::oci
