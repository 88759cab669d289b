// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "block/image.h"
#include "fsgen/ext2/volume.h"

namespace mkvirtfs::ext2 {

/// A placed volume seen as an Image: tells for every byte whether it is a hole, computed metadata
/// or a file's. Immutable; nothing but the placement is stored.
class Ext2Image final : public Image {
 public:
  Ext2Image(std::unique_ptr<const Contents> contents, std::unique_ptr<const Volume> volume,
            std::uint64_t size_bytes);

  std::uint64_t size_bytes() const noexcept override { return size_bytes_; }
  std::uint32_t block_bytes() const noexcept override { return volume_->parameters().block_bytes; }
  void map(Range range, ExtentSink& sink) const override;
  void compute(std::uint64_t offset, std::span<std::byte> out) const override;
  std::string describe(std::uint64_t offset) const override;
  std::uint64_t described_end(std::uint64_t offset) const override;
  std::string volume_id() const override;
  std::vector<ImageFact> facts() const override;
  std::string remark() const override;
  void differences(DifferenceSink& sink) const override;

  const Volume& volume() const noexcept { return *volume_; }

 private:
  /// What a block is, for the writer and for the reader of `inspect`.
  enum class Kind : std::uint8_t {
    boot,  // block 0 when the superblock is block 1
    superblock,
    descriptors,
    block_bitmap,
    inode_bitmap,
    inode_table,
    directory,
    directory_map,
    attributes,
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
    GroupNo group = 0;         // superblock, bitmaps, inode table
    std::uint32_t owner = 0;   // directory, or node
    std::uint64_t index = 0;   // block within the table, directory, map, attribute blocks, journal;
                               // for file data the logical block
  };

  Place place_of(BlockNo block) const;
  Place place_in_group_metadata(GroupNo group, std::uint32_t at) const;
  Place place_in_packed_metadata(SpaceNo space) const;
  Place place_in_files(SpaceNo space) const;
  Place inode_table_place(GroupNo group, std::uint32_t index) const;
  Extent extent_at(std::uint64_t offset) const;
  void write_block(BlockNo block, std::span<std::byte> out) const;

  std::unique_ptr<const Contents> contents_;
  std::unique_ptr<const Volume> volume_;
  std::uint64_t size_bytes_;
};

}  // namespace mkvirtfs::ext2
