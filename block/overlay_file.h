// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "block/block_states.h"
#include "block/device.h"
#include "block/file_operations.h"
#include "block/overlay_store.h"
#include "support/error.h"
#include "support/mutex.h"

namespace mkvirtfs {

/// What an overlay lies over: the same tree and the same options give the same anywhere (law 1).
using ImageId = std::array<std::byte, 32>;

/// SHA-256 of a device's map and of all bytes that no file holds. Takes as long as making these.
Result<ImageId> image_id(BlockDevice& device);

/// An overlay that outlives its process: a file with a header, the states of all blocks, a journal
/// for changes of these, and the bytes at their own offsets. The layout, byte by byte, is in
/// docs/layout-overlay.md.
///
/// Crashes. States are written by flush() alone, and only after the bytes that they vouch for are
/// on the disk; first all of them into the journal, which is valid as a whole or not at all, then
/// to their places. Whenever the process or the host ends, the file opens again, and each block is
/// what it was at the last flush() that succeeded, or what was written to it since.
///
/// Any method, any thread. The file is locked: nobody else opens it meanwhile.
class OverlayFile {
 public:
  static constexpr std::uint32_t kVersion = 1;
  static constexpr std::uint32_t kPageBytes = 4096;
  /// A page of the map holds the states of so many blocks.
  static constexpr std::uint64_t kBlocksPerPage = 31 * BlockStates::kGroupBlocks;

  /// What the header says, and what the file takes.
  struct Facts {
    std::uint32_t version = 0;
    std::uint64_t size_bytes = 0;  ///< of the device
    ImageId base{};
    std::uint64_t written_blocks = 0;
    std::uint64_t zero_blocks = 0;
    std::uint64_t file_bytes = 0;  ///< what it takes on the disk
    bool journal_was_pending = false;
  };

  /// Opens the overlay at `path`, or makes one if nothing is there. Errc::usage when it belongs to
  /// another base, Errc::unsupported when it is of a newer version, Errc::io when it is damaged or
  /// in use.
  static Result<std::unique_ptr<OverlayFile>> open(
      const std::string& path, std::uint64_t size_bytes, const ImageId& base,
      FileOperations& operations = FileOperations::host());
  /// Reads all of an overlay and changes nothing; fails when anything is wrong with it.
  static Result<Facts> check(const std::string& path);

  const std::shared_ptr<OverlayStore>& store() const noexcept { return store_; }
  /// Sets the states that were found when it was opened; once, before anything else.
  void load(BlockStates& states);

  /// The states of these blocks were changed: the next flush() writes them.
  void changed(std::uint64_t first, std::uint64_t count) noexcept;
  /// See the class comment. After a failure the disk can not be trusted any more, and all later
  /// calls fail, too.
  Result<void> flush(const BlockStates& states);

 private:
  using Page = std::array<std::byte, kPageBytes>;
  struct Layout;
  struct Opened;

  OverlayFile(UniqueFd file, std::uint64_t size_bytes, std::string path,
              FileOperations& operations);

  Result<void> format(const ImageId& base);
  static Result<Opened> read_all(const UniqueFd& file, const std::string& path);
  Result<void> write_fully(std::span<const std::byte> bytes, std::uint64_t offset);
  Result<void> sync();
  Result<void> commit(const std::map<std::uint64_t, Page>& pages) REQUIRES(flushing_);
  Page make_page(const BlockStates& states, std::uint64_t number) const;

  const std::uint64_t size_bytes_;
  const std::string path_;
  FileOperations& operations_;
  std::shared_ptr<OverlayStore> store_;
  std::map<std::uint64_t, Page> loaded_;    // between open() and load()
  std::vector<std::atomic<bool>> changed_;  // by page of the map

  Mutex flushing_;
  std::uint64_t sequence_ GUARDED_BY(flushing_) = 0;
  bool failed_ GUARDED_BY(flushing_) = false;
};

}  // namespace mkvirtfs
