// SPDX-License-Identifier: BSD-3-Clause
#include "cli/reader_path.h"

#include <unistd.h>

#include <filesystem>
#include <system_error>

namespace mkvirtfs::cli {

std::string reader_path() {
  std::error_code failure;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", failure);
  if (failure) return MKVIRTFS_INSTALLED_READER;
  const std::filesystem::path directory = program.parent_path();
  const std::string installed =
      (directory / MKVIRTFS_READER_FROM_PROGRAM).lexically_normal().string();
  const std::string beside = (directory / "mkvirtfs-reader").string();
  const bool is_beside =
      ::access(installed.c_str(), X_OK) != 0 && ::access(beside.c_str(), X_OK) == 0;
  return is_beside ? beside : installed;
}

}  // namespace mkvirtfs::cli
