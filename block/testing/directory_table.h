// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <fcntl.h>
#include <sys/stat.h>

#include <atomic>
#include <cerrno>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "block/host_files.h"

namespace mkvirtfs::testing {

/// The files of one directory, "scanned" when they are added. Tests only.
class DirectoryTable final : public HostFileTable {
 public:
  explicit DirectoryTable(const std::filesystem::path& root)
      : root_(::open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)) {}

  ContentNo add(std::string name) {
    struct stat status;
    if (::fstatat(root_.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
      throw std::runtime_error("stat " + name);
    }
    files_.emplace_back(std::move(name), identity_of(status));
    return static_cast<ContentNo>(files_.size() - 1);
  }

  FileIdentity identity(ContentNo file) const override { return at(file).second; }
  std::string path(ContentNo file) const override { return at(file).first; }
  Result<UniqueFd> open(ContentNo file) const override {
    ++opened;
    UniqueFd fd(
        ::openat(root_.get(), path(file).c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    if (!fd) return fail_errno(errno, "open " + path(file));
    return fd;
  }

  mutable std::atomic<int> opened = 0;

 private:
  const std::pair<std::string, FileIdentity>& at(ContentNo file) const {
    return files_.at(static_cast<std::size_t>(file));
  }

  UniqueFd root_;
  std::vector<std::pair<std::string, FileIdentity>> files_;
};

}  // namespace mkvirtfs::testing
