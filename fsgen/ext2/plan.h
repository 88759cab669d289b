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
#include "support/uuid.h"

namespace mkvirtfs::ext2 {

enum class Variant : std::uint8_t { ext2, ext3, ext4 };

/// What the kernel does when it finds the file system damaged; the values of s_errors.
enum class OnErrors : std::uint16_t { go_on = 1, remount_read_only = 2, panic = 3 };

struct Options {
  Variant variant = Variant::ext2;
  Defaults defaults = Defaults::current;
  std::uint32_t block_bytes =
      0;  ///< 1024, 2048 or 4096; 0: 4096, or 1024 when `size_bytes` is below 8 MiB
  std::uint32_t inode_bytes = 0;  ///< 128 or 256; 0: 256
  /// Exactly this image size; a plan that needs more fails and names the smallest size that fits.
  std::optional<std::uint64_t> size_bytes;
  /// Instead of a size: as few blocks as hold the contents and what was asked for. What is only a
  /// default (a journal, reserved descriptors, spare inodes) is left out.
  bool smallest = false;
  /// Without a size: leave this much. Unset: the larger of 10 % and 64 MiB.
  std::optional<FreeSpace> free;
  /// At least so many inodes; unset: those in use plus 10 % plus 1024, which give way where a given
  /// size has no room for them.
  std::optional<std::uint32_t> inodes;
  /// At least one inode for so many bytes of the file system; the size of a block or more. Unset:
  /// for 16 KiB (32 KiB from 4 TiB on, 64 KiB from 16 TiB on), which gives way, too.
  std::optional<std::uint32_t> bytes_per_inode;
  std::string label;         ///< up to 16 bytes
  std::optional<Uuid> uuid;  ///< unset: derived from the tree and the options
  /// Unset: ext3 and ext4 have one, of the size that mke2fs chooses. That of ext4 gives way where a
  /// given size has no room for it, and a file system of less than 2048 blocks has none.
  std::optional<bool> journal;
  std::uint32_t reserved_percent = 0;
  /// mke2fs's words, "^" in front takes one away; the last one of a name counts.
  std::vector<std::string> features;
  /// A source without a lost+found gets one.
  bool lost_found = true;
  std::optional<Uuid> hash_seed;          ///< of directory indexes; unset: derived as the UUID is
  std::uint16_t stride_blocks = 0;        ///< RAID: blocks on one disk before the next; 0: unknown
  std::uint32_t stripe_width_blocks = 0;  ///< RAID: blocks of data in a stripe; 0: unknown
  OnErrors on_errors = OnErrors::go_on;
  /// Time stamp of the file system itself; unset: the newest mtime of the tree.
  std::optional<std::int64_t> made_at_s;
  /// Plan with at most so many threads; 0: one a processor. The image is the same.
  unsigned threads = 0;
};

/// Sizes and places everything before a byte of a file is read; time and memory grow with the
/// number of names, not of bytes (law 3).
///
/// Errors: Errc::usage for options that contradict each other or the variant; Errc::does_not_fit
/// with the path and the limit for what the format cannot hold, or with the smallest size that
/// fits.
Result<std::shared_ptr<const PlannedImage>> plan(std::shared_ptr<const SourceTree> tree,
                                                 const Options& options);

}  // namespace mkvirtfs::ext2
