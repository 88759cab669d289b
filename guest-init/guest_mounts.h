// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>

#include "guest-init/guest_settings.h"

namespace mkvirtfs::guest {

/// proc, sys and dev, below the root of the initrd.
void mount_kernel_trees();
/// Loads the modules. One that does not load is no fault by itself: what needs it says so.
void load_modules(const Settings& settings);
/// Makes the disk the root of this process, with the kernel's trees in it. "": done; else what went
/// wrong.
std::string enter_root(const Settings& settings);
/// What a command expects of a system: terminals, shared memory, a /run.
void mount_for_command();
/// The host's directory, where there is one. "": done; else what went wrong.
std::string mount_share(const Settings& settings);
/// Brings everything to the disk, and ends the machine.
[[noreturn]] void power_off();

}  // namespace mkvirtfs::guest
