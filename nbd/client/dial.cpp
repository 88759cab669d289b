// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/client/dial.h"

#include <fmt/format.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>

namespace mkvirtfs::nbd {

namespace {

using Clock = std::chrono::steady_clock;

/// Waits until a socket that is connecting is connected.
Result<void> finish_connect(int fd, Clock::time_point deadline) {
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) return fail_errno(Errc::io, ETIMEDOUT, "connect");
    pollfd waited{fd, POLLOUT, 0};
    const int ready = ::poll(&waited, 1, static_cast<int>(std::min<std::int64_t>(left, 60'000)));
    if (ready < 0 && errno != EINTR) return fail_errno(errno, "poll");
    if (ready <= 0) continue;
    int error = 0;
    socklen_t length = sizeof error;
    ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error != 0) return fail_errno(Errc::io, error, "connect");
    return {};
  }
}

Result<UniqueFd> connect_socket(int family, const sockaddr* address, socklen_t length,
                                Clock::time_point deadline) {
  UniqueFd socket(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return fail_errno(errno, "make a socket");
  if (::connect(socket.get(), address, length) != 0) {
    if (errno != EINPROGRESS) return fail_errno(Errc::io, errno, "connect");
    if (Result<void> done = finish_connect(socket.get(), deadline); !done) {
      return propagate(done);
    }
  }
  return socket;
}

}  // namespace

Result<UniqueFd> connect_to(const ServerAddress& server, std::chrono::milliseconds patience) {
  const Clock::time_point deadline = Clock::now() + patience;
  if (!server.unix_socket.empty()) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, server.unix_socket.data(),
                std::min(server.unix_socket.size(), sizeof address.sun_path - 1));
    auto socket = connect_socket(AF_UNIX, reinterpret_cast<const sockaddr*>(&address),
                                 sizeof address, deadline);
    if (!socket) return propagate(server.unix_socket, socket);
    return socket;
  }
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const std::string port = std::to_string(server.port);
  const int status = ::getaddrinfo(server.host.c_str(), port.c_str(), &hints, &found);
  if (status != 0) {
    return fail(Errc::io, fmt::format("{}: {}", server.host, ::gai_strerror(status)));
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> addresses(found, &::freeaddrinfo);
  Result<UniqueFd> socket = fail(Errc::io, "no address");
  for (const addrinfo* address = found; address != nullptr && !socket; address = address->ai_next) {
    socket = connect_socket(address->ai_family, address->ai_addr, address->ai_addrlen, deadline);
  }
  if (!socket) return propagate(fmt::format("{} port {}", server.host, server.port), socket);
  return socket;
}

}  // namespace mkvirtfs::nbd
