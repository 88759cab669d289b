// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "block/extent.h"
#include "fsgen/stream/byte_source.h"
#include "support/error.h"

// The partitions of a disk, as its MBR or GPT says. Bounded, whatever the bytes are: no table has
// more than 4096 entries, or takes more than 1 MiB to read.

namespace mkvirtfs::disk {

struct Partition {
  unsigned number = 0;  ///< as Linux counts: from 1, and the logical ones of an MBR from 5
  Range range{};        ///< bytes of the disk
  std::string name{};   ///< of a GPT, in UTF-8
  /// Why `range` is not to be read: it leaves the disk, or another partition is there; "": nothing.
  std::string problem{};
};

struct PartitionTable {
  std::string_view kind;                ///< "MBR" or "GPT"
  std::uint32_t sector_bytes = 512;     ///< of an MBR alone it is not known, and 512
  std::vector<Partition> partitions{};  ///< by number
  /// What is wrong with the table where a copy of it could be read; "": nothing.
  std::string problem{};
};

/// nullopt: there is none. Errc::unreadable when there is one that is wrong, with the byte where.
/// The checksums of a GPT are checked; where the first copy is wrong, the second one is read.
Result<std::optional<PartitionTable>> read_partition_table(ByteSource& disk);

/// The partition that `word` names: by its number, by its name in a GPT, or by the label of the
/// file system in it (ext, FAT, EROFS); the first of these kinds of which there is one. Errors:
/// Errc::unreadable when there is none, when there are several, or when it has a problem.
Result<Partition> find_partition(const PartitionTable& table, ByteSource& disk,
                                 std::string_view word);

/// For messages: "1 (esp), 2 (root)".
std::string list_of(const PartitionTable& table);

}  // namespace mkvirtfs::disk
