// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "guest-init/guest_settings.h"

namespace mkvirtfs::guest {

/// Runs the command until it ends: reaps whatever has no parent any more, and hands on signals that
/// come from the host through `port` ("signal 15\n"), or -1. The status is docker's: 126 for what
/// cannot be run, 127 for what is not there, 128 and the signal of what ended it.
int run_command(const Settings& settings, int port);

}  // namespace mkvirtfs::guest
