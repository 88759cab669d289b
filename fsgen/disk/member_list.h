// SPDX-License-Identifier: BSD-3-Clause
// Private to this room.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "block/extent.h"
#include "fsgen/archive/member_log.h"
#include "fsgen/archive/read_members.h"
#include "support/error.h"

namespace mkvirtfs::disk {

/// The members that a reader finds, within the limits.
class MemberList {
 public:
  MemberList(std::string disk, const archive::ReadLimits& limits)
      : disk_(std::move(disk)), limits_(limits) {}

  /// Where it stands in log(). Errc::does_not_fit beyond the limits.
  Result<archive::MemberLog::Position> add(const archive::Member& member);

  const archive::MemberLog& log() const noexcept { return log_; }
  archive::MemberLog take() && { return std::move(log_); }

 private:
  const std::string disk_;
  const archive::ReadLimits& limits_;
  archive::MemberLog log_;
  std::uint64_t bytes_ = 0;
};

/// Appends a range of the disk; one that goes on where the last one ends makes that longer.
void append_piece(std::vector<Range>& pieces, Range piece);

/// Where the bytes of a member lie: in `member.pieces`, which are joined.
void settle_place(archive::Member& member);

/// Why no entry of a directory can have this name, in words that follow it; nullptr when one can.
/// "." and ".." are no names.
const char* objection_to_name(std::string_view name) noexcept;

/// Sorts the entries of a directory, which have a `name` and a `position`. Of several with one name
/// the first of the directory comes first: it is the one that Linux finds.
template <class Entry>
void sort_by_name(std::vector<Entry>& entries) {
  for (std::size_t i = 0; i < entries.size(); ++i) entries[i].position = i;
  std::ranges::sort(entries, {}, [](const Entry& each) {
    return std::pair<std::string_view, std::size_t>(each.name, each.position);
  });
}

/// The path of an entry: that of a directory ("" is the root), and a name.
std::string path_below(std::string_view directory, std::string_view name);
/// Whether a path is longer than sources may have.
bool is_too_long(std::string_view path) noexcept;

}  // namespace mkvirtfs::disk
