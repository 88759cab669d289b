// SPDX-License-Identifier: BSD-3-Clause
// Private to this room.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "fsgen/disk/cached_source.h"
#include "fsgen/disk/problems.h"
#include "support/error.h"

namespace mkvirtfs::disk {

/// Blocks of a file that lie one behind the other. Numbers of blocks of the file system.
struct BlockRun {
  std::uint64_t logical = 0;
  std::uint64_t physical = 0;
  std::uint64_t count = 0;
};

/// Which blocks of a file system have their last version in its journal (JBD2): what replaying the
/// journal would copy. Nothing is copied: an entry has 16 bytes.
class JournalMap {
 public:
  struct Copy {
    std::uint64_t block = 0;  ///< of the file system, in the journal
    bool is_escaped = false;  ///< its first four bytes are the journal's magic, and 0 in the copy
  };

  bool empty() const noexcept { return entries_.empty(); }
  std::size_t size() const noexcept { return entries_.size(); }
  std::optional<Copy> find(std::uint64_t block) const noexcept;
  /// A block of the file system that begins with the magic; there is one unless empty().
  std::uint64_t magic_block() const noexcept { return magic_block_; }
  /// The first block from `block` on that has a copy; UINT64_MAX: none.
  std::uint64_t next_from(std::uint64_t block) const noexcept;

  /// Reads the journal, which lies in `runs`: sorted by their logical blocks. A transaction that
  /// is not whole ends the log.
  ///
  /// Errors: Errc::unreadable for a journal that cannot be read; Errc::unsupported for features
  /// that are not known, and where fast commits wait to be replayed.
  static Result<JournalMap> read(CachedSource& disk, std::uint32_t block_bytes,
                                 std::uint64_t block_count, const std::vector<BlockRun>& runs,
                                 Problems& problems);

 private:
  friend class JournalReader;
  struct Entry {
    std::uint64_t block = 0;
    std::uint64_t place = 0;  // twice the copy's block, and 1 when it is escaped
  };
  std::vector<Entry> entries_;  // sorted by block
  std::uint64_t magic_block_ = 0;
};

/// The first four bytes of all of a journal's own blocks, big-endian.
inline constexpr std::uint32_t kJournalMagic = 0xc03b3998;

}  // namespace mkvirtfs::disk
