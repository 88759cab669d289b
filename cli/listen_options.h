// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "cli/command_line.h"
#include "cli/pipe_bridge.h"
#include "cli/private_directory.h"
#include "nbd/server.h"
#include "net/listener.h"
#include "support/error.h"

namespace mkvirtfs::cli {

struct TcpAddress {
  std::string host;
  std::uint16_t port = 0;
};
struct VsockAddress {
  std::uint32_t cid = net::kAnyCid;
  std::uint32_t port = 0;
};
using Address = std::variant<TcpAddress, VsockAddress>;

/// Where clients come in; a private socket's directory and what stands between the server and
/// pipes live as long as this.
struct Listening {
  std::optional<PrivateDirectory> directory;
  std::optional<PipeBridge> bridge;
  std::string unix_socket;  // absolute, "" when there is none
};

/// The options that say where serve listens.
class ListenOptions {
 public:
  void add_to(OptionSet& options, const char* group);

  /// Of TCP and vsock, after parsing; Errc::usage for what is malformed.
  Result<std::vector<Address>> addresses() const;
  /// "-": a private one; "": none was named.
  const std::string& unix_path() const noexcept { return unix_path_; }
  /// Listens at the sockets of a service manager, at the Unix socket (a private one when nothing
  /// else is named) and at `addresses`.
  Result<void> listen(nbd::Server& server, const std::vector<Address>& addresses,
                      Listening& listening) const;

 private:
  std::string unix_path_;
  std::string port_;
  bool vsock_ = false;
  std::vector<std::string> texts_;
};

/// inetd's way, and that of clients which start their server: one client, on standard input. If
/// that is a pipe, its answers go to the pipe that is standard output, over `bridge`.
Result<void> adopt_standard_input(nbd::Server& server, std::optional<PipeBridge>& bridge);

}  // namespace mkvirtfs::cli
