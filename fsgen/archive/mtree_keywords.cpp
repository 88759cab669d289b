// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/archive/mtree_keywords.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <utility>

#include "fsgen/archive/host_ids.h"

namespace mkvirtfs::archive {
namespace {

template <class Number>
std::optional<Number> number_of(std::string_view text, int base = 10) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

/// "SECONDS" or "SECONDS.NANOSECONDS": what is behind the point is a number, not a fraction.
std::optional<Timestamp> time_of(std::string_view text) {
  const std::size_t point = text.find('.');
  const auto seconds = number_of<std::int64_t>(text.substr(0, point));
  if (!seconds) return std::nullopt;
  if (point == std::string_view::npos) return Timestamp{*seconds, 0};
  const auto nanoseconds = number_of<std::uint32_t>(text.substr(point + 1));
  if (!nanoseconds || *nanoseconds > 999'999'999) return std::nullopt;
  return Timestamp{*seconds, *nanoseconds};
}

/// "FORMAT,MAJOR,MINOR", or the number that stat(2) gives here. 0x begins a hexadecimal one.
std::optional<DeviceNumber> device_of(std::string_view text) {
  const auto number = [](std::string_view digits) {
    return digits.starts_with("0x") ? number_of<std::uint64_t>(digits.substr(2), 16)
                                    : number_of<std::uint64_t>(digits);
  };
  const std::size_t first = text.find(',');
  if (first == std::string_view::npos) {
    const auto all = number(text);
    if (!all) return std::nullopt;
    return DeviceNumber{gnu_dev_major(*all), gnu_dev_minor(*all)};
  }
  const std::size_t second = text.find(',', first + 1);
  if (second == std::string_view::npos) return std::nullopt;
  const auto major = number(text.substr(first + 1, second - first - 1));
  const auto minor = number(text.substr(second + 1));
  constexpr std::uint64_t kMost = std::numeric_limits<std::uint32_t>::max();
  if (!major || !minor || *major > kMost || *minor > kMost) return std::nullopt;
  return DeviceNumber{static_cast<std::uint32_t>(*major), static_cast<std::uint32_t>(*minor)};
}

/// 0 for what is no type.
std::uint16_t type_of(std::string_view text) {
  constexpr std::array<std::pair<std::string_view, std::uint16_t>, 7> kTypes = {{
      {"block", S_IFBLK},
      {"char", S_IFCHR},
      {"dir", S_IFDIR},
      {"fifo", S_IFIFO},
      {"file", S_IFREG},
      {"link", S_IFLNK},
      {"socket", S_IFSOCK},
  }};
  const auto found =
      std::ranges::find(kTypes, text, &std::pair<std::string_view, std::uint16_t>::first);
  return found == kTypes.end() ? std::uint16_t{0} : found->second;
}

/// What is for a check of a tree, and says nothing of what the tree is.
constexpr std::array<std::string_view, 20> kPassedOver = {
    "cksum",        "flags",        "ignore",     "inode",           "md5",
    "md5digest",    "nlink",        "resdevice",  "ripemd160digest", "rmd160",
    "rmd160digest", "sha1",         "sha1digest", "sha256",          "sha256digest",
    "sha384",       "sha384digest", "sha512",     "sha512digest",    "tags"};

}  // namespace

std::string unescaped_name(std::string_view text) {
  constexpr std::string_view kShort = R"(abfnrstv\#")";
  constexpr std::string_view kMeant = "\a\b\f\n\r \t\v\\#\"";
  static_assert(kShort.size() == kMeant.size());
  const auto octal = [](char c) { return c >= '0' && c <= '7'; };
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const std::string_view rest = text.substr(i);
    const bool escapes = rest[0] == '\\' && rest.size() > 1;
    const std::size_t meant = escapes ? kShort.find(rest[1]) : std::string_view::npos;
    if (escapes && rest.size() > 3 && octal(rest[1]) && octal(rest[2]) && octal(rest[3])) {
      plain += static_cast<char>((rest[1] - '0') * 64 + (rest[2] - '0') * 8 + (rest[3] - '0'));
      i += 3;
    } else if (meant != std::string_view::npos) {
      plain += kMeant[meant];
      ++i;
    } else {
      plain += rest[0];
    }
  }
  return plain;
}

std::optional<std::string> MtreeKeywords::set(std::string_view word) {
  const std::size_t equals = word.find('=');
  const std::string_view keyword = word.substr(0, equals);
  const std::string_view value =
      equals == std::string_view::npos ? std::string_view() : word.substr(equals + 1);
  bool good = true;
  const auto take = [&good](auto& into, auto parsed) {
    good = parsed.has_value();
    into = parsed;
  };
  if (keyword == "type") {
    type = type_of(value);
    good = type != 0;
  } else if (keyword == "mode") {
    take(permissions, number_of<std::uint16_t>(value, 8));
    good = good && *permissions <= 07777;
  } else if (keyword == "uid") {
    take(uid, number_of<std::uint32_t>(value));
  } else if (keyword == "gid") {
    take(gid, number_of<std::uint32_t>(value));
  } else if (keyword == "uname") {
    named_uid = id_of(unescaped_name(value), IdKind::user);
    unknown_user = named_uid ? "" : value;
  } else if (keyword == "gname") {
    named_gid = id_of(unescaped_name(value), IdKind::group);
    unknown_group = named_gid ? "" : value;
  } else if (keyword == "time") {
    take(mtime, time_of(value));
  } else if (keyword == "size") {
    take(size_bytes, number_of<std::uint64_t>(value));
  } else if (keyword == "link") {
    link_target = unescaped_name(value);
  } else if (keyword == "contents" || keyword == "content") {
    contents = unescaped_name(value);
  } else if (keyword == "device") {
    take(device, device_of(value));
  } else if (keyword == "optional") {
    is_optional = true;
  } else if (keyword == "nochange") {
    no_change = true;
  } else if (std::ranges::find(kPassedOver, keyword) == kPassedOver.end()) {
    return fmt::format("{} is no keyword of mtree(5)", word);
  }
  if (good) return std::nullopt;
  return fmt::format("{} cannot be understood", word);
}

void MtreeKeywords::unset(std::string_view keyword) {
  const bool all = keyword == "all";
  if (all || keyword == "type") type = 0;
  if (all || keyword == "mode") permissions.reset();
  if (all || keyword == "uid") uid.reset();
  if (all || keyword == "gid") gid.reset();
  if (all || keyword == "uname") {
    named_uid.reset();
    unknown_user.clear();
  }
  if (all || keyword == "gname") {
    named_gid.reset();
    unknown_group.clear();
  }
  if (all || keyword == "time") mtime.reset();
  if (all || keyword == "size") size_bytes.reset();
  if (all || keyword == "link") link_target.reset();
  if (all || keyword == "contents" || keyword == "content") contents.reset();
  if (all || keyword == "device") device.reset();
  if (all || keyword == "optional") is_optional = false;
  if (all || keyword == "nochange") no_change = false;
}

}  // namespace mkvirtfs::archive
