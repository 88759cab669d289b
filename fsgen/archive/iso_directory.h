// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <vector>

#include "fsgen/stream/byte_source.h"
#include "support/error.h"

namespace mkvirtfs::archive {

/// Whether a source has the volume descriptors of ISO 9660 at their place.
Result<bool> is_iso9660(ByteSource& source);

/// How the files of an ISO 9660 image lie in it, from the directory records of all its hierarchies
/// (ECMA-119, 9.1) and their Rock Ridge fields (SUSP, RRIP): which libarchive does not report.
/// Immutable.
class IsoDirectory {
 public:
  enum class Storage : std::uint8_t {
    plain,        ///< one extent, byte for byte
    in_sections,  ///< several extents, or parts of them
    zisofs,       ///< compressed, and libarchive unpacks it
    unknown,      ///< in a way that cannot be read here: zisofs 2, sparse, interleaved
  };

  /// Reads all directories once.
  ///
  /// Errc::unreadable when descriptors, directories or continuation areas lead out of the image,
  /// when continuation areas form a loop, and when directories overlap; Errc::does_not_fit beyond
  /// `most_members` records.
  static Result<IsoDirectory> read(ByteSource& image, std::uint64_t most_members);

  /// How the bytes lie that begin at `data_offset` and are `size_bytes` long. Bytes
  /// without a record are not plain: they count as in_sections.
  Storage storage(std::uint64_t data_offset, std::uint64_t size_bytes) const;

 private:
  struct Record {
    std::uint64_t data_offset = 0;
    std::uint32_t size_bytes = 0;  // of zisofs: unpacked
    Storage storage = Storage::plain;

    friend auto operator<=>(const Record&, const Record&) = default;
  };
  friend class IsoDirectoryReader;

  std::vector<Record> records_;  // sorted
};

}  // namespace mkvirtfs::archive
