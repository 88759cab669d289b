// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>
#include <string_view>

#include "net/listener.h"
#include "net/tls_credentials.h"

namespace mkvirtfs::nbd {

/// The URI of an export behind that address ("NBD URI specification", doc/uri.md),
/// percent-encoded; "" when URIs have no form for such an address. With `tls`, for clients that use
/// TLS and the same files, by the parameters that libnbd has for them.
std::string uri_of(const net::ListenAddress& address, std::string_view export_name,
                   const net::TlsCredentials* tls);

}  // namespace mkvirtfs::nbd
