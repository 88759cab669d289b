// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "support/error.h"
#include "support/unique_fd.h"

namespace mkvirtfs::nbd {

/// A socket that accepts clients, and the URI that leads to it. Removes its Unix socket when it is
/// destroyed, if that is still the one it made. Belongs to one thread.
class Listener {
 public:
  /// See Server::listen_unix and Server::listen_tcp.
  static Result<Listener> on_unix(const std::string& path);
  static Result<std::vector<Listener>> on_tcp(const std::string& host, std::uint16_t port);

  Listener(Listener&& other) noexcept = default;
  Listener& operator=(Listener&& other) noexcept = delete;
  ~Listener();

  int fd() const noexcept { return socket_.get(); }
  /// Percent-encoded, for the export of that name ("NBD URI specification", doc/uri.md).
  std::string uri(std::string_view export_name) const;

 private:
  /// The file that stands for a Unix socket.
  struct SocketFile {
    std::string path;
    std::uint64_t device = 0;
    std::uint64_t inode = 0;
  };

  Listener(UniqueFd socket, std::string before_name, std::string after_name)
      : socket_(std::move(socket)),
        before_name_(std::move(before_name)),
        after_name_(std::move(after_name)) {}

  UniqueFd socket_;
  std::string before_name_;
  std::string after_name_;
  SocketFile file_;
};

}  // namespace mkvirtfs::nbd
