// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <expected>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "block/host_files.h"
#include "fsgen/tree/source_tree.h"
#include "support/confined_open.h"
#include "support/mutex.h"
#include "support/unique_fd.h"

namespace mkvirtfs {

/// The way from a scanned tree back to its files. Paths are walked from the root's descriptor, so
/// the root may be renamed meanwhile; a few directories are kept open, so that a deep path costs
/// one step. Costs 24 bytes a node besides the tree.
class ScannedFiles final : public HostFileTable {
 public:
  /// What FileIdentity has beyond the size, which is the node's.
  struct Mark {
    std::uint64_t inode = 0;
    std::int64_t mtime_ns = 0;
    std::int64_t ctime_ns = 0;
  };

  /// FileFacts without the size, when they are kept.
  struct Facts {
    std::uint64_t device = 0;
    std::uint64_t inode = 0;
    FileTime mtime;
    FileTime ctime;
  };

  /// `marks` has one element a node, and so has `facts`, unless it has none; `root` is any
  /// descriptor of the scanned directory.
  ScannedFiles(std::shared_ptr<const SourceTree> tree, std::vector<Mark> marks,
               std::vector<Facts> facts, UniqueFd root, const ConfinedOpener& opener);

  FileIdentity identity(ContentNo file) const override;
  Result<UniqueFd> open(ContentNo file) const override;
  std::string path(ContentNo file) const override;
  std::optional<FileFacts> facts(ContentNo file) const override;

 private:
  using Handle = std::shared_ptr<const UniqueFd>;
  struct Kept {
    DirectoryNo directory;  // the root is never kept: an unused place
    std::uint64_t last_use = 0;
    Handle handle;
  };

  enum class WayFrom : std::uint8_t { nearest_kept, root };
  /// The directory's descriptor.
  std::expected<Handle, int> open_directory(DirectoryNo directory, WayFrom from) const;
  Handle find(DirectoryNo directory) const EXCLUDES(mutex_);
  void keep(DirectoryNo directory, Handle handle) const EXCLUDES(mutex_);

  const std::shared_ptr<const SourceTree> tree_;
  const std::vector<Mark> marks_;
  const std::vector<Facts> facts_;
  const Handle root_;
  const ConfinedOpener opener_;

  mutable Mutex mutex_;
  mutable std::vector<Kept> kept_ GUARDED_BY(mutex_);
  mutable std::uint64_t clock_ GUARDED_BY(mutex_) = 0;
};

}  // namespace mkvirtfs
