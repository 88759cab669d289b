// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "cli/streams.h"

namespace mkvirtfs::cli {

/// The program: parses the command line, runs the subcommand, tells a failure in one line. Returns
/// the exit status: 0 done, 1 failed, 2 wrong usage; `serve --run` returns its command's.
///
/// The process must ignore SIGPIPE and SIGXFSZ. Changes no other signal for longer than it runs.
int run(int argc, const char* const* argv, const Streams& streams);

}  // namespace mkvirtfs::cli
