// SPDX-License-Identifier: BSD-3-Clause
// Members are taken in the archive's order. Each puts something at its path, over what an earlier
// one put there; directories on the way are implied. A hard link to what is there becomes one more
// name of that file at once; all others are resolved in the end, along chains of links, and what is
// still not in the archive then is an outward link.
#include "fsgen/archive/extraction.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include "fsgen/tree/node_limits.h"
#include "fsgen/tree/source_differences.h"
#include "fsgen/tree/tree_path.h"
#include "support/arithmetic.h"

namespace mkvirtfs::archive {
namespace {

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
  if (S_ISREG(member.mode) && member.size_bytes != 0 && member.place == MemberPlace::nowhere &&
      !(member.is_sparse && member.stored_runs.empty())) {
    return "has a size, but no bytes";
  }
  return std::nullopt;
}

bool brings_bytes(const Member& member) { return S_ISREG(member.mode) && member.size_bytes != 0; }

}  // namespace

std::unexpected<Error> Extraction::wrong(std::string_view member, std::string_view what,
                                         std::vector<Setting> hints) const {
  return fail(Errc::unreadable, fmt::format("{}: member {} {}", name_, member, what),
              std::move(hints));
}

/// The directory that holds the last of path_'s components.
Result<PathNo> Extraction::parent() {
  const auto way = std::span(path_.components).first(path_.components.size() - 1);
  PathNo at = kRootPath;
  for (const std::string_view name : way) {
    const PathNo known = paths_.find(at, name);
    const bool is_plain =
        known == kNoPath ? options_.below == nullptr : paths_[known].is_directory();
    if (!is_plain) {
      Result<WalkEnd> end = walk(way, MissingDirectories::are_made);
      if (!end) return wrong(member_.path, std::move(end).error());
      return end->no;
    }
    at = known == kNoPath ? paths_.find_or_add(at, name) : known;
  }
  return at;
}

/// parent(), which is mostly that of the member before.
Result<PathNo> Extraction::parent_beside_the_last() {
  const std::string_view name = path_.components.back();
  const std::string_view directory =
      member_.path.substr(0, static_cast<std::size_t>(name.data() - member_.path.data()));
  const bool is_beside = last_parent_ != kNoPath && directory == last_directory_ &&
                         paths_[last_parent_].is_directory();
  if (is_beside) return last_parent_;
  Result<PathNo> found = parent();
  if (found) {
    last_parent_ = *found;
    last_directory_ = directory;
  }
  return found;
}

/// Something that is no directory is about to stand there.
Result<void> Extraction::check_replaced(PathNo no) {
  const ExtractedPath& path = paths_[no];
  if (path.is_directory() && path.entry_count() != 0) {
    return wrong(member_.path, "is no directory, but others lie below it");
  }
  if (path.kind() != PathKind::implied) ++replaced_;
  return {};
}

Result<void> Extraction::put_directory(PathNo no, MemberLog::Position at) {
  // Over another directory it only brings attributes.
  if (!paths_[no].is_directory()) ++replaced_;
  paths_[no].become(PathKind::directory, at);
  return {};
}

Result<void> Extraction::put_file(PathNo no, ExtractedFileNo file) {
  if (Result<void> good = check_replaced(no); !good) return good;
  paths_[no].become(file);
  return {};
}

Result<void> Extraction::put_link(PathNo no, MemberLog::Position at) {
  const Result<Target> target = find(member_.link_target);
  if (!target) return propagate(target);
  const PathNo found = target->no;
  if (found == no && paths_[no].kind() == PathKind::file) return {};
  if (found == kNoPath || paths_[found].kind() != PathKind::file) {
    // It may come later. What it is then, and whether it is, is looked at in the end.
    links_.push_back(no);
    if (Result<void> good = check_replaced(no); !good) return good;
    paths_[no].become(PathKind::link, at);
    return {};
  }
  const ExtractedFileNo file = paths_[found].file();
  if (Result<void> good = put_file(no, file); !good) return good;
  // cpio brings the bytes with the last name, and pax may with any.
  if (brings_bytes(member_)) files_[file] = at;
  return {};
}

PathNo Extraction::find(std::span<const std::string_view> components) const {
  PathNo at = kRootPath;
  for (const std::string_view component : components) {
    at = paths_.find(at, component);
    if (at == kNoPath) break;
  }
  return at;
}

Result<Extraction::Target> Extraction::find(std::string_view target) {
  MemberPath path;
  if (Result<void> good = path.parse(target, options_.unsafe_names); !good) {
    return wrong(member_.path,
                 fmt::format("is a hard link to {}, which {}", target, good.error().what),
                 good.error().hints);
  }
  if (const PathNo at = find(path.components); at != kNoPath) return Target{at, {}};
  Result<std::string> settled_path = settled(path);
  if (!settled_path) {
    return wrong(member_.path,
                 fmt::format("is a hard link to {}, which {}", target, settled_path.error().what),
                 settled_path.error().hints);
  }
  const PathNo at = find(components_of(*settled_path));
  return Target{at, std::move(*settled_path)};
}

Result<std::string> Extraction::settled(const MemberPath& path) {
  if (path.components.empty()) return std::string();
  const auto way = std::span(path.components).first(path.components.size() - 1);
  PathNo at = kRootPath;
  for (const std::string_view name : way) {
    at = paths_.find(at, name);
    if (at == kNoPath || !paths_[at].is_directory()) break;
  }
  const bool is_plain = at == kNoPath ? options_.below == nullptr : paths_[at].is_directory();
  if (is_plain) return path.text();
  Result<WalkEnd> end = walk(way, MissingDirectories::stay_missing);
  if (!end) return propagate(end);
  return join_path(end->path, path.components.back());
}

bool Extraction::is_directory_in_part() const noexcept {
  return S_ISDIR(member_.mode) && !member_.is_hard_link && !member_.has_all_attributes();
}

Result<void> Extraction::take_root(MemberLog::Position at) {
  if (is_directory_in_part()) return {};
  if (!S_ISDIR(member_.mode) || member_.is_hard_link) {
    return wrong(member_.path, "names the root, but is no directory");
  }
  root_ = at;
  return {};
}

Result<void> Extraction::take(MemberLog::Position at) {
  if (Result<void> good = path_.parse(member_.path, options_.unsafe_names); !good) {
    return wrong(member_.path, std::move(good).error());
  }
  absolute_ += path_.was_absolute ? 1 : 0;
  stripped_ += path_.was_stripped ? 1 : 0;
  if (member_.changes_only) {
    overrides_.push_back(at);
    return {};
  }
  if (const auto reason = objection_to(member_)) return wrong(member_.path, *reason);
  if (is_directory_in_part()) overrides_.push_back(at);
  if (path_.components.empty()) return take_root(at);

  const Result<PathNo> parent = parent_beside_the_last();
  if (!parent) return propagate(parent);
  const PathNo no = paths_.find_or_add(*parent, path_.components.back());
  if (member_.is_hard_link) return put_link(no, at);
  // As if it were not named: its override changes what is there in the end.
  if (is_directory_in_part() && paths_[no].is_directory()) return {};
  if (S_ISDIR(member_.mode)) return put_directory(no, at);
  const ExtractedFileNo file{narrow<std::uint32_t>(files_.size())};
  if (Result<void> good = put_file(no, file); !good) return good;
  files_.push_back(at);
  return {};
}

/// What a chain of links ends at; kNoPath: it is not in the archive. `chain` becomes the links. In
/// the end member_ is the last of them.
Result<PathNo> Extraction::resolve(PathNo first, std::vector<PathNo>& chain) {
  chain.clear();
  PathNo at = first;
  while (at != kNoPath && paths_[at].kind() == PathKind::link) {
    paths_[at].set_link_state(PathKind::resolving);
    chain.push_back(at);
    members_.read(paths_[at].member(), member_);
    const Result<Target> found = find(member_.link_target);
    if (!found) return propagate(found);
    at = found->no;
  }
  return at;
}

Result<void> Extraction::resolve_links() {
  std::vector<PathNo> chain;
  for (const PathNo first : links_) {
    if (paths_[first].kind() != PathKind::link) continue;  // resolved, or replaced
    const Result<PathNo> resolved = resolve(first, chain);
    if (!resolved) return propagate(resolved);
    const PathNo at = *resolved;
    const bool is_nowhere = at == kNoPath || paths_[at].kind() == PathKind::outward;
    if (is_nowhere && !options_.outward_links) {
      return wrong(member_.path,
                   fmt::format("is a hard link to {}, which the archive does not hold",
                               member_.link_target));
    }
    if (!is_nowhere && paths_[at].kind() != PathKind::file) {
      return wrong(member_.path,
                   fmt::format("is a hard link to {}, which is {}", member_.link_target,
                               paths_[at].is_directory() ? "a directory" : "a link back to it"));
    }
    for (const PathNo no : chain) {
      if (!is_nowhere) {
        make_file(no, paths_[at].file());
      } else if (Result<void> good = make_outward(no); !good) {
        return good;
      }
    }
  }
  return {};
}

void Extraction::make_file(PathNo no, ExtractedFileNo file) {
  const MemberLog::Position link = paths_[no].member();
  members_.read(link, member_);
  paths_[no].become(file);
  if (brings_bytes(member_)) files_[file] = link;
}

Result<void> Extraction::make_outward(PathNo no) {
  members_.read(paths_[no].member(), member_);
  Result<Target> found = find(member_.link_target);
  if (!found) return propagate(found);
  // One in a chain of them names another, which becomes a name of what lies below, too.
  std::string target = found->no == kNoPath ? std::move(found->path) : paths_.text(found->no);
  outward_links_.push_back({paths_.text(no), std::move(target)});
  paths_[no].set_link_state(PathKind::outward);
  return {};
}

Result<void> Extraction::run(LogSink& log) {
  for (MemberLog::Position at = 0; at < members_.end();) {
    const MemberLog::Position next = members_.read(at, member_);
    if (Result<void> good = take(at); !good) return good;
    at = next;
  }
  if (Result<void> good = resolve_links(); !good) return good;
  report(log);
  return {};
}

void Extraction::report(LogSink& log) const {
  if (replaced_ != 0) {
    log.write(LogLevel::info, fmt::format("{}: {} replaced by a later one of the same name", name_,
                                          counted(replaced_, "member is", "members are")));
  }
  if (absolute_ != 0) {
    log.write(LogLevel::debug,
              fmt::format("{}: {} taken as relative to its root", name_,
                          counted(absolute_, "absolute name is", "absolute names are")));
  }
  if (stripped_ != 0) {
    log.write(LogLevel::warning, fmt::format("{}: \"..\" was taken off {}", name_,
                                             counted(stripped_, "name", "names")));
  }
}

}  // namespace mkvirtfs::archive
