// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>

#include "fsgen/image/format_registry.h"

namespace mkvirtfs::cli {

/// The sections SOURCE OPTIONS and ARCHIVE OPTIONS of the manual page, as man(7) macros: every
/// option of a source.
std::string source_options_manual();

/// The sections IMAGE OPTIONS and DISK OPTIONS of the manual page, as man(7) macros: every format
/// and every option of the registry.
std::string image_options_manual(const FormatRegistry& formats);

}  // namespace mkvirtfs::cli
