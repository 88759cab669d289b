// SPDX-License-Identifier: BSD-3-Clause
#include "guest-init/guest_user.h"

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <string_view>

#include "guest-init/guest_settings.h"

namespace mkvirtfs::guest {
namespace {

std::vector<std::string> split(std::string_view text, char delimiter) {
  std::vector<std::string> parts;
  while (true) {
    const std::size_t end = std::min(text.find(delimiter), text.size());
    parts.emplace_back(text.substr(0, end));
    if (end == text.size()) return parts;
    text.remove_prefix(end + 1);
  }
}

bool is_number(const std::string& text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
}

unsigned number(const std::string& text) {
  return static_cast<unsigned>(std::strtoul(text.c_str(), nullptr, 10));
}

/// The first row of a file like /etc/passwd whose name, or whose id, is `wanted`.
std::optional<std::vector<std::string>> find_row(const char* path, std::size_t columns,
                                                 const std::string& wanted) {
  for (const std::string& line : split(read_file(path), '\n')) {
    std::vector<std::string> row = split(line, ':');
    if (row.size() >= columns && (row[0] == wanted || row[2] == wanted)) return row;
  }
  return std::nullopt;
}

void add_groups(const std::string& name, User& user) {
  for (const std::string& line : split(read_file("/etc/group"), '\n')) {
    const std::vector<std::string> row = split(line, ':');
    if (row.size() < 4) continue;
    for (const std::string& member : split(row[3], ',')) {
      if (member == name) user.groups.push_back(number(row[2]));
    }
  }
}

}  // namespace

std::optional<User> find_user(const std::string& text) {
  const std::size_t colon = std::min(text.find(':'), text.size());
  const std::string name = colon == 0 ? "0" : text.substr(0, colon);
  User user;
  const auto row = find_row("/etc/passwd", 6, name);
  if (row) {
    user.uid = number((*row)[2]);
    user.gid = number((*row)[3]);
    if (!(*row)[5].empty()) user.home = (*row)[5];
    if (colon == text.size()) add_groups((*row)[0], user);
  } else if (is_number(name)) {
    user.uid = number(name);
    if (user.uid == 0) user.home = "/root";
  } else {
    return std::nullopt;
  }
  if (colon == text.size()) return user;
  const std::string group = text.substr(colon + 1);
  if (const auto found = find_row("/etc/group", 3, group)) {
    user.gid = number((*found)[2]);
  } else if (is_number(group)) {
    user.gid = number(group);
  } else {
    return std::nullopt;
  }
  return user;
}

}  // namespace mkvirtfs::guest
