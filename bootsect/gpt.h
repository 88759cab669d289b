// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bootsect/mbr.h"
#include "fsgen/image/patched_image.h"
#include "support/error.h"
#include "support/uuid.h"

// The GUID partition table (UEFI 2.10, section 5.3). Pure functions: what it says in, bytes out.

namespace mkvirtfs::bootsect {

/// Bits of GptPartition::attributes.
namespace gpt_attributes {
inline constexpr std::uint64_t kRequired = std::uint64_t{1} << 0;
inline constexpr std::uint64_t kNoBlockIo = std::uint64_t{1} << 1;
inline constexpr std::uint64_t kLegacyBootable = std::uint64_t{1} << 2;  ///< what gptmbr.bin boots
inline constexpr std::uint64_t kGrowFileSystem = std::uint64_t{1} << 59;
inline constexpr std::uint64_t kReadOnly = std::uint64_t{1} << 60;
inline constexpr std::uint64_t kNoAutomount = std::uint64_t{1} << 63;
}  // namespace gpt_attributes

/// One of these bits by its name: "required", "no-block-io", "legacy-boot", "grow", "read-only",
/// "no-auto".
std::optional<std::uint64_t> find_gpt_attribute(std::string_view name) noexcept;

inline constexpr std::size_t kMostGptPartitions = 128;

struct GptPartition {
  Uuid type{};
  Uuid id{};
  std::uint64_t first_sector = 0;
  std::uint64_t sector_count = 0;
  std::uint64_t attributes = 0;
  std::string name;  ///< UTF-8, at most 36 units of UTF-16
};

struct GptTable {
  std::uint32_t sector_bytes = 512;
  std::uint64_t sector_count = 0;  ///< of the disk
  Uuid disk_id{};
  std::vector<GptPartition> partitions;  ///< numbered from 1 on; at most 128
  /// Those of them that its MBR shows, too, and that MBR's id; none: it protects the whole disk.
  std::vector<MbrPartition> in_mbr{};
  std::uint32_t mbr_id = 0;
};

/// Sectors that a table takes at the disk's start, with the protective MBR, and at its end.
std::uint64_t gpt_sectors_at_start(std::uint32_t sector_bytes) noexcept;
std::uint64_t gpt_sectors_at_end(std::uint32_t sector_bytes) noexcept;

/// A partition's name in UTF-16. Errc::usage for a name that is too long or no UTF-8.
Result<std::u16string> gpt_name(std::string_view name);

/// The bytes of the table: protective MBR, headers and entries, at the disk's start and at its end.
/// Boot code, bytes 0 to 439 of the disk, is somebody else's. The caller knows that what lies where
/// makes sense.
///
/// Errors: as those of gpt_name(); Errc::does_not_fit for too many partitions.
Result<std::vector<Patch>> gpt_table(const GptTable& table);

}  // namespace mkvirtfs::bootsect
