// SPDX-License-Identifier: BSD-3-Clause
// A member is packed behind the last one: flags, numbers as varints, texts behind their lengths.
// Only what differs from the defaults is there, by flags. Kept logs are checked field by field
// before anything is read from them.
#include "fsgen/archive/member_log.h"

#include <cassert>
#include <limits>

#include "fsgen/stream/packing.h"
#include "support/arithmetic.h"

namespace mkvirtfs::archive {
namespace {

// A record: flags, path, then what the flags and the type say, in the order of put() below.
constexpr std::uint64_t kHardLink = 1;
constexpr std::uint64_t kSparse = 2;
constexpr std::uint64_t kPermissions = 4;
constexpr std::uint64_t kUid = 8;
constexpr std::uint64_t kGid = 16;
constexpr std::uint64_t kMtime = 32;
constexpr std::uint64_t kXattrs = 64;
constexpr std::uint64_t kChangesOnly = 128;
constexpr std::uint64_t kOptional = 256;
constexpr std::uint64_t kStoresHoles = 512;
constexpr std::uint64_t kAllFlags = 1023;
constexpr std::uint64_t kMostMode = 0177777;
constexpr std::uint64_t kMost32 = std::numeric_limits<std::uint32_t>::max();
constexpr std::uint64_t kMostNanoseconds = 999'999'999;
constexpr std::uint64_t kMostSize = std::numeric_limits<std::int64_t>::max();

bool has_target(const Member& member) { return member.is_hard_link || S_ISLNK(member.mode); }
bool is_device(const Member& member) { return S_ISCHR(member.mode) || S_ISBLK(member.mode); }

/// What `contents` is of.
bool has_text(MemberPlace place) {
  return place == MemberPlace::host || place == MemberPlace::unreadable;
}

void put(Packer& out, const Member& member) {
  std::uint64_t flags = 0;
  if (member.is_hard_link) flags |= kHardLink;
  if (member.is_sparse) flags |= kSparse;
  if (member.has_permissions) flags |= kPermissions;
  if (member.has_uid) flags |= kUid;
  if (member.has_gid) flags |= kGid;
  if (member.has_mtime) flags |= kMtime;
  if (!member.xattrs.empty()) flags |= kXattrs;
  if (member.changes_only) flags |= kChangesOnly;
  if (member.is_optional) flags |= kOptional;
  if (member.stores_holes) flags |= kStoresHoles;
  out.number(flags);
  out.text(member.path);
  out.number(member.mode);
  if (has_target(member)) out.text(member.link_target);
  if (member.has_uid) out.number(member.uid);
  if (member.has_gid) out.number(member.gid);
  if (member.has_mtime) {
    out.signed_number(member.mtime.seconds);
    out.number(member.mtime.nanoseconds);
  }
  if (is_device(member)) {
    out.number(member.device.major);
    out.number(member.device.minor);
  }
  out.number(member.size_bytes);
  if (member.is_sparse) {
    out.number(member.stored_runs.size());
    std::uint64_t from = 0;
    for (const Range& run : member.stored_runs) {
      out.number(run.offset - from);
      out.number(run.length);
      from = run.end();
    }
  }
  if (!member.xattrs.empty()) {
    out.number(member.xattrs.size());
    for (const auto& [name, value] : member.xattrs) {
      out.text(name);
      out.text(value);
    }
  }
  out.number(static_cast<std::uint64_t>(member.place));
  if (has_text(member.place)) {
    out.text(member.contents);
  } else if (member.place == MemberPlace::in_pieces) {
    out.number(member.pieces.size());
    for (const Range& piece : member.pieces) {
      out.number(piece.offset);
      out.number(piece.length);
    }
  } else if (member.place != MemberPlace::nowhere) {
    out.number(member.data_offset);
  }
  if (member.place == MemberPlace::deflated) {
    out.number(member.packed_bytes);
    out.number(member.crc32);
  }
}

void take_runs(Unpacker& in, Member& member) {
  member.stored_runs.clear();
  if (!member.is_sparse) return;
  const std::uint64_t count = in.number();
  std::uint64_t from = 0;
  for (std::uint64_t i = 0; i < count && in.good(); ++i) {
    // At most 2^63 each, so that no sum overflows.
    const std::uint64_t gap = in.number_up_to(member.size_bytes - from);
    const std::uint64_t length = in.number_up_to(member.size_bytes - from - gap);
    if (length == 0 || (gap == 0 && i != 0)) in.spoil();
    member.stored_runs.push_back({from + gap, length});
    from += gap + length;
  }
}

void take_pieces(Unpacker& in, Member& member) {
  const std::uint64_t count = in.number();
  std::uint64_t missing = member.stored_bytes();
  for (std::uint64_t i = 0; i < count && in.good(); ++i) {
    // At most 2^63 each, so that no sum overflows.
    const std::uint64_t offset = in.number_up_to(kMostSize);
    const std::uint64_t length = in.number_up_to(missing);
    if (length == 0) in.spoil();
    member.pieces.push_back({offset, length});
    missing -= length;
  }
  if (missing != 0 || member.pieces.empty()) in.spoil();
}

void take(Unpacker& in, Member& member) {
  const std::uint64_t flags = in.number_up_to(kAllFlags);
  member.is_hard_link = (flags & kHardLink) != 0;
  member.is_sparse = (flags & kSparse) != 0;
  member.has_permissions = (flags & kPermissions) != 0;
  member.has_uid = (flags & kUid) != 0;
  member.has_gid = (flags & kGid) != 0;
  member.has_mtime = (flags & kMtime) != 0;
  member.changes_only = (flags & kChangesOnly) != 0;
  member.is_optional = (flags & kOptional) != 0;
  member.stores_holes = (flags & kStoresHoles) != 0;
  member.path = in.text();
  member.mode = static_cast<std::uint16_t>(in.number_up_to(kMostMode));
  member.link_target = has_target(member) ? in.text() : std::string_view{};
  member.uid = member.has_uid ? static_cast<std::uint32_t>(in.number_up_to(kMost32)) : 0;
  member.gid = member.has_gid ? static_cast<std::uint32_t>(in.number_up_to(kMost32)) : 0;
  member.mtime = {};
  if (member.has_mtime) {
    member.mtime.seconds = in.signed_number();
    member.mtime.nanoseconds = static_cast<std::uint32_t>(in.number_up_to(kMostNanoseconds));
  }
  member.device = {};
  if (is_device(member)) {
    member.device.major = static_cast<std::uint32_t>(in.number_up_to(kMost32));
    member.device.minor = static_cast<std::uint32_t>(in.number_up_to(kMost32));
  }
  member.size_bytes = in.number_up_to(kMostSize);
  take_runs(in, member);
  member.xattrs.clear();
  if ((flags & kXattrs) != 0) {
    const std::uint64_t count = in.number();
    for (std::uint64_t i = 0; i < count && in.good(); ++i) {
      const std::string_view name = in.text();
      member.xattrs.emplace_back(name, in.text());
    }
  }
  member.place = static_cast<MemberPlace>(
      in.number_up_to(static_cast<std::uint64_t>(MemberPlace::unreadable)));
  member.contents = {};
  member.data_offset = 0;
  member.pieces.clear();
  if (has_text(member.place)) {
    member.contents = in.text();
  } else if (member.place == MemberPlace::in_pieces) {
    take_pieces(in, member);
  } else if (member.place != MemberPlace::nowhere) {
    member.data_offset = in.number_up_to(kMostSize);
  }
  member.packed_bytes = 0;
  member.crc32 = 0;
  if (member.place == MemberPlace::deflated) {
    member.packed_bytes = in.number_up_to(kMostSize);
    member.crc32 = static_cast<std::uint32_t>(in.number_up_to(kMost32));
  }
}

}  // namespace

Result<void> MemberLog::append(const Member& member) {
  Packer out(bytes_);
  put(out, member);
  if (bytes_.size() > kMost32) {
    return fail(Errc::does_not_fit, "its names and attributes have more than 4 GiB");
  }
  ++count_;
  return {};
}

MemberLog::Position MemberLog::read(Position at, Member& member) const {
  assert(at < end());
  Unpacker in(bytes().subspan(at));
  take(in, member);
  assert(in.good());
  return narrow<Position>(at + in.position());
}

std::string_view MemberLog::path(Position at) const {
  assert(at < end());
  Unpacker in(bytes().subspan(at));
  in.number();
  return in.text();
}

Result<MemberLog> MemberLog::open(std::vector<std::byte> bytes) {
  MemberLog log;
  log.bytes_ = std::move(bytes);
  if (log.bytes_.size() > kMost32) return fail(Errc::unreadable, "the log of members is too long");
  Unpacker in(log.bytes_);
  Member member;
  while (!in.at_end()) {
    take(in, member);
    if (!in.good()) return fail(Errc::unreadable, "the log of members is damaged");
    ++log.count_;
  }
  return log;
}

}  // namespace mkvirtfs::archive
