// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "nbd/export_tree.h"
#include "nbd/extension.h"
#include "nbd/server/server.h"
#include "net/listener.h"
#include "net/peer.h"
#include "net/tls_credentials.h"

// For embedders: the server, and what its options are made of.

namespace mkvirtfs::nbd {

using net::IpAddress;
using net::kAnyCid;
using net::kDefaultTlsPriority;
using net::Peer;
using net::PeerFilter;
using net::PeerRules;
using net::TlsCredentials;
using net::TlsFiles;

}  // namespace mkvirtfs::nbd
