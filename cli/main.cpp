// SPDX-License-Identifier: BSD-3-Clause
#include <csignal>

#include "cli/run.h"

int main(int argc, char** argv) {
  // A reader that leaves and a file that grows too long are errors to tell, not reasons to die.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  return mkvirtfs::cli::run(argc, argv, {});
}
