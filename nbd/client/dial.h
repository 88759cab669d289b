// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>

#include "nbd/client/server_address.h"
#include "support/error.h"
#include "support/unique_fd.h"

namespace mkvirtfs::nbd {

/// Connects to the server, by its Unix socket or the first of its host's addresses that answers,
/// and waits `patience` at most (but for the name service). The socket does not block. Errc::io.
Result<UniqueFd> connect_to(const ServerAddress& server, std::chrono::milliseconds patience);

}  // namespace mkvirtfs::nbd
