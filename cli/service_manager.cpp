// SPDX-License-Identifier: BSD-3-Clause
#include "cli/service_manager.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <optional>
#include <string>

#include "cli/streams.h"
#include "support/parse_number.h"
#include "support/unique_fd.h"

namespace mkvirtfs::cli {

void notify_service_manager(std::string_view state) {
  const std::optional<std::string> path = environment("NOTIFY_SOCKET");
  sockaddr_un address{};
  if (!path || path->empty() || path->size() >= sizeof address.sun_path) return;
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path->data(), path->size());
  if (address.sun_path[0] == '@') address.sun_path[0] = '\0';  // the abstract name space
  const UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket) return;
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path->size());
  ::sendto(socket.get(), state.data(), state.size(), MSG_NOSIGNAL,
           reinterpret_cast<const sockaddr*>(&address), length);
}

std::vector<int> sockets_of_service_manager() {
  constexpr int kFirst = 3;
  constexpr int kMost = 1000;
  const auto number = [](const char* name) {
    return parse_number<int>(environment(name).value_or("")).value_or(0);
  };
  std::vector<int> sockets;
  if (number("LISTEN_PID") != static_cast<int>(::getpid())) return sockets;
  const int count = std::clamp(number("LISTEN_FDS"), 0, kMost);
  for (int i = 0; i < count; ++i) sockets.push_back(kFirst + i);
  return sockets;
}

}  // namespace mkvirtfs::cli
