// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "fsgen/ext2/plan.h"
#include "fsgen/tree/source_tree.h"
#include "support/error.h"

namespace mkvirtfs::ext2 {

/// Every decision that does not depend on sizes: made once from the options, then only read.
struct Parameters {
  Variant variant = Variant::ext2;
  std::uint32_t block_bytes = 4096;
  std::uint32_t inode_bytes = 256;

  // Features, by mke2fs's names.
  bool dir_index = false;
  bool extents = false;
  bool flex_bg = false;
  bool sixty_four_bit = false;
  bool metadata_csum = false;
  bool metadata_csum_seed = false;
  bool sparse_super = true;
  bool huge_file = false;
  bool dir_nlink = false;
  bool extra_isize = false;
  bool large_dir = false;
  bool orphan_file = false;
  bool quota = false;
  bool project = false;
  /// Some values of extended attributes are files of their own.
  bool ea_inode = false;
  /// Whether values may become files where they have no room otherwise.
  bool may_have_ea_inode = false;
  bool ea_inode_is_asked = false;
  bool resize_inode = false;
  /// Reserved descriptors were not asked for: they give way where a given size has no room.
  bool resize_inode_is_default = false;
  bool has_journal = false;
  /// The journal was not asked for: a volume that is too small for one, or has no room, has none.
  bool journal_is_default = false;

  bool lost_found = true;
  std::uint16_t stride_blocks = 0;
  std::uint32_t stripe_width_blocks = 0;
  OnErrors on_errors = OnErrors::go_on;
  std::string label;
  Uuid uuid{};
  std::array<std::uint32_t, 4> hash_seed{};
  std::uint64_t made_at_s = 0;
  bool made_at_given = false;
  std::uint32_t reserved_percent = 0;

  /// Start of every metadata checksum: crc32c of the UUID.
  std::uint32_t checksum_seed = 0;

  std::uint32_t blocks_per_group() const noexcept { return 8 * block_bytes; }
  std::uint32_t first_data_block() const noexcept { return block_bytes == 1024 ? 1 : 0; }
  std::uint32_t descriptor_bytes() const noexcept { return sixty_four_bit ? 64 : 32; }
  std::uint32_t inodes_per_block() const noexcept { return block_bytes / inode_bytes; }
  std::uint32_t sectors_per_block() const noexcept { return block_bytes / 512; }
  /// Bytes of a directory leaf that hold entries; the rest is the checksum's fake entry.
  std::uint32_t leaf_bytes() const noexcept { return block_bytes - (metadata_csum ? 12 : 0); }
  /// Bytes of the inode that extended attributes can use, magic number included; 0: none there. The
  /// original ext2 driver reads only attribute blocks, so ext2 keeps everything in them.
  std::uint32_t inode_xattr_bytes() const noexcept;

  std::uint32_t feature_compat() const noexcept;
  std::uint32_t feature_incompat() const noexcept;
  std::uint32_t feature_ro_compat() const noexcept;
  /// The features in words, as `dumpe2fs -h` prints them.
  std::string feature_words() const;
};

/// Errors: Errc::usage, naming the two options that do not go together.
Result<Parameters> resolve(const Options& options, const SourceTree& tree);

/// How many bytes i_extra_isize claims of a 256-byte inode: all fields up to and including
/// i_projid.
inline constexpr std::uint32_t kExtraInodeBytes = 32;

}  // namespace mkvirtfs::ext2
