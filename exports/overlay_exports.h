// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <condition_variable>
#include <cstddef>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "block/overlay/overlay.h"
#include "exports/export_tree.h"
#include "support/error.h"
#include "support/mutex.h"

namespace mkvirtfs {

/// Makes the exports of another tree writable: each gets an overlay of its own, when the first
/// client comes. Names that the other tree does not have can be clones: a clone is the default
/// export of the other tree under an overlay that belongs to this name, so that twenty jobs write
/// to twenty disks over one plan.
///
/// An overlay belongs to its name, not to a connection: a client that comes back, or connects
/// twice, sees one disk. It lives as long as the tree, or until discard(); what make_overlay keeps
/// on a disk is there for the next tree, too. Clones that exist are listed like all exports.
///
/// No lock is held while the other tree or one of the options is called. Only calls about an export
/// whose overlay is being made or removed wait for that.
class OverlayExports final : public ExportTree {
 public:
  struct Options {
    /// Makes the overlay of an export over its device. Called on any thread, several at once.
    std::function<Result<std::shared_ptr<Overlay>>(const std::string& name,
                                                   std::shared_ptr<BlockDevice> below)>
        make_overlay;
    /// Freezes what an overlay holds, and makes that of a new export `child` over it; no snapshots
    /// are taken when empty. `origin` is the export of the other tree over whose image they lie.
    std::function<Result<Overlay::Branch>(Overlay& overlay, const std::string& child,
                                          const std::string& origin)>
        branch;
    /// The exports that have an overlay on a disk already, from a tree before this one.
    std::vector<std::string> kept_names;
    /// Those of them that began as snapshots.
    struct KeptBranch {
      std::string name;
      std::string origin;
    };
    std::vector<KeptBranch> kept_branches;
    /// Removes what make_overlay keeps of an export on a disk, whether it is open or not; null
    /// when it keeps nothing there.
    std::function<Result<void>(const std::string& name)> forget;
    /// Whether a client may have a clone of that name; none at all when empty.
    std::function<bool(std::string_view name)> is_clone;
    /// The exports of the other tree stay as they are.
    bool only_clones = false;
    /// See Export::write_through; of the exports that have overlays.
    bool write_through = false;
    /// When there are so many, a new clone is refused.
    std::size_t most_clones = std::numeric_limits<std::size_t>::max();
  };

  OverlayExports(std::shared_ptr<ExportTree> below, Options options);

  Result<std::vector<ExportEntry>> list(std::string_view directory,
                                        std::optional<std::string_view> after,
                                        std::size_t most) override;
  /// Clones that may be made are found, but not listed before that.
  Result<ExportEntry> find(std::string_view name) override;
  Result<Export> open(std::string_view name) override;
  std::optional<Result<Export>> open_at_once(std::string_view name) override;

  /// The overlays there are, by the names of their exports.
  struct Named {
    std::string name;
    std::shared_ptr<Overlay> overlay;
  };
  std::vector<Named> overlays() const;

  /// That of one export; it is opened when it is only on a disk yet. Errc::usage when there is
  /// none.
  Result<std::shared_ptr<Overlay>> overlay(const std::string& name);

  /// There is, or can be, such a writable export, and it was neither written nor opened.
  bool is_unwritten(const std::string& name);

  /// The exports that discard() takes: those of overlays(), and those of which something is on a
  /// disk.
  std::vector<std::string> written_names() const;

  /// A new export `child` that begins with what `name` holds now; both go on apart. Errc::usage for
  /// names that are not there or taken; else what Options::branch says.
  Result<void> snapshot(const std::string& name, const std::string& child);

  /// Flushes all of them; the first failure.
  Result<void> flush() const;

  /// Forgets what was written to an export, on the disk, too; its next client begins anew.
  /// Errc::usage when there is no such overlay, or when a client has it open.
  Result<void> discard(const std::string& name);

 private:
  class Reservation;
  bool may_clone(std::string_view name) const;
  std::optional<std::string> origin_of_branch(std::string_view name) const;
  std::optional<Export> find_kept(std::string_view name) const;
  Result<Export> over(Export below, bool is_clone, std::string origin);
  std::optional<ExportEntry> find_clone(std::string_view name) const;
  std::vector<ExportEntry> list_clones(std::string_view directory,
                                       std::optional<std::string_view> after,
                                       std::size_t most) const;

  const std::shared_ptr<ExportTree> below_;
  const Options options_;
  mutable Mutex mutex_;
  /// The exports whose overlay is being made or removed, without the lock.
  std::set<std::string, std::less<>> reserved_ GUARDED_BY(mutex_);
  std::condition_variable_any released_;
  std::size_t clones_begun_ GUARDED_BY(mutex_) = 0;  // that are not in clones_ yet
  struct Kept {
    std::string description;
    std::shared_ptr<Overlay> overlay;
    std::string origin;  // in the other tree; "" is its default export
  };
  std::map<std::string, Kept, std::less<>> kept_ GUARDED_BY(mutex_);
  /// The descriptions of all clones there are, open or not: what the other tree does not know.
  using Clones = std::map<std::string, std::string, WalkOrder>;
  ExportEntry clone_entry(Clones::const_iterator at, std::string_view name) const REQUIRES(mutex_);
  Clones clones_ GUARDED_BY(mutex_);
  /// The origins of clones that began as snapshots and are on a disk, open or not.
  std::map<std::string, std::string, std::less<>> branches_ GUARDED_BY(mutex_);
  /// Of exports that have something on a disk and may not be open.
  std::set<std::string, std::less<>> on_disk_ GUARDED_BY(mutex_);
};

}  // namespace mkvirtfs
