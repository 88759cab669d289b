// SPDX-License-Identifier: BSD-3-Clause
#include "cli/boot_file.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <array>
#include <cerrno>

#include "support/file_bytes.h"

namespace mkvirtfs::cli {

Result<BootFile> BootFile::create(const std::string& path) {
  UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!file) return fail_errno(errno, fmt::format("make {}", path));
  return BootFile(std::move(file), path);
}

Result<void> BootFile::append(std::span<const std::byte> bytes) {
  if (!write_all(file_.get(), bytes)) return fail_errno(errno, fmt::format("write {}", path_));
  size_bytes_ += bytes.size();
  return {};
}

Result<void> BootFile::pad() {
  constexpr std::array<std::byte, 3> kZeroes{};
  return append(std::span(kZeroes).first((4 - size_bytes_ % 4) % 4));
}

}  // namespace mkvirtfs::cli
