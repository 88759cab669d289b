// SPDX-License-Identifier: BSD-3-Clause
// Private to this room.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fsgen/archive/extracted_paths.h"
#include "fsgen/archive/layer_tree.h"
#include "fsgen/archive/member_log.h"
#include "fsgen/tree/layers_below.h"
#include "fsgen/tree/symlink_way.h"
#include "support/error.h"

namespace mkvirtfs::archive {

/// A directory that a way leads to.
struct WalkEnd {
  PathNo no = kRootPath;  ///< kNoPath: only the layers below have it, or it is nowhere
  std::string path;       ///< without symlinks
};

/// Whether a walk makes the directories that are missing, as implied ones.
enum class MissingDirectories : std::uint8_t { are_made, stay_missing };

/// One walk down from the root through symlinks: the archive's own and those of the layers below,
/// as extraction into what these show would find them. It is for the few ways on which there is
/// one.
class SymlinkWalk {
 public:
  /// `files` are the members of all that is no directory, by ExtractedFileNo.
  SymlinkWalk(ExtractedPaths& paths, std::span<const MemberLog::Position> files,
              const MemberLog& members, const LayerOptions& options, MissingDirectories missing)
      : paths_(paths), files_(files), members_(members), options_(options), missing_(missing) {}

  /// The directory at `way`. Errors are words that follow a name which lies below it.
  Result<WalkEnd> run(std::span<const std::string_view> way);

 private:
  enum class LinkOf : std::uint8_t { this_archive, layers_below };

  Result<void> step(std::string_view name);
  Result<void> up();
  Result<void> follow(std::string_view link, std::string_view target, LinkOf owner);
  Result<void> from_root(std::string_view link, std::vector<std::string_view>& target) const;
  Result<void> enter(std::string_view name, Standing::Kind below);
  PathNo find(std::string_view path) const;
  PathNo own(std::string_view name) const {
    return at_.no == kNoPath ? kNoPath : paths_.find(at_.no, name);
  }
  std::optional<std::string_view> own_target(PathNo no) const;

  ExtractedPaths& paths_;
  const std::span<const MemberLog::Position> files_;
  const MemberLog& members_;
  const LayerOptions& options_;
  const MissingDirectories missing_;
  SymlinkWay way_{{}};
  WalkEnd at_;
  std::string must_be_there_;  // the own symlink whose target must be, while it is the way
};

}  // namespace mkvirtfs::archive
