// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "support/error.h"
#include "support/unique_fd.h"

namespace mkvirtfs::cli {

/// A file that is made for QEMU. One thread.
class BootFile {
 public:
  /// There is nothing at `path` yet.
  static Result<BootFile> create(const std::string& path);
  Result<void> append(std::span<const std::byte> bytes);
  /// Up to a multiple of four bytes: there a kernel looks for the next archive of an initrd.
  Result<void> pad();
  const std::string& path() const noexcept { return path_; }

 private:
  BootFile(UniqueFd file, std::string path) : file_(std::move(file)), path_(std::move(path)) {}

  UniqueFd file_;
  std::string path_;
  std::uint64_t size_bytes_ = 0;
};

}  // namespace mkvirtfs::cli
