// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/disk/member_list.h"

#include <fmt/format.h>

#include "support/arithmetic.h"

namespace mkvirtfs::disk {
namespace {

constexpr std::size_t kMostNameBytes = 255;
// linux/limits.h: PATH_MAX without the NUL.
constexpr std::size_t kMostPathBytes = 4095;

}  // namespace

Result<archive::MemberLog::Position> MemberList::add(const archive::Member& member) {
  if (log_.member_count() == limits_.most_members) {
    return fail(Errc::does_not_fit,
                fmt::format("{} has more than {} entries", disk_, limits_.most_members),
                {{"max-entries"}});
  }
  const auto total = checked_add(bytes_, member.size_bytes);
  if (!total || *total > limits_.most_bytes) {
    return fail(Errc::does_not_fit,
                fmt::format("{}: its files have more than {} bytes", disk_, limits_.most_bytes),
                {{"max-size"}});
  }
  bytes_ = *total;
  const archive::MemberLog::Position at = log_.end();
  if (Result<void> good = log_.append(member); !good) return propagate(disk_, good);
  return at;
}

void append_piece(std::vector<Range>& pieces, Range piece) {
  if (piece.length == 0) return;
  if (!pieces.empty() && pieces.back().end() == piece.offset) {
    pieces.back().length += piece.length;
  } else {
    pieces.push_back(piece);
  }
}

void settle_place(archive::Member& member) {
  member.data_offset = 0;
  if (member.pieces.empty()) {
    member.place = archive::MemberPlace::nowhere;
  } else if (member.pieces.size() == 1) {
    member.place = archive::MemberPlace::stored;
    member.data_offset = member.pieces.front().offset;
  } else {
    member.place = archive::MemberPlace::in_pieces;
  }
}

const char* objection_to_name(std::string_view name) noexcept {
  if (name.empty()) return "is empty";
  if (name.size() > kMostNameBytes) return "is longer than 255 bytes";
  if (name == "." || name == "..") return "is no name of an entry";
  if (name.find('/') != std::string_view::npos) return "has a slash";
  if (name.find('\0') != std::string_view::npos) return "has a NUL byte";
  return nullptr;
}

std::string path_below(std::string_view directory, std::string_view name) {
  std::string path(directory);
  if (!path.empty()) path += '/';
  path += name;
  return path;
}

bool is_too_long(std::string_view path) noexcept { return path.size() > kMostPathBytes; }

}  // namespace mkvirtfs::disk
