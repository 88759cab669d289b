// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string_view>
#include <vector>

namespace mkvirtfs::cli {

/// Reports our state ("READY=1") to the service manager that started us, as sd_notify(3) describes:
/// a datagram to the socket that NOTIFY_SOCKET names. Does nothing when there is none. What fails
/// is not our failure.
void notify_service_manager(std::string_view state);

/// The sockets that it hands over ("LISTEN_FDS"), as sd_listen_fds(3) describes: they are the
/// caller's from now on. None when they are meant for another process.
std::vector<int> sockets_of_service_manager();

}  // namespace mkvirtfs::cli
