// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/oci/whiteouts.h"

#include <fmt/format.h>

#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <utility>

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

std::string joined(std::span<const std::string_view> components) {
  return fmt::format("{}", fmt::join(components, "/"));
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

/// The components of a path or of a symlink's target; no empty ones, no ".".
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
    const auto is_mark = [](std::string_view part) { return part.starts_with(kWhiteout); };
    // A path that can not be is told of by who makes the tree.
    const bool good = path.parse(member.path, unsafe_names).has_value();
    const auto mark = good ? std::ranges::find_if(path.components, is_mark) : path.components.end();
    if (!good || mark == path.components.end()) {
      link_store.resolve(member);
      if (Result<void> kept = rest.append(member); !kept) {
        return propagate(kept);
      }
      continue;
    }
    const auto parents =
        std::span(path.components).first(static_cast<std::size_t>(mark - path.components.begin()));
    const bool is_last = std::next(mark) == path.components.end();
    if (*mark == kOpaque && is_last) {
      marks.marks.push_back({joined(parents), true});
      continue;
    }
    if (mark->starts_with(kMeta)) continue;
    const std::string_view hidden = mark->substr(kWhiteout.size());
    if (!is_last || hidden.empty() || hidden == "." || hidden == "..") {
      return fail(Errc::unreadable,
                  fmt::format("{}: {} is no whiteout that can be: .wh.NAME says that NAME is gone",
                              name, member.path));
    }
    std::string gone = joined(parents);
    if (!gone.empty()) gone += '/';
    marks.marks.push_back({gone.append(hidden), false});
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
  std::vector<std::string_view> rest = components_of(path);
  std::ranges::reverse(rest);
  std::string at;
  int links = 0;
  while (!rest.empty()) {
    const std::string_view name = rest.back();
    rest.pop_back();
    if (name == "..") {
      const std::size_t slash = at.rfind('/');
      at.resize(slash == std::string::npos ? 0 : slash);
      continue;
    }
    const std::size_t parent_bytes = at.size();
    if (!at.empty()) at += '/';
    at += name;
    if (std::ranges::binary_search(marks.named_directories, at)) continue;
    const Standing there = look(at);
    if (there.kind == Standing::Kind::symlink) {
      if (symlinks == LayerSymlinks::error) {
        return fail(Errc::unreadable,
                    fmt::format("lies below {}, which is a symlink to {} in the layers before "
                                "(--layer-symlinks=follow or replace)",
                                at, there.target));
      }
      if (++links > kMostSymlinksOnAWay) {
        return fail(Errc::unreadable,
                    fmt::format("lies below {}, from where symlinks lead on without an end", at));
      }
      at.resize(there.target.starts_with('/') ? 0 : parent_bytes);
      const std::vector<std::string_view> way = components_of(there.target);
      rest.insert(rest.end(), way.rbegin(), way.rend());
      continue;
    }
    if (there.kind != Standing::Kind::directory) return std::nullopt;
  }
  return at;
}

Result<void> MarkedView::settle(const LayerMarks& marks, std::string_view name,
                                LayerSymlinks symlinks) {
  for (const LayerMark& mark : marks.marks) {
    const std::size_t slash = mark.is_opaque ? mark.path.size() : mark.path.rfind('/');
    const std::string_view parent =
        std::string_view(mark.path).substr(0, slash == std::string::npos ? 0 : slash);
    std::string path = mark.path;
    if (symlinks != LayerSymlinks::replace && !parent.empty()) {
      Result<std::optional<std::string>> found = directory_of(parent, marks, symlinks);
      if (!found) {
        return fail(found.error().code,
                    fmt::format("{}: the whiteout of {} {}", name, mark.path, found.error().what));
      }
      if (!*found) continue;  // nothing of the layers below is there
      path = std::move(**found);
      if (!mark.is_opaque) {
        if (!path.empty()) path += '/';
        path += std::string_view(mark.path).substr(slash + 1);
      }
    }
    (mark.is_opaque ? opaque_ : whiteouts_).insert(std::move(path));
  }
  return {};
}

}  // namespace mkvirtfs::oci
