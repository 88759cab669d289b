// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>

#include "fsgen/stream/byte_source.h"
#include "support/error.h"

namespace mkvirtfs::archive {

/// Where a zip archive's members lie, from its central directory (APPNOTE.TXT 6.3.10, 4.3.12) and
/// the local headers: what libarchive does not tell. Immutable.
class ZipDirectory {
 public:
  struct Member {
    std::uint64_t packed_bytes = 0;
    std::uint64_t size_bytes = 0;
    std::uint32_t crc32 = 0;
    std::uint16_t method = 0;
    bool is_encrypted = false;
  };
  static constexpr std::uint16_t kStored = 0;
  static constexpr std::uint16_t kDeflated = 8;

  /// Errc::unreadable when a length or an offset leads out of the archive, when a local header is
  /// not what the directory says, and when members overlap.
  static Result<std::unique_ptr<const ZipDirectory>> read(ByteSource& archive,
                                                          std::uint64_t most_members);

  /// The member whose bytes begin there, or nullptr.
  const Member* find(std::uint64_t data_offset) const;

 private:
  std::unordered_map<std::uint64_t, Member> by_data_offset_;
};

}  // namespace mkvirtfs::archive
