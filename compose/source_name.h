// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>
#include <string_view>

#include "support/error.h"

namespace mkvirtfs {

/// Refuses what cannot be the path of a source: nothing at all (Errc::usage), and, where no such
/// file is there, what other programs know as the address of one ("docker://alpine", "http://...":
/// Errc::unsupported, with the way that there is). A container image that is not there is
/// Errc::unreadable; whether another path leads to anything is not asked.
Result<void> check_source_path(const std::string& path);

/// Whether it is the URI of an NBD server. "#2" behind it names a partition of what is there.
bool is_address(std::string_view path);

/// A file, a partition of the disk that it is, and a directory of what is there:
/// "x.tar.gz//rootfs", "disk.img:2", "disk.img:root//etc".
struct ArchivePath {
  std::string file{};
  std::string partition{};  ///< its number, name or label; "": the file is no disk, or all of one
  std::string subtree{};    ///< without '/' at either end; "": all of the archive
};

/// Splits at the first "//" behind which no path of the host can go on, because what stands before
/// it is there and is no directory, and at the first ':' before which a regular file is there where
/// the whole is none. Every other path is all file.
ArchivePath split_archive_path(const std::string& path);

}  // namespace mkvirtfs
