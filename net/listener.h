// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "support/error.h"
#include "support/unique_fd.h"

namespace mkvirtfs::net {

/// All context ids that this machine has in vsock.
inline constexpr std::uint32_t kAnyCid = 0xffffffff;

/// Where a client on this machine finds a listener.
struct ListenAddress {
  enum class Kind : std::uint8_t { tcp, unix_socket, vsock, other };

  Kind kind = Kind::other;
  /// Of tcp "HOST:PORT", with brackets around an IPv6 address; of vsock "CID:PORT".
  std::string authority;
  /// Of unix_socket; "" when it has no name in the file system.
  std::string path;
};

/// A socket that accepts clients, and the address that leads to it. Removes its Unix socket when it
/// is destroyed, if that is still the one it made. Belongs to one thread.
class Listener {
 public:
  /// See nbd::Server::listen_unix, listen_tcp and listen_vsock.
  static Result<Listener> on_unix(const std::string& path);
  static Result<std::vector<Listener>> on_tcp(const std::string& host, std::uint16_t port);
  static Result<Listener> on_vsock(std::uint32_t cid, std::uint32_t port);
  /// See nbd::Server::listen_on. The file of a Unix socket stays where it is.
  static Result<Listener> on_socket(UniqueFd socket);

  Listener(Listener&& other) noexcept = default;
  Listener& operator=(Listener&& other) noexcept = delete;
  ~Listener();

  int fd() const noexcept { return socket_.get(); }
  const ListenAddress& address() const noexcept { return address_; }

 private:
  /// The file that stands for a Unix socket.
  struct SocketFile {
    std::string path;
    std::uint64_t device = 0;
    std::uint64_t inode = 0;
  };

  explicit Listener(UniqueFd socket) : socket_(std::move(socket)) {}

  UniqueFd socket_;
  ListenAddress address_;
  SocketFile file_;
};

}  // namespace mkvirtfs::net
