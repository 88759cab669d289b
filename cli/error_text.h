// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>

#include "support/error.h"

namespace mkvirtfs::cli {

/// A setting as the command line has it: {"fs", "ext4"} is "--fs=ext4", {"exclude"} is "--exclude".
/// Words without an option stay as they are.
std::string option_text(const Setting& setting);

/// What went wrong in one line, with the option at fault before it and what would help behind it:
/// "--label=a?b: FAT labels are ASCII", "disk.img is too large (try --fs=ext4 or --exclude)". Raw
/// bytes, as in Error::what.
std::string error_text(const Error& error);

/// `error` with all of error_text() in `what`, for what prints only that: a log, a client of NBD.
Error worded(Error error);

}  // namespace mkvirtfs::cli
