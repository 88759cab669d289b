// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "fsgen/ext2/volume.h"

// Every fixed metadata block of a volume as a pure function of its number. All fill the whole of
// `out`, which is one block, and may run on any thread.

namespace mkvirtfs::ext2 {

/// The superblock's 1024 bytes as they stand at the start of `group`.
void write_superblock(const Volume& volume, GroupNo group, std::span<std::byte, 1024> out);
/// Block `index` of those that are kept for descriptors of later groups, in group 0: a map of the
/// copies of this block. In other groups they are zero.
void write_reserved_descriptors(const Volume& volume, std::uint32_t index,
                                std::span<std::byte> out);
/// The double indirect block of the resize inode: a map of the reserved blocks in group 0.
void write_resize_map(const Volume& volume, std::span<std::byte> out);
/// Block `index` of the group descriptor table; all copies are equal.
void write_descriptors(const Volume& volume, std::uint32_t index, std::span<std::byte> out);
void write_block_bitmap(const Volume& volume, GroupNo group, std::span<std::byte> out);
void write_inode_bitmap(const Volume& volume, GroupNo group, std::span<std::byte> out);
/// Block `index` of the group's inode table.
void write_inode_table(const Volume& volume, GroupNo group, std::uint32_t index,
                       std::span<std::byte> out);
/// The first block of the journal; the others are zeroes.
void write_journal_superblock(const Volume& volume, std::span<std::byte> out);

/// Block `index` of an own file of the contents, at `block`.
void write_own(const Volume& volume, std::uint32_t own, std::uint64_t index, BlockNo block,
               std::span<std::byte> out);

/// Start of the checksums of an inode's own blocks.
std::uint32_t inode_seed(const Volume& volume, InodeNo inode) noexcept;

}  // namespace mkvirtfs::ext2
