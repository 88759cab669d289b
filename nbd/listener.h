// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "nbd/tls_credentials.h"
#include "support/error.h"
#include "support/unique_fd.h"

namespace mkvirtfs::nbd {

/// A socket that accepts clients, and the URI that leads to it. Removes its Unix socket when it is
/// destroyed, if that is still the one it made. Belongs to one thread.
class Listener {
 public:
  /// See Server::listen_unix, Server::listen_tcp and Server::listen_vsock.
  static Result<Listener> on_unix(const std::string& path);
  static Result<std::vector<Listener>> on_tcp(const std::string& host, std::uint16_t port);
  static Result<Listener> on_vsock(std::uint32_t cid, std::uint32_t port);
  /// See Server::listen_on. The file of a Unix socket stays where it is.
  static Result<Listener> on_socket(UniqueFd socket);

  Listener(Listener&& other) noexcept = default;
  Listener& operator=(Listener&& other) noexcept = delete;
  ~Listener();

  int fd() const noexcept { return socket_.get(); }
  /// Percent-encoded, for the export of that name ("NBD URI specification", doc/uri.md); "" when
  /// URIs have no form for this kind of socket. With `tls`, for clients that use TLS and these
  /// files.
  std::string uri(std::string_view export_name, const TlsCredentials* tls) const;

 private:
  /// The file that stands for a Unix socket.
  struct SocketFile {
    std::string path;
    std::uint64_t device = 0;
    std::uint64_t inode = 0;
  };

  explicit Listener(UniqueFd socket) : socket_(std::move(socket)) {}

  UniqueFd socket_;
  // One of them: a host (or a context) and a port, or the path of a Unix socket.
  std::string authority_;
  bool is_vsock_ = false;
  std::string socket_path_;
  SocketFile file_;
};

}  // namespace mkvirtfs::nbd
