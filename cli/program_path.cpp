// SPDX-License-Identifier: BSD-3-Clause
#include "cli/program_path.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "cli/streams.h"

namespace mkvirtfs::cli {

std::optional<std::string> find_program(std::string_view name) {
  const std::string path = environment("PATH").value_or("");
  for (std::size_t at = 0; at <= path.size();) {
    const std::size_t end = std::min(path.find(':', at), path.size());
    const std::string directory = path.substr(at, end - at);
    at = end + 1;
    std::string program = fmt::format("{}/{}", directory.empty() ? "." : directory, name);
    struct stat status{};
    if (::stat(program.c_str(), &status) == 0 && S_ISREG(status.st_mode) &&
        ::access(program.c_str(), X_OK) == 0) {
      return program;
    }
  }
  return std::nullopt;
}

}  // namespace mkvirtfs::cli
