// SPDX-License-Identifier: BSD-3-Clause
#include "cli/streams.h"

#include <poll.h>

#include <cerrno>
#include <cstdlib>

namespace mkvirtfs::cli {

bool print(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = ::write(fd, text.data(), text.size());
    if (count >= 0) {
      text.remove_prefix(static_cast<std::size_t>(count));
    } else if (errno == EAGAIN) {
      pollfd ready{fd, POLLOUT, 0};
      ::poll(&ready, 1, -1);
    } else if (errno != EINTR) {
      return false;
    }
  }
  return true;
}

std::optional<std::string> environment(const char* name) {
  // Nothing in this program changes its environment, so reading it is safe on any thread.
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe)
  if (value == nullptr) return std::nullopt;
  return value;
}

}  // namespace mkvirtfs::cli
