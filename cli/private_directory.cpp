// SPDX-License-Identifier: BSD-3-Clause
#include "cli/private_directory.h"

#include <fmt/format.h>
#include <stdlib.h>

#include <boost/filesystem/operations.hpp>
#include <boost/filesystem/path.hpp>
#include <cerrno>
#include <utility>

namespace mkvirtfs::cli {

namespace fs = boost::filesystem;

Result<PrivateDirectory> PrivateDirectory::create() {
  boost::system::error_code unusable;
  fs::path parent = fs::temp_directory_path(unusable);
  // A socket's path may have 107 bytes: under a long $TMPDIR there is no room for it.
  constexpr std::size_t kLongestParent = 80;
  if (unusable || parent.size() > kLongestParent) parent = "/tmp";
  return create_in(parent.string());
}

Result<PrivateDirectory> PrivateDirectory::create_in(const std::string& parent) {
  std::string path = (fs::path(parent) / "mkvirtfs-XXXXXX").string();
  if (::mkdtemp(path.data()) == nullptr) {
    return fail_errno(errno, fmt::format("make a private directory in {}", parent));
  }
  return PrivateDirectory(std::move(path));
}

PrivateDirectory::PrivateDirectory(PrivateDirectory&& other) noexcept
    : path_(std::exchange(other.path_, {})) {}

PrivateDirectory::~PrivateDirectory() {
  if (path_.empty()) return;
  boost::system::error_code ignored;
  fs::remove_all(path_, ignored);
}

std::string PrivateDirectory::path_of(const std::string& name) const {
  return (fs::path(path_) / name).string();
}

}  // namespace mkvirtfs::cli
