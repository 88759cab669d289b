// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "fsgen/erofs/chunks.h"
#include "fsgen/erofs/directories.h"
#include "fsgen/erofs/inode_table.h"
#include "fsgen/erofs/numbers.h"
#include "fsgen/erofs/plan.h"
#include "fsgen/erofs/window.h"
#include "fsgen/erofs/xattrs.h"
#include "fsgen/image/start_table.h"
#include "fsgen/tree/sequence.h"
#include "fsgen/tree/source_tree.h"

namespace mkvirtfs::erofs {

/// How a node is stored.
struct Shape {
  bool is_compact = false;
  const Chunks::File* chunks = nullptr;  ///< of a file that is stored in chunks
  std::uint64_t size_bytes = 0;          ///< as its inode has it
  std::uint64_t blocks = 0;              ///< of its own for its data
  std::uint32_t tail_bytes = 0;          ///< so much of its end stands behind its inode
  std::uint64_t head_bytes = 0;          ///< its inode and all that stands before that end

  std::uint64_t inode_bytes() const noexcept { return head_bytes + tail_bytes; }
};

/// A placed volume: everything that decides the image's bytes but the files' own. Made by plan(),
/// immutable afterwards.
///
///     boot area | superblock | inodes | shared attributes | directories | symlinks and files
struct Volume final : Directories::Inodes {
  std::shared_ptr<const SourceTree> tree;
  Options options;
  Uuid uuid{};
  Timestamp build_time;

  Xattrs xattrs;
  std::unique_ptr<const Directories> directories;
  Chunks chunks;
  InodeTable inodes;
  BlockNo shared_xattrs;                 ///< the first block; there may be none
  StartTable<BlockNo> directory_blocks;  ///< by DirectoryNo
  Sequence sequence;                     ///< of the nodes
  StartTable<BlockNo> data_blocks;       ///< of all but directories, by position in it

  std::uint32_t compact_count = 0;
  std::uint64_t packed_tail_count = 0;  ///< of files
  std::uint64_t shared_file_count = 0;  ///< files that stand where another one does

  std::uint32_t block_bytes() const noexcept { return options.block_bytes; }
  std::uint32_t block_count() const noexcept { return data_blocks.end().value(); }
  Shape shape_of(NodeNo no) const noexcept;
  /// The file whose blocks a file has for its own; the node itself where it has none of another.
  NodeNo stored_as(NodeNo no, const Shape& shape) const noexcept;
  /// The first of a node's blocks; 0 where it has none.
  BlockNo first_block(NodeNo no, const Shape& shape) const noexcept;

  /// The first Linux that mounts it, of those whose pages are no smaller than its blocks.
  std::string_view oldest_linux() const noexcept;

  SlotNo slot_of(NodeNo no) const noexcept override { return inodes.slot_of(no); }
};

// Records. Each puts what of it is wanted, and may run on any thread.

void write_superblock(const Volume& volume, Window& out);
/// The inode and all that follows it but bytes of a file.
void write_inode(const Volume& volume, NodeNo no, Window& out);

}  // namespace mkvirtfs::erofs
