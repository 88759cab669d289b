// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace mkvirtfs::guest {

struct User {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;
  std::string home = "/";
};

/// "user", "user:group", each a name of the root's /etc/passwd and /etc/group or a number; "" is
/// root. nullopt: there is no such name.
std::optional<User> find_user(const std::string& text);

}  // namespace mkvirtfs::guest
