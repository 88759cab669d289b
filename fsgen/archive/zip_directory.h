// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <unordered_map>

#include "fsgen/stream/byte_source.h"
#include "support/error.h"

namespace mkvirtfs::archive {

/// Where a zip archive's members lie, from its central directory (APPNOTE.TXT 6.3.10, 4.3.12) and
/// the local headers, which libarchive does not report. Immutable.
class ZipDirectory {
 public:
  struct Item {
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

  /// Where an archive begins whose offsets do not count the bytes before it (a program that unpacks
  /// it). 0 for any other source.
  static std::uint64_t offset_of_archive(ByteSource& source);

  /// Where the archive ends, its comment included; nullopt for any other source.
  static std::optional<std::uint64_t> end_of_archive(ByteSource& source);

  /// The member whose bytes begin there, or nullptr.
  const Item* find(std::uint64_t data_offset) const;

 private:
  std::unordered_map<std::uint64_t, Item> by_data_offset_;
};

}  // namespace mkvirtfs::archive
