// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/archive/oci_whiteouts.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace mkvirtfs::oci {
namespace {

using archive::Member;
using archive::MemberLog;
using archive::MemberPath;

constexpr std::string_view kWhiteout = ".wh.";
constexpr std::string_view kMeta = ".wh..wh.";
constexpr std::string_view kOpaque = ".wh..wh..opq";

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

}  // namespace

Result<LayerMarks> take_whiteouts(MemberLog& members, std::string_view name,
                                  archive::UnsafeNames unsafe_names) {
  LayerMarks marks;
  if (!has_marks(members)) return marks;
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
      if (Result<void> kept = rest.append(member); !kept) {
        return std::unexpected(std::move(kept.error()));
      }
      continue;
    }
    const auto parents =
        std::span(path.components).first(static_cast<std::size_t>(mark - path.components.begin()));
    const bool is_last = std::next(mark) == path.components.end();
    if (*mark == kOpaque && is_last) {
      marks.opaque_directories.push_back(joined(parents));
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
    marks.whiteouts.push_back(gone.append(hidden));
  }
  members = std::move(rest);
  return marks;
}

}  // namespace mkvirtfs::oci
