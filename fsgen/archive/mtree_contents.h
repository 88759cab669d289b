// SPDX-License-Identifier: BSD-3-Clause
// Private to this room.
#pragma once

#include <memory>
#include <string>

#include "support/confined_open.h"
#include "support/error.h"
#include "support/unique_fd.h"

namespace mkvirtfs::archive {

/// Where the contents of an mtree manifest are looked for. Immutable: any thread.
class ContentsDirectory {
 public:
  static Result<ContentsDirectory> open(const std::string& path);

  /// A regular file, through no symlink and no way out.
  Result<UniqueFd> open_file(const std::string& path) const;

 private:
  explicit ContentsDirectory(int root) : root_(root) {}

  UniqueFd root_;
  ConfinedOpener opener_{/*cross_mounts=*/true};
};

}  // namespace mkvirtfs::archive
