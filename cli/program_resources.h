// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>

#include "compose/remark.h"
#include "compose/resources.h"
#include "fsgen/image/format_registry.h"
#include "support/log.h"

namespace mkvirtfs::cli {

/// What this program's images may use: places from its environment (XDG_CACHE_HOME, HOME, TMPDIR),
/// the reader as it is installed, and remarks in the log with the options that help.
ResourceOptions program_resources(LogSink& log, const FormatRegistry& formats,
                                  const std::atomic<bool>* cancel = nullptr);

/// Has the process open as many files as it may: many make reading fast, and clients need some,
/// too.
void raise_open_file_limit() noexcept;

}  // namespace mkvirtfs::cli
