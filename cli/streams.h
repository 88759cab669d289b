// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <unistd.h>

#include <optional>
#include <string>
#include <string_view>

namespace mkvirtfs::cli {

/// Where the program's words go: descriptors, not owned, so that tests can catch them and an image
/// can go the same way as text.
struct Streams {
  int out = STDOUT_FILENO;
  int err = STDERR_FILENO;
};

/// Writes all of `text`. False when it cannot: the reader has left, the disk is full.
bool print(int fd, std::string_view text);

/// An environment variable; nullopt when it is not set.
std::optional<std::string> environment(const char* name);

}  // namespace mkvirtfs::cli
