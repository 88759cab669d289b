// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>

#include "support/error.h"

namespace mkvirtfs {

/// Refuses what cannot be the path of a source: nothing at all (Errc::usage), and, where no such
/// file is there, what other programs know as the address of one ("docker://alpine", "http://...":
/// Errc::unsupported, with the way that there is). A container image that is not there is
/// Errc::unreadable; whether another path leads to anything is not asked.
Result<void> check_source_path(const std::string& path);

}  // namespace mkvirtfs
