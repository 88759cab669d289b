// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "net/tls_credentials.h"
#include "support/error.h"

namespace mkvirtfs::nbd {

/// Where a server is, and a name there ("NBD URI specification", doc/uri.md).
struct ServerAddress {
  std::string unix_socket;  ///< "": TCP
  std::string host;
  std::uint16_t port = 10809;
  std::string name;  ///< decoded: an export or a directory of exports
  /// Nothing: without TLS.
  std::optional<net::TlsClientFiles> tls;

  friend bool operator==(const ServerAddress&, const ServerAddress&) = default;
};

/// nbd://HOST[:PORT][/NAME] or nbd+unix:///[NAME]?socket=PATH. With TLS nbds:// and nbds+unix://,
/// USER@ before the host, and libnbd's parameters: tls-certificates=DIR, tls-psk-file=FILE,
/// tls-username=USER, tls-hostname=NAME and tls-verify-peer=0|1; the certificate must be the
/// host's, and over a Unix socket that of tls-hostname, if there is one. Errc::usage.
Result<ServerAddress> parse_uri(std::string_view uri);

}  // namespace mkvirtfs::nbd
