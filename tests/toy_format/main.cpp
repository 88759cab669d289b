// SPDX-License-Identifier: BSD-3-Clause
// mkvirtfs with one format more.
#include <csignal>

#include "cli/run.h"
#include "tests/toy_format/toy_formats.h"

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  return mkvirtfs::cli::run(argc, argv, {}, mkvirtfs::toy::formats());
}
