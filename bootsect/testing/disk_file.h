// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <span>
#include <stdexcept>
#include <string>

#include "fsgen/image/patched_image.h"
#include "support/unique_fd.h"

namespace mkvirtfs::testing {

/// Makes a sparse file of `size_bytes` that has the patches, and no other bytes.
inline void write_patches(const std::filesystem::path& path, std::uint64_t size_bytes,
                          std::span<const Patch> patches) {
  const UniqueFd file(::open(path.c_str(), O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600));
  if (!file || ::ftruncate(file.get(), static_cast<off_t>(size_bytes)) != 0) {
    throw std::runtime_error("create " + path.string());
  }
  for (const Patch& patch : patches) {
    if (::pwrite(file.get(), patch.bytes.data(), patch.bytes.size(),
                 static_cast<off_t>(patch.offset)) != static_cast<ssize_t>(patch.bytes.size())) {
      throw std::runtime_error("write " + path.string());
    }
  }
}

/// Some bytes of a file, which may be huge.
inline std::string bytes_at(const std::filesystem::path& path, std::uint64_t offset,
                            std::size_t count) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string bytes(count, '\0');
  if (!file || ::pread(file.get(), bytes.data(), count, static_cast<off_t>(offset)) !=
                   static_cast<ssize_t>(count)) {
    throw std::runtime_error("read " + path.string());
  }
  return bytes;
}

}  // namespace mkvirtfs::testing
