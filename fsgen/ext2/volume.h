// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "fsgen/ext2/block_map.h"
#include "fsgen/ext2/directories.h"
#include "fsgen/ext2/group_layout.h"
#include "fsgen/ext2/inode_numbers.h"
#include "fsgen/ext2/own_file.h"
#include "fsgen/ext2/parameters.h"
#include "fsgen/ext2/xattrs.h"
#include "fsgen/image/start_table.h"
#include "fsgen/tree/sequence.h"
#include "fsgen/tree/source_tree.h"
#include "support/error.h"

namespace mkvirtfs::ext2 {

/// What the tree needs of any volume, whatever its size: the directories' blocks, the attribute
/// blocks, the runs of sparse files. Immutable; owns the tree.
struct Contents {
  /// At most `threads` threads at once; 0: one a processor.
  ///
  /// Errors: Errc::does_not_fit and Errc::unsupported, naming the path and the limit; Errc::io for
  /// a lack of memory.
  static Result<std::unique_ptr<const Contents>> make(std::shared_ptr<const SourceTree> tree,
                                                      const Parameters& parameters,
                                                      unsigned threads);

  /// make() fills it.
  Contents(std::shared_ptr<const SourceTree> from, const Parameters& chosen)
      : tree(std::move(from)),
        parameters(chosen),
        numbers(*tree, {.lost_found = parameters.lost_found,
                        .project_quota = parameters.quota && parameters.project,
                        .orphan_file = parameters.orphan_file}),
        directories(*tree, parameters, numbers),
        sequence(data_sequence(*tree)) {}
  Contents(const Contents&) = delete;
  Contents& operator=(const Contents&) = delete;

  std::uint64_t blocks_for(std::uint64_t bytes) const noexcept;
  /// The runs of a regular file or of a symlink too long for its inode; start and mapping blocks
  /// unset.
  InodeBlocks blocks_of(NodeNo node) const noexcept;
  bool is_slow_symlink(const Node& node) const noexcept;

  std::shared_ptr<const SourceTree> tree;
  Parameters parameters;
  InodeNumbers numbers;
  Directories directories;
  Xattrs xattrs;
  Sequence sequence;               ///< of the nodes, as their data is placed
  std::vector<OwnFile> own_files;  ///< by inode
  /// With quota: the owners of the nodes, by id. The only project is 0.
  std::vector<std::uint32_t> users;
  std::vector<std::uint32_t> groups;
  std::uint64_t data_blocks = 0;  ///< of files, symlinks and directories, without mapping blocks

 private:
  struct SparseFile {
    NodeNo node;
    std::uint32_t first_run;
    std::uint32_t run_count;
  };
  Result<void> check_limits() const;
  Result<void> check_inode_count() const;
  void collect_owners();
  void collect_own_files();
  void collect_sparse_files();

  std::vector<SparseFile> sparse_files_;  // sorted by node
  std::vector<BlockRun> sparse_runs_;
};

/// The contents, placed: a layout of groups, and one monotone cursor through its space. In this
/// order: packed group metadata, directories, attribute blocks, the resize inode's map, the files
/// of features, the journal, then each node's file or long symlink, in the tree's data order.
/// Immutable.
class Volume {
 public:
  struct Size {
    std::uint64_t block_count = 0;
    std::uint32_t inodes_per_group = 0;
    std::uint32_t journal_blocks = 0;
    std::uint32_t reserved_descriptor_blocks = 0;
  };

  Volume(const Contents& contents, const Size& size);

  /// Whether everything found a place. A volume that does not fit is good for shortfall() only.
  bool fits() const noexcept { return used_end_ <= layout_.space_end(); }
  /// Blocks that lack; only the placing knows how many mapping blocks there are.
  std::uint64_t shortfall() const noexcept { return fits() ? 0 : used_end_ - layout_.space_end(); }
  std::uint64_t free_blocks() const noexcept;
  std::uint32_t inode_count() const noexcept {
    return layout_.group_count() * layout_.inodes_per_group();
  }

  const Contents& contents() const noexcept { return contents_; }
  /// Those of the contents, but for what this volume has no room for.
  const Parameters& parameters() const noexcept { return parameters_; }
  const GroupLayout& layout() const noexcept { return layout_; }
  const BlockMapper& mapper() const noexcept { return mapper_; }

  /// The area of space that holds a SpaceNo; each ends where the next begins.
  enum class Area : std::uint8_t {
    packed_metadata,
    directories,
    xattrs,
    resize_map,
    own_files,
    journal,
    files,
    free
  };
  Area area_of(SpaceNo space) const noexcept;
  SpaceNo area_end(Area area) const noexcept;
  SpaceNo used_end() const noexcept { return used_end_; }
  SpaceNo xattrs_start() const noexcept { return xattrs_start_; }
  /// The block that maps the resize inode, if there is one.
  SpaceNo resize_map() const noexcept { return resize_map_; }

  InodeBlocks blocks_of_directory(DirectoryNo directory) const noexcept;
  InodeBlocks blocks_of_node(NodeNo node) const noexcept;
  InodeBlocks blocks_of_journal() const noexcept;
  /// `own` counts the contents' own files.
  InodeBlocks blocks_of_own(std::uint32_t own) const noexcept;
  std::uint64_t size_of_own(std::uint32_t own) const noexcept;
  std::uint32_t own_at(SpaceNo space) const noexcept { return own_starts_.thing_at(space); }
  /// The bytes of an own file that is a quota.
  std::span<const std::byte> quota_file(OwnFile::What what) const noexcept;
  /// What a node has: its data, its map, its attribute block, and values of attributes.
  std::uint64_t blocks_held_by(NodeNo node) const noexcept;
  DirectoryNo directory_at(SpaceNo space) const noexcept;
  NodeNo node_at(SpaceNo space) const noexcept;
  bool has_journal() const noexcept { return journal_blocks_ != 0; }
  bool has_resize_inode() const noexcept { return layout_.reserved_descriptor_blocks() != 0; }

  /// Inodes in use in the group, which are always its first ones.
  std::uint32_t used_inodes(GroupNo group) const noexcept;
  std::uint32_t used_directories(GroupNo group) const noexcept {
    return group.value() < directories_in_group_.size() ? directories_in_group_[group.value()] : 0;
  }
  /// Groups from here on have no inode in use. With checksummed descriptors their inode bitmap is
  /// left to the reader (INODE_UNINIT); without, this is the group count.
  GroupNo first_unused_inode_group() const noexcept;
  /// Blocks of the group's inode table that are not all zeroes.
  std::uint32_t used_table_blocks(GroupNo group) const noexcept;
  std::uint32_t free_blocks(GroupNo group) const noexcept;
  /// Groups from first_blank_group() on, but for the last one, hold nothing but copies of the
  /// superblock: their block bitmap is left to the reader (BLOCK_UNINIT), so that a huge empty
  /// image is huge and empty. The last group is excepted because e2fsck wants it so. Equal to the
  /// group count when there is none.
  GroupNo first_blank_group() const noexcept { return first_blank_group_; }
  bool is_blank(GroupNo group) const noexcept {
    return group >= first_blank_group_ && group.value() + 1 < layout_.group_count();
  }

 private:
  void place();
  void count_directories();
  SpaceNo place_blocks(std::span<const BlockRun> runs, SpaceNo start) const;
  void make_quota_files();

  const Contents& contents_;
  Parameters parameters_;
  GroupLayout layout_;
  BlockMapper mapper_;
  std::uint32_t journal_blocks_;
  SpaceNo xattrs_start_;
  SpaceNo resize_map_;
  SpaceNo own_files_start_;
  SpaceNo journal_start_;
  SpaceNo files_start_;
  SpaceNo used_end_;
  GroupNo first_blank_group_;
  StartTable<SpaceNo> directory_starts_;             // by DirectoryNo
  StartTable<SpaceNo> node_starts_;                  // by position in the sequence
  StartTable<SpaceNo> own_starts_;                   // by number of the own file
  std::vector<std::byte> quota_files_[3];            // users, groups, projects
  std::vector<std::uint32_t> directories_in_group_;  // only groups with inodes in use
};

}  // namespace mkvirtfs::ext2
