// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fsgen/image/defaults.h"
#include "fsgen/image/free_space.h"
#include "fsgen/image/planned_image.h"
#include "fsgen/tree/source_tree.h"
#include "support/error.h"

namespace mkvirtfs::fat32 {

/// Bits of a FAT entry. It follows from the number of clusters alone: FAT12 up to 4084, FAT16 up to
/// 65524, FAT32 from 65525 on.
enum class Width : std::uint8_t { fat12, fat16, fat32 };
std::string_view name_of(Width width) noexcept;

/// The volume's serial number: "1A2B-3C4D" (or eight digits without the dash) and back; nullopt
/// when malformed.
std::optional<std::uint32_t> parse_volume_id(std::string_view text) noexcept;
std::string volume_id_text(std::uint32_t id);

/// What becomes of symbolic links.
enum class Symlinks : std::uint8_t {
  skip,
  /// A copy of what they point to, inside the source. "/" is the source's root; what leaves it, is
  /// not there, or leads in a circle does not fit.
  follow,
  error,
};
/// What becomes of names that are not UTF-8; escaped, each byte that is not becomes a character.
enum class BadNames : std::uint8_t { escape, skip, error };
/// What becomes of names that differ from an earlier one of their directory only in case; escaped,
/// the letters that differ become characters without case.
enum class CaseClashes : std::uint8_t { error, escape, skip };

/// FAT has no time zone: what a clock on the wall says.
struct TimeZone {
  bool local = false;  ///< as the host's zone database says for TZ; images then differ by host
  std::int32_t offset_minutes = 0;  ///< east of UTC; ignored when `local`
};

struct Options {
  /// Those of 0.1 leave no room in a root directory of FAT12 and FAT16 beyond its 512 slots, and
  /// give a size that is a diskette's another geometry where the source does not fit that one.
  Defaults defaults = Defaults::current;
  /// Unset: by size, below 16 MiB FAT12, below 512 MiB FAT16, else FAT32; another one where that
  /// cannot hold the source.
  std::optional<Width> width;
  std::uint32_t sector_bytes = 512;  ///< 512, 1024, 2048 or 4096
  /// A power of two from sector_bytes to 65536; 0: by size, as Windows and mkfs.fat choose, up to
  /// 32768.
  std::uint32_t cluster_bytes = 0;
  /// Exactly this image size; a plan that needs more fails and names the smallest size that fits.
  std::optional<std::uint64_t> size_bytes;
  /// Without a size: leave this much. Unset: the larger of 10 % and 64 MiB (FAT12: 10 %), or what
  /// the width can still have.
  std::optional<FreeSpace> free;
  std::string label;  ///< up to 11 characters of ASCII; lower case becomes upper case
  std::optional<std::uint32_t> volume_id;  ///< unset: derived from the tree and the options
  Symlinks symlinks = Symlinks::skip;
  BadNames bad_names = BadNames::escape;
  CaseClashes case_clashes = CaseClashes::error;
  /// Leave out what does not fit instead of failing: files of 4 GiB and more, names beyond a
  /// directory's 65,536 slots, symlinks that cannot be followed, names that clash.
  bool skip_unfit = false;
  TimeZone time_zone;
  /// Patterns of what gets these attributes, as PathRule has them; paths are those of the image, in
  /// names of the source. Files that nobody may write are read-only without a pattern.
  std::vector<std::string> hidden;
  std::vector<std::string> system;
  std::vector<std::string> read_only;
  /// Sectors before the volume on its disk: the start of its partition.
  std::uint32_t hidden_sectors = 0;
  /// Time stamp of the volume label; unset: the newest mtime of the tree.
  std::optional<std::int64_t> made_at_s;
};

/// Sizes and places everything before a byte of a file is read; time and memory grow with the
/// number of names, not of bytes (law 3). The format is that of Microsoft's "FAT: General Overview
/// of On-Disk Format", version 1.03.
///
/// Errors: Errc::usage for options that contradict each other or the width; Errc::does_not_fit with
/// the path and the limit for what the format cannot hold, or with the smallest size that fits.
Result<std::shared_ptr<const PlannedImage>> plan(std::shared_ptr<const SourceTree> tree,
                                                 const Options& options);

}  // namespace mkvirtfs::fat32
