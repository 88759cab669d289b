// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "nbd/export_tree.h"
#include "nbd/extension.h"
#include "nbd/server/connection.h"
#include "net/tls_credentials.h"

// For embedders with a poll loop of their own: one client.

namespace mkvirtfs::nbd {

using net::TlsCredentials;
using net::TlsFiles;

}  // namespace mkvirtfs::nbd
