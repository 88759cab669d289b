// SPDX-License-Identifier: BSD-3-Clause
// The special headers before an entry (pax extended and global ones) are walked block by block in
// the bytes that libarchive has just read. Records that it drops or mistakes are set in the
// entry.
#include "fsgen/archive/tar_headers.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <span>

namespace mkvirtfs::archive {
namespace {

constexpr std::uint64_t kBlockBytes = 512;
// libarchive's own limits: longer or more special headers are errors there.
constexpr std::uint64_t kMostBodyBytes = std::uint64_t{1} << 20;
constexpr int kMostSpecialHeaders = 32;
constexpr std::size_t kSizeAt = 124;
constexpr std::size_t kSizeBytes = 12;
constexpr std::size_t kTypeAt = 156;

// Types of headers that another header follows.
constexpr char kExtended = 'x';
constexpr char kSunExtended = 'X';
constexpr char kGlobal = 'g';
constexpr char kVolume = 'V';  // has no body, whatever its size says

using Block = std::span<const std::byte>;  // of a header

char type_of(Block block) { return static_cast<char>(block[kTypeAt]); }

bool leads_to_another(char type) {
  // With GNU's long names and targets (L, K) and Solaris' ACLs (A).
  constexpr std::string_view kTypes = "xXgLKAV";
  return kTypes.contains(type);
}

bool is_null(Block block) {
  return std::ranges::all_of(block, [](std::byte byte) { return byte == std::byte{0}; });
}

/// The size of a special header's body: octal, or base 256 as GNU tar writes it.
std::optional<std::uint64_t> body_bytes(Block block) {
  const auto field = block.subspan(kSizeAt, kSizeBytes);
  std::uint64_t size = 0;
  if ((field.front() & std::byte{0x80}) != std::byte{0}) {
    if (field.front() != std::byte{0x80}) return std::nullopt;
    for (const std::byte byte : field.subspan(1)) {
      if (size > kMostBodyBytes) return std::nullopt;
      size = size << 8 | std::to_integer<std::uint64_t>(byte);
    }
  } else {
    bool began = false;
    for (const std::byte byte : field) {
      const char digit = static_cast<char>(byte);
      if (!began && (digit == ' ' || digit == '\t')) continue;
      if (digit < '0' || digit > '7') break;
      began = true;
      if (size > kMostBodyBytes) return std::nullopt;
      size = size << 3 | static_cast<std::uint64_t>(digit - '0');
    }
  }
  if (size > kMostBodyBytes) return std::nullopt;
  return size;
}

std::uint64_t padded(std::uint64_t size) {
  return (size + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
}

/// Calls `take(keyword, value)` for each "LENGTH KEYWORD=VALUE\n"; false where one is damaged, or
/// `take` says so.
template <class Take>
bool for_each_record(std::string_view body, Take take) {
  while (!body.empty() && body.front() != '\0') {
    std::size_t length = 0;
    const auto [end, error] = std::from_chars(body.data(), body.data() + body.size(), length);
    const auto digits = static_cast<std::size_t>(end - body.data());
    if (error != std::errc() || length > body.size() || length < digits + 3 ||
        body[digits] != ' ' || body[length - 1] != '\n') {
      return false;
    }
    const std::string_view record = body.substr(digits + 1, length - digits - 2);
    const std::size_t equals = record.find('=');
    if (equals == 0 || equals == std::string_view::npos) return false;
    if (!take(record.substr(0, equals), record.substr(equals + 1))) return false;
    body.remove_prefix(length);
  }
  return true;
}

std::optional<std::int64_t> id_of(std::string_view text) {
  std::int64_t id = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return id;
}

/// Global records that say nothing of what is kept here: remarks, what a writer calls itself, the
/// names beside the numbers by which owners go, times that no image has from a source, and how
/// names are encoded, which stay the bytes that they are.
bool is_without_effect(std::string_view keyword) {
  constexpr std::array<std::string_view, 10> kKeywords = {
      "comment", "charset", "hdrcharset",       "uname",           "gname",
      "atime",   "ctime",   "GNU.volume.label", "SCHILY.archtype", "SCHILY.release"};
  return std::ranges::find(kKeywords, keyword) != kKeywords.end();
}

}  // namespace

std::optional<Timestamp> pax_time(std::string_view text) {
  const bool is_negative = text.starts_with('-');
  std::string_view digits = text.substr(is_negative ? 1 : 0);
  std::int64_t seconds = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), seconds);
  // A second sign would be taken for one.
  if (error != std::errc() || digits.empty() || digits.front() == '-') return std::nullopt;
  digits.remove_prefix(static_cast<std::size_t>(end - digits.data()));
  std::uint32_t nanoseconds = 0;
  bool is_more = false;  // than whole nanoseconds
  if (digits.starts_with('.')) {
    digits.remove_prefix(1);
    std::uint32_t unit = 100'000'000;
    for (; !digits.empty() && digits.front() >= '0' && digits.front() <= '9'; unit /= 10) {
      const auto digit = static_cast<std::uint32_t>(digits.front() - '0');
      nanoseconds += digit * unit;
      if (unit == 0 && digit != 0) is_more = true;
      digits.remove_prefix(1);
    }
  }
  if (!digits.empty()) return std::nullopt;
  if (!is_negative) return Timestamp{seconds, nanoseconds};
  // Times are rounded down, and their nanoseconds count up.
  constexpr std::uint32_t kSecond = 1'000'000'000;
  if (is_more) ++nanoseconds;
  if (nanoseconds == 0) return Timestamp{-seconds, 0};
  return nanoseconds == kSecond ? Timestamp{-seconds - 1, 0}
                                : Timestamp{-seconds - 1, kSecond - nanoseconds};
}

std::optional<std::vector<Range>> solaris_data_runs(std::string_view text,
                                                    std::uint64_t size_bytes) {
  std::vector<Range> runs;
  std::uint64_t from = 0;
  bool is_hole = true;  // as far as the first number
  while (text.starts_with(' ')) {
    text.remove_prefix(1);
    std::uint64_t to = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), to);
    if (error != std::errc() || to < from || to > size_bytes) return std::nullopt;
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    if (!is_hole && to != from) {
      const bool touches = !runs.empty() && runs.back().end() == from;
      if (touches) {
        runs.back().length += to - from;
      } else {
        runs.push_back({from, to - from});
      }
    }
    from = to;
    is_hole = !is_hole;
  }
  if (!text.empty() || from != size_bytes) return std::nullopt;
  return runs;
}

Result<void> TarHeaders::read(ArchiveHandle& handle) {
  member_ = {};
  if (Result<void> good = walk(handle); !good) return good;
  apply(handle.entry());
  return {};
}

Result<void> TarHeaders::walk(ArchiveHandle& handle) {
  const std::uint64_t end = handle.data_offset();
  std::uint64_t at = handle.header_offset();
  const auto holds = [&](std::uint64_t bytes) { return end >= at && end - at >= bytes; };
  for (int special = 0; holds(kBlockBytes) && special <= kMostSpecialHeaders;) {
    Block block = handle.header_in_memory(at, kBlockBytes);
    std::array<std::byte, kBlockBytes> copy;
    if (block.empty()) {
      if (Result<void> good = handle.read_header(at, copy); !good) return good;
      block = copy;
    }
    at += kBlockBytes;
    // The end of another archive is before it, where such are passed over.
    if (block.front() == std::byte{0} && is_null(block)) continue;
    const char type = type_of(block);
    if (!leads_to_another(type)) return {};
    ++special;
    if (type == kVolume) continue;
    const std::optional<std::uint64_t> size = body_bytes(block);
    if (!size || !holds(padded(*size))) return fail(Errc::unreadable, "a header has a wrong size");
    const bool is_global = type == kGlobal;
    if (is_global || type == kExtended || type == kSunExtended) {
      const Result<std::string_view> body = body_of(handle, at, *size);
      if (!body) return propagate(body);
      if (Result<void> good = take_records(*body, is_global ? Scope::global : Scope::one_member);
          !good)
        return good;
    }
    at += padded(*size);
  }
  return {};
}

Result<std::string_view> TarHeaders::body_of(ArchiveHandle& handle, std::uint64_t offset,
                                             std::uint64_t size) {
  std::span<const std::byte> bytes =
      handle.header_in_memory(offset, static_cast<std::size_t>(size));
  if (bytes.empty() && size != 0) {
    body_.resize(static_cast<std::size_t>(size));
    if (Result<void> good = handle.read_header(offset, body_); !good) {
      return propagate(good);
    }
    bytes = body_;
  }
  return std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

Result<void> TarHeaders::take_records(std::string_view body, Scope scope) {
  if (scope == Scope::one_member) {
    // libarchive says where one is damaged.
    for_each_record(body, [&](std::string_view keyword, std::string_view value) {
      take_own(keyword, value);
      return true;
    });
    return {};
  }
  globals_ = {};
  Result<void> taken;
  const bool whole = for_each_record(body, [&](std::string_view keyword, std::string_view value) {
    taken = take_global(keyword, value);
    return taken.has_value();
  });
  if (whole || !taken || globals_policy_ == PaxGlobals::ignore) return taken;
  return fail(Errc::unreadable, "its pax global header is damaged", {{"pax-globals", "ignore"}});
}

Result<void> TarHeaders::take_global(std::string_view keyword, std::string_view value) {
  if (globals_policy_ == PaxGlobals::ignore) {
    const bool is_known = std::ranges::find(ignored_keywords_, keyword) != ignored_keywords_.end();
    if (keyword != "comment" && !is_known) ignored_keywords_.emplace_back(keyword);
    return {};
  }
  const auto refuse = [&](std::string_view why) {
    return fail(Errc::unsupported,
                fmt::format("a pax global header before it has {}={}, {}", keyword, value, why),
                {{"pax-globals", "ignore"}});
  };
  const bool is_uid = keyword == "uid";
  if (is_uid || keyword == "gid") {
    const std::optional<std::int64_t> id = id_of(value);
    if (!id) return refuse("which is no number");
    (is_uid ? globals_.uid : globals_.gid) = id;
    return {};
  }
  if (keyword == "mtime") {
    globals_.mtime = pax_time(value);
    if (!globals_.mtime) return refuse("which is no time");
    return {};
  }
  if (is_without_effect(keyword)) return {};
  return refuse("which is not applied to all members");
}

void TarHeaders::take_own(std::string_view keyword, std::string_view value) {
  if (keyword == "mtime") {
    member_.has_mtime = true;
    // libarchive is right about all others, and about what is no time.
    member_.mtime = value.starts_with('-') ? pax_time(value) : std::nullopt;
  } else if (keyword == "uid") {
    member_.has_uid = true;
  } else if (keyword == "gid") {
    member_.has_gid = true;
  } else if (keyword == "SUN.holesdata") {
    member_.stored_holes = value;
  }
}

void TarHeaders::apply(::archive_entry* entry) const {
  if (globals_.uid && !member_.has_uid) archive_entry_set_uid(entry, *globals_.uid);
  if (globals_.gid && !member_.has_gid) archive_entry_set_gid(entry, *globals_.gid);
  const std::optional<Timestamp>& mtime = member_.has_mtime ? member_.mtime : globals_.mtime;
  if (mtime) archive_entry_set_mtime(entry, mtime->seconds, static_cast<long>(mtime->nanoseconds));
}

std::string TarHeaders::take_ignored_keywords() {
  if (told_ignored_ || ignored_keywords_.empty()) return {};
  told_ignored_ = true;
  return fmt::format("{}", fmt::join(ignored_keywords_, ", "));
}

}  // namespace mkvirtfs::archive
