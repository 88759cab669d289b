// SPDX-License-Identifier: BSD-3-Clause
#include "guest-init/guest_settings.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdlib>

namespace mkvirtfs::guest {
namespace {

void set(Settings& settings, std::string_view key, std::string value) {
  const auto number = [&] { return static_cast<unsigned short>(std::atoi(value.c_str())); };
  if (key == "module")
    settings.modules.push_back(std::move(value));
  else if (key == "root")
    settings.root_device = std::move(value);
  else if (key == "type")
    settings.root_type = std::move(value);
  else if (key == "overlay")
    settings.has_overlay = true;
  else if (key == "read-only")
    settings.is_read_only = true;
  else if (key == "network")
    settings.has_network = true;
  else if (key == "port")
    settings.has_port = true;
  else if (key == "share")
    settings.share = std::move(value);
  else if (key == "argument")
    settings.arguments.push_back(std::move(value));
  else if (key == "variable")
    settings.environment.push_back(std::move(value));
  else if (key == "user")
    settings.user = std::move(value);
  else if (key == "directory")
    settings.directory = std::move(value);
  else if (key == "terminal")
    settings.has_terminal = true;
  else if (key == "rows")
    settings.rows = number();
  else if (key == "columns")
    settings.columns = number();
}

}  // namespace

Settings parse_settings(std::string_view text) {
  Settings settings;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\0'), text.size());
    const std::string_view record = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const std::size_t sign = record.find('=');
    if (sign == std::string_view::npos) continue;
    set(settings, record.substr(0, sign), std::string(record.substr(sign + 1)));
  }
  return settings;
}

std::string read_file(const char* path) {
  std::string text;
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return text;
  std::array<char, 4096> piece{};
  while (true) {
    const ssize_t length = ::read(fd, piece.data(), piece.size());
    if (length <= 0) break;
    text.append(piece.data(), static_cast<std::size_t>(length));
  }
  ::close(fd);
  return text;
}

}  // namespace mkvirtfs::guest
