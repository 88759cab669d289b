// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "fsgen/image/patched_image.h"

// The partition table of a PC's master boot record. Pure functions: what it says in, bytes out.

namespace mkvirtfs::bootsect {

/// Where partitions begin, as all partitioning tools have it; so much lies before the first one.
inline constexpr std::uint64_t kAlignmentBytes = 1u << 20;

inline constexpr std::size_t kMostPrimaries = 4;

inline constexpr std::uint64_t kMbrCodeBytes = 440;  ///< boot code; the table follows
inline constexpr std::uint64_t kMbrBytes = 512;      ///< the rest of a larger sector is nobody's

struct MbrPartition {
  std::uint8_t type = 0;
  bool active = false;             ///< what the code of an MBR boots
  std::uint32_t first_sector = 0;  ///< of the disk
  std::uint32_t sector_count = 0;
};

/// A partition inside the extended one. It has a table of its own (an EBR), which lies before it
/// and leads to the next one's.
struct LogicalPartition {
  MbrPartition partition;
  std::uint32_t ebr_sector = 0;
};

struct MbrTable {
  std::uint32_t sector_bytes = 512;
  std::uint32_t disk_id = 0;
  std::vector<MbrPartition> primaries;  ///< at most four, or three beside logical ones
  /// In the order in which they lie. The extended partition that holds them is made of them: from
  /// the first EBR to the end of the last one, as the last primary.
  std::vector<LogicalPartition> logicals;
};

/// The bytes of the table: sector 0 from the disk's id on, and an EBR for each logical partition.
/// Boot code, bytes 0 to 439 of the disk, is somebody else's. The caller knows that what lies where
/// makes sense.
std::vector<Patch> mbr_table(const MbrTable& table);

/// The table of a disk that has a GPT, for programs that know no GPT: one partition that covers the
/// whole disk (UEFI 2.10, 5.2.3).
std::vector<Patch> protective_mbr(std::uint64_t sector_count);

inline constexpr std::size_t kMostInHybrid = kMostPrimaries - 1;

/// The same for programs that are to see up to three of its partitions, at least one, in any order:
/// what protects the GPT ends before the first of them. No standard has this table; all
/// partitioning tools read it.
std::vector<Patch> hybrid_mbr(std::uint32_t disk_id, std::span<const MbrPartition> shown);

}  // namespace mkvirtfs::bootsect
