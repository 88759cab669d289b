// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/archive/host_ids.h"

#include <grp.h>
#include <pwd.h>

#include <charconv>
#include <string>
#include <vector>

namespace mkvirtfs::archive {

std::optional<std::uint32_t> id_of(std::string_view name, IdKind kind) {
  std::uint32_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error == std::errc() && end == name.data() + name.size()) return number;
  const std::string text(name);
  std::vector<char> room(1 << 14);
  if (kind == IdKind::group) {
    ::group entry{};
    ::group* found = nullptr;
    ::getgrnam_r(text.c_str(), &entry, room.data(), room.size(), &found);
    if (found != nullptr) return found->gr_gid;
  } else {
    passwd entry{};
    passwd* found = nullptr;
    ::getpwnam_r(text.c_str(), &entry, room.data(), room.size(), &found);
    if (found != nullptr) return found->pw_uid;
  }
  return std::nullopt;
}

}  // namespace mkvirtfs::archive
