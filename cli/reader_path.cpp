// SPDX-License-Identifier: BSD-3-Clause
#include "cli/reader_path.h"

#include <unistd.h>

#include <filesystem>
#include <system_error>

namespace mkvirtfs::cli {

namespace {

constexpr const char* kReader = "mkvirtfs-reader";
constexpr const char* kInit = "mkvirtfs-init";

/// A program that is installed beside the reader.
std::string helper_path(const char* name) {
  const std::string installed_reader = MKVIRTFS_INSTALLED_READER;
  std::error_code failure;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", failure);
  if (failure) {
    return (std::filesystem::path(installed_reader).parent_path() / name).string();
  }
  const std::filesystem::path directory = program.parent_path();
  const std::string installed =
      ((directory / MKVIRTFS_READER_FROM_PROGRAM).lexically_normal().parent_path() / name).string();
  const std::string beside = (directory / name).string();
  const bool is_beside =
      ::access(installed.c_str(), X_OK) != 0 && ::access(beside.c_str(), X_OK) == 0;
  return is_beside ? beside : installed;
}

}  // namespace

std::string reader_path() { return helper_path(kReader); }
std::string init_path() { return helper_path(kInit); }

}  // namespace mkvirtfs::cli
