// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "cli/streams.h"
#include "compose/formats.h"

namespace mkvirtfs::cli {

/// The program: parses the command line, runs the subcommand, reports a failure in one line.
/// Returns the exit status: 0 done, 1 failed, 2 wrong usage; `serve --run` returns its command's.
///
/// `formats` are what --fs offers, with their options; they must outlive the call.
///
/// The process must ignore SIGPIPE and SIGXFSZ. Changes no other signal for longer than it runs.
int run(int argc, const char* const* argv, const Streams& streams,
        const FormatRegistry& formats = all_formats());

}  // namespace mkvirtfs::cli
