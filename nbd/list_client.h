// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "nbd/client/dial.h"
#include "nbd/client/export_lister.h"
#include "nbd/client/handshake_client.h"
#include "nbd/client/server_address.h"
#include "nbd/export_tree.h"
#include "net/tls_credentials.h"

// For embedders: what a server offers.

namespace mkvirtfs::nbd {

using net::TlsClientFiles;
using net::TlsCredentials;

}  // namespace mkvirtfs::nbd
