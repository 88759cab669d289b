// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "support/error.h"
#include "support/mutex.h"

namespace mkvirtfs::bootsect {

/// Pieces that a program of a package makes, kept so that it need not make them twice: in memory,
/// and in a directory from one run to the next. A kept piece has a name made of all that it was
/// made of: the parameters, and name, size and mtime of each file that the program reads, its own
/// among them. So a new version of the package makes a new piece. Files are written under another
/// name and renamed, and believed only when their digest holds. The directory is not used when it
/// belongs to another user or other users may write to it; without it everything just takes longer.
///
/// Any thread.
class MadePieces {
 public:
  /// Nothing of `directory` is touched before something is made; "": nowhere but in memory.
  explicit MadePieces(std::string directory) : directory_(std::move(directory)) {}

  /// GRUB's core.img for BIOS, with grub_modules() in it, that looks for its configuration at
  /// `prefix`. The program, grub-mkimage, and the modules are those of Debian's packages, or all in
  /// `pieces_directory` unless that is empty.
  ///
  /// Errors: Errc::unreadable with the package that has what is missing; Errc::unsupported when
  /// the program fails, with what it says.
  Result<std::vector<std::byte>> grub_core(std::string_view prefix,
                                           const std::string& pieces_directory) EXCLUDES(mutex_);

 private:
  std::string directory_;
  Mutex mutex_;
  std::map<std::string, std::vector<std::byte>> made_ GUARDED_BY(mutex_);  // by name
};

}  // namespace mkvirtfs::bootsect
