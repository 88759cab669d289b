// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "nbd/client/list_client.h"
#include "nbd/export_tree.h"
#include "net/tls_credentials.h"

// For embedders: what a server offers.

namespace mkvirtfs::nbd {

using net::TlsClientFiles;
using net::TlsCredentials;

}  // namespace mkvirtfs::nbd
