// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "fsgen/ext2/volume.h"
#include "fsgen/image/region_image.h"

namespace mkvirtfs::ext2 {

/// A placed volume seen as an image. Immutable; nothing but the placement is stored.
class Ext2Image final : public RegionImage {
 public:
  /// `gave_way` is what gave_way() returns.
  Ext2Image(std::unique_ptr<const Contents> contents, std::unique_ptr<const Volume> volume,
            std::uint64_t size_bytes, std::string gave_way);

  std::uint64_t size_bytes() const noexcept override { return size_bytes_; }
  std::uint32_t block_bytes() const noexcept override { return volume_->parameters().block_bytes; }
  std::string describe(std::uint64_t offset) const override;
  std::string volume_id() const override;
  std::vector<ImageFact> facts() const override;
  std::string remark() const override;
  std::string gave_way() const override { return gave_way_; }
  std::string switched_on() const override;
  void differences(DifferenceSink& sink) const override;

  const SourceTree& tree() const noexcept override { return *contents_->tree; }
  /// Where targets of symlinks and, of directories, the htree stand, too.
  DataPlacement data_at(std::string_view path) const override;
  /// "superblock", "group_descriptors" and "reserved_group_descriptors" by the group that has the
  /// copy; "block_bitmap", "inode_bitmap" and "inode_table" by group; "inode" by its number;
  /// "attribute_blocks", "journal".
  std::vector<Range> structure(std::string_view name, std::uint64_t number) const override;
  std::span<const std::string_view> structure_names() const noexcept override;

 protected:
  Region region_at(std::uint64_t offset) const override;
  void write_block(std::uint64_t block, std::span<std::byte> out) const override;

 private:
  /// What a block is, for the writer and for the reader of `inspect`.
  enum class Kind : std::uint8_t {
    boot,  // block 0 when the superblock is block 1
    superblock,
    descriptors,
    reserved_descriptors,
    block_bitmap,
    inode_bitmap,
    inode_table,
    directory,
    directory_map,
    attributes,
    resize_map,
    own_file,
    own_file_map,
    journal,
    journal_map,
    file_map,
    file_data,
    symlink_target,
    unused,
  };
  /// A block, and for how many blocks the next ones go on alike.
  struct Place {
    Kind kind = Kind::unused;
    std::uint64_t blocks = 1;  // alike from here on, contiguous on disk
    bool zero = false;         // alike in being all zeroes
    GroupNo group{};           // superblock, bitmaps, inode table
    DirectoryNo directory{};   // whose entries or map it is
    NodeNo node = kRootNode;   // whose data or map it is
    std::uint32_t own = 0;     // the own file whose data or map it is
    std::uint64_t index = 0;   // block within the table, directory, map, attribute blocks, journal;
                               // for file data the logical block
  };

  Place place_of(BlockNo block) const;
  Place place_in_group_metadata(GroupNo group, std::uint32_t at) const;
  Place place_in_space(SpaceNo space) const;
  Place place_in_packed_metadata(SpaceNo space) const;
  Place place_in_directories(SpaceNo space) const;
  Place place_in_own_files(SpaceNo space) const;
  Place place_in_journal(SpaceNo space) const;
  Place place_in_files(SpaceNo space) const;
  Place inode_table_place(GroupNo group, std::uint32_t index) const;

  Range blocks_at(BlockNo first, std::uint64_t count) const noexcept {
    return {first.value() * block_bytes(), count * block_bytes()};
  }
  std::vector<DataPlacement::Run> runs_of(const InodeBlocks& blocks,
                                          std::uint64_t size_bytes) const;
  std::vector<Range> ranges_of(SpaceNo start, std::uint64_t count) const;
  std::optional<Range> inode_range(std::uint64_t number) const;
  std::vector<Range> group_structure(std::string_view name, GroupNo group) const;

  std::unique_ptr<const Contents> contents_;
  std::unique_ptr<const Volume> volume_;
  std::uint64_t size_bytes_;
  std::string gave_way_;
};

}  // namespace mkvirtfs::ext2
