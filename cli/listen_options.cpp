// SPDX-License-Identifier: BSD-3-Clause
#include "cli/listen_options.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/filesystem/operations.hpp>
#include <string_view>
#include <utility>

#include "cli/service_manager.h"
#include "support/parse_number.h"
#include "support/unique_fd.h"

namespace mkvirtfs::cli {
namespace {

constexpr std::uint16_t kNbdPort = 10809;

/// "10809" or "3:10809", behind "vsock:".
std::optional<VsockAddress> parse_vsock(std::string_view text) {
  const std::size_t colon = text.find(':');
  const auto port =
      parse_number<std::uint32_t>(colon == std::string_view::npos ? text : text.substr(colon + 1));
  const auto cid = colon == std::string_view::npos
                       ? std::optional<std::uint32_t>(net::kAnyCid)
                       : parse_number<std::uint32_t>(text.substr(0, colon));
  if (!port || !cid) return std::nullopt;
  return VsockAddress{*cid, *port};
}

/// "127.0.0.1:10809", "[::1]:10809", "name:10809", "vsock:10809".
Result<Address> parse_address(const std::string& text) {
  constexpr std::string_view kVsock = "vsock:";
  if (text.starts_with(kVsock)) {
    const auto address = parse_vsock(std::string_view(text).substr(kVsock.size()));
    if (address) return *address;
    return fail(Errc::usage,
                fmt::format("--listen={} is neither vsock:PORT nor vsock:CID:PORT", text));
  }
  const std::size_t colon = text.rfind(':');
  if (colon != std::string::npos) {
    std::string host = text.substr(0, colon);
    const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
    if (bracketed) host = host.substr(1, host.size() - 2);
    const auto port = parse_number<std::uint16_t>(std::string_view(text).substr(colon + 1));
    // An IPv6 address has colons of its own: without brackets its end would be a guess.
    if (port && !host.empty() && (bracketed || host.find(':') == std::string::npos)) {
      return TcpAddress{std::move(host), *port};
    }
  }
  return fail(Errc::usage,
              fmt::format("--listen={} is not ADDRESS:PORT (127.0.0.1:10809, [::1]:10809; "
                          "0.0.0.0:10809 for every interface)",
                          text));
}

bool is_pipe(int fd) {
  struct stat status;
  return ::fstat(fd, &status) == 0 && S_ISFIFO(status.st_mode);
}

}  // namespace

void ListenOptions::add_to(OptionSet& options, const char* group) {
  options
      .add_value(
          "-U,--unix", unix_path_, "PATH|-",
          "Listen on a Unix socket; '-' makes a private one\n(the default without -p, --listen)")
      .group(group);
  options.add_value("-p,--port", port_, "PORT", "Listen on this port of localhost; 0: any free")
      .group(group);
  options.add_flag("--vsock", vsock_, "-p names a vsock port (10809)").group(group);
  options
      .add_values("--listen", texts_, "ADDR:PORT",
                  "Listen there too, or at vsock:[CID:]PORT\n(repeatable)")
      .one_value_each()
      .group(group);
}

Result<std::vector<Address>> ListenOptions::addresses() const {
  std::vector<Address> addresses;
  if (vsock_) {
    const auto port = port_.empty() ? kNbdPort : parse_number<std::uint32_t>(port_);
    if (!port) return fail(Errc::usage, fmt::format("--port={} is not a port of vsock", port_));
    addresses.push_back(VsockAddress{net::kAnyCid, *port});
  } else if (!port_.empty()) {
    const auto port = parse_number<std::uint16_t>(port_);
    if (!port) return fail(Errc::usage, fmt::format("--port={} is not a port (0 to 65535)", port_));
    addresses.push_back(TcpAddress{"localhost", *port});
  }
  for (const std::string& text : texts_) {
    Result<Address> address = parse_address(text);
    if (!address) return propagate(address);
    addresses.push_back(std::move(*address));
  }
  return addresses;
}

Result<void> ListenOptions::listen(nbd::Server& server, const std::vector<Address>& addresses,
                                   Listening& listening) const {
  const std::vector<int> inherited = sockets_of_service_manager();
  for (const int socket : inherited) {
    if (Result<void> on = server.listen_on(UniqueFd(socket)); !on) return on;
  }
  if (unix_path_ == "-" || (unix_path_.empty() && addresses.empty() && inherited.empty())) {
    Result<PrivateDirectory> directory = PrivateDirectory::create();
    if (!directory) return propagate(directory);
    listening.unix_socket = directory->path_of("socket");
    listening.directory.emplace(std::move(*directory));
  } else if (!unix_path_.empty()) {
    listening.unix_socket = boost::filesystem::absolute(unix_path_).string();
  }
  if (!listening.unix_socket.empty()) {
    // A relative path may be short enough for a socket where the absolute one is not.
    const std::string& path = listening.directory ? listening.unix_socket : unix_path_;
    if (Result<void> on = server.listen_unix(path); !on) return on;
  }
  for (const Address& address : addresses) {
    const auto* const tcp = std::get_if<TcpAddress>(&address);
    const auto* const vsock = std::get_if<VsockAddress>(&address);
    if (Result<void> on = tcp != nullptr ? server.listen_tcp(tcp->host, tcp->port)
                                         : server.listen_vsock(vsock->cid, vsock->port);
        !on) {
      return on;
    }
  }
  return {};
}

Result<void> adopt_standard_input(nbd::Server& server, std::optional<PipeBridge>& bridge) {
  UniqueFd client(::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3));
  int type = 0;
  socklen_t type_bytes = sizeof type;
  if (client && ::getsockopt(client.get(), SOL_SOCKET, SO_TYPE, &type, &type_bytes) == 0 &&
      type == SOCK_STREAM) {
    return server.adopt(std::move(client));
  }
  UniqueFd output(::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3));
  if (!client || !output || !is_pipe(client.get()) || !is_pipe(output.get())) {
    return fail(Errc::usage,
                "--single: standard input is not a stream socket, nor are it and standard output "
                "pipes");
  }
  Result<PipeBridge> started = PipeBridge::start(std::move(client), std::move(output));
  if (!started) return propagate(started);
  bridge.emplace(std::move(*started));
  return server.adopt(bridge->take_socket());
}

}  // namespace mkvirtfs::cli
