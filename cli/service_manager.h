// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string_view>

namespace mkvirtfs::cli {

/// Tells the service manager that started us how we are ("READY=1"), as sd_notify(3) describes: a
/// datagram to the socket that NOTIFY_SOCKET names. Does nothing when there is none. What fails is
/// not our failure.
void notify_service_manager(std::string_view state);

}  // namespace mkvirtfs::cli
