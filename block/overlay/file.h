// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "block/device.h"
#include "block/file_operations.h"
#include "block/overlay/block_states.h"
#include "block/overlay/header.h"
#include "block/overlay/layout.h"
#include "block/overlay/store.h"
#include "support/error.h"
#include "support/mutex.h"

namespace mkvirtfs {

/// An overlay that outlives its process: a file with a header, the states of all blocks, a journal
/// for changes of these, and the bytes at their own offsets. The layout, byte by byte, is in
/// docs/layout-overlay.md.
///
/// Crashes. States are written by flush() alone, and only after the bytes that they vouch for are
/// on the disk; first all of them into the journal, which is valid as a whole or not at all, then
/// to their places. Whenever the process or the host ends, the file opens again, and each block is
/// what it was at the last flush() that succeeded, or what was written to it since.
///
/// Layers. A snapshot (OverlaySnapshot) freezes the file, which then lies below others as
/// FILE.~1~, FILE.~2~ and so on, and never changes again. Each overlay has names of its own for all
/// layers below it, so that none needs to know of another.
///
/// Any method, any thread. The file is locked: no other process opens it meanwhile, and what lies
/// frozen below it is only read.
class OverlayFile {
 public:
  /// What the header says, and what the file takes.
  struct Facts {
    std::string path;
    OverlayHeader header;
    std::uint64_t written_blocks = 0;
    std::uint64_t zero_blocks = 0;
    std::uint64_t file_bytes = 0;  ///< what it takes on the disk
    bool journal_was_pending = false;
    bool snapshot_was_pending = false;  ///< that of the top, when its name still says otherwise
    std::vector<Facts> below;           ///< of the top only: the layers below it, the highest first
  };

  /// Asked while the file is locked: before the header of a new overlay is written, with nullptr;
  /// of one that is there, with its header, before anything of it is changed. An error refuses it.
  using BaseCheck = std::function<Result<void>(const OverlayHeader* found)>;

  /// Opens the overlay at `path` with the layers below it, or makes one if nothing is there; what a
  /// snapshot left there that was cut off is finished or undone. Errc::usage when it belongs to
  /// another base or is frozen, Errc::unsupported when it is of a newer version, Errc::io when it
  /// or a layer below is damaged, in use, or another than it was; and what `check_base` says.
  static Result<std::unique_ptr<OverlayFile>> open(
      const std::string& path, std::uint64_t size_bytes, const ImageId& base,
      FileOperations& operations = FileOperations::host(), const BaseCheck& check_base = {});
  /// Opens an overlay that is there, whatever it lies over, with the layers below it; nothing is
  /// written, and nothing that was cut off is finished. Other readers may have it open, too.
  static Result<std::unique_ptr<OverlayFile>> open_read_only(const std::string& path);
  /// Reads all of an overlay and of the layers below it, and changes nothing; fails when anything
  /// is wrong with them.
  static Result<Facts> check(const std::string& path);
  /// Removes an overlay, its base manifest and its names of the layers below it; others keep
  /// theirs. Not there is fine.
  static Result<void> remove(const std::string& path,
                             FileOperations& operations = FileOperations::host());

  const std::shared_ptr<OverlayStore>& store() const noexcept { return store_; }
  const OverlayHeader& header() const noexcept { return header_; }
  const std::string& path() const noexcept { return path_; }
  /// The layers that were found below it, the lowest first; once.
  std::vector<std::unique_ptr<OverlayFile>> take_below() { return std::exchange(below_, {}); }
  /// Sets the states that were found when it was opened; once, before anything else.
  void load(BlockStates& states);

  /// The states of these blocks were changed: the next flush() writes them.
  void changed(OverlayBlocks blocks) noexcept;
  /// See the class comment. After a failure the disk cannot be trusted any more, and all later
  /// calls fail, too. Calls that wait for another's flush to end share the next one.
  Result<void> flush(const BlockStates& states);

 private:
  friend class OverlaySnapshot;
  using Page = OverlayPage;

  OverlayFile(UniqueFd file, OverlayHeader header, std::string path, FileOperations& operations);

  /// Makes an empty overlay of a file that is empty and locked; its name may not be on the disk
  /// yet.
  static Result<std::unique_ptr<OverlayFile>> format(UniqueFd file, OverlayHeader header,
                                                     std::string path, FileOperations& operations);
  Result<void> open_below();
  Result<void> flush_locked(const BlockStates& states) REQUIRES(flushing_);
  /// Flushes, and puts an id into the header. A failure leaves it as it was, unless is_doubtful().
  Result<void> freeze(const BlockStates& states, const LayerId& id);
  /// Whether what is on the disk is unknown: see flush().
  bool is_doubtful() const;
  Result<void> write_fully(std::span<const std::byte> bytes, std::uint64_t offset);
  Result<void> sync();
  Result<void> commit(const std::map<MapPageNo, Page>& pages) REQUIRES(flushing_);
  Result<void> write_journal(Page& header) REQUIRES(flushing_);

  const OverlayHeader header_;  // as it was when it was opened
  const std::string path_;
  FileOperations& operations_;
  std::shared_ptr<OverlayStore> store_;
  std::vector<std::unique_ptr<OverlayFile>> below_;  // between open() and take_below()
  std::map<MapPageNo, Page> loaded_;                 // between open() and load()
  std::vector<std::atomic<bool>> changed_;           // by page of the map

  std::atomic<std::uint64_t> flushes_asked_ = 0;
  mutable Mutex flushing_;
  /// How many of those asked for the last flush has answered: all that had come when it began.
  std::uint64_t flushes_covered_ GUARDED_BY(flushing_) = 0;
  Result<void> last_flush_ GUARDED_BY(flushing_);
  std::uint64_t sequence_ GUARDED_BY(flushing_) = 0;
  bool failed_ GUARDED_BY(flushing_) = false;
  bool frozen_ GUARDED_BY(flushing_) = false;
};

}  // namespace mkvirtfs
