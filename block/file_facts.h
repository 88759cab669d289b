// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <compare>
#include <cstdint>

struct stat;

namespace mkvirtfs {

/// A file's time as the host keeps it: seconds since 1970, and nanoseconds of the second.
struct FileTime {
  std::int64_t seconds = 0;
  std::uint32_t nanoseconds = 0;

  friend auto operator<=>(const FileTime&, const FileTime&) = default;
};

/// What a host file was at one moment, field by field: what FileIdentity mixes, and can no longer
/// name.
struct FileFacts {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::uint64_t size_bytes = 0;
  FileTime mtime;
  FileTime ctime;

  friend bool operator==(const FileFacts&, const FileFacts&) = default;
};

FileFacts facts_of(const struct stat& status) noexcept;

/// Whether it is the same file with the same bytes, as far as the host can say. The number of a
/// device is given anew with each mount, and is not looked at.
bool is_same_version(const FileFacts& then, const FileFacts& now) noexcept;

}  // namespace mkvirtfs
