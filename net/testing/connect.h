// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

#include "support/unique_fd.h"

// Connections for tests, to servers on this machine. They throw when there is none.

namespace mkvirtfs::net::testing {

inline void connect_or_throw(const UniqueFd& socket, const sockaddr* address, socklen_t length) {
  if (::connect(socket.get(), address, length) != 0) {
    throw std::runtime_error("connect: " + std::string(std::strerror(errno)));
  }
}

inline UniqueFd connect_unix(const std::string& path) {
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  connect_or_throw(socket, reinterpret_cast<sockaddr*>(&address), sizeof address);
  return socket;
}

inline UniqueFd connect_loopback(int family, std::uint16_t port) {
  UniqueFd socket(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (family == AF_INET) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    connect_or_throw(socket, reinterpret_cast<sockaddr*>(&address), sizeof address);
  } else {
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    address.sin6_addr = in6addr_loopback;
    address.sin6_port = htons(port);
    connect_or_throw(socket, reinterpret_cast<sockaddr*>(&address), sizeof address);
  }
  return socket;
}

}  // namespace mkvirtfs::net::testing
