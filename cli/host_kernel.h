// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <optional>
#include <string>

#include "support/error.h"
#include "support/log.h"

namespace mkvirtfs::cli {

/// The newest kernel of this host that this user may read; newer ones that they may not are named
/// in the log. Errors: Errc::unsupported when there is none.
Result<std::string> find_host_kernel(LogSink& log);

/// The directory with the modules of the kernel `version`, which is the file `kernel` of this host:
/// beside it, below the root that its directory "boot" stands in, or in /lib/modules. nullopt:
/// none.
std::optional<std::string> find_host_modules(const std::string& kernel, const std::string& version);

}  // namespace mkvirtfs::cli
