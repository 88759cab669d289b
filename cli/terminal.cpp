// SPDX-License-Identifier: BSD-3-Clause
#include "cli/terminal.h"

#include <unistd.h>

namespace mkvirtfs::cli {

RawTerminal::RawTerminal(int fd) noexcept : fd_(fd) {
  termios settings{};
  if (::isatty(fd) != 1 || ::tcgetattr(fd, &settings) != 0) return;
  before_ = settings;
  ::cfmakeraw(&settings);
  // Our own lines on the same terminal are to begin at its left.
  settings.c_oflag |= OPOST | ONLCR;
  ::tcsetattr(fd, TCSADRAIN, &settings);
}

RawTerminal::~RawTerminal() {
  if (before_) ::tcsetattr(fd_, TCSADRAIN, &*before_);
}

}  // namespace mkvirtfs::cli
