// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/ext2/ext2_image.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>

#include "fsgen/ext2/metadata.h"
#include "fsgen/tree/source_differences.h"
#include "support/text.h"

namespace mkvirtfs::ext2 {
namespace {

constexpr std::uint64_t kSuperblockOffset = 1024;

std::string_view name_of(Variant variant) noexcept {
  switch (variant) {
    case Variant::ext2:
      return "ext2";
    case Variant::ext3:
      return "ext3";
    case Variant::ext4:
      return "ext4";
  }
  std::unreachable();
}

}  // namespace

Ext2Image::Ext2Image(std::unique_ptr<const Contents> contents, std::unique_ptr<const Volume> volume,
                     std::uint64_t size_bytes)
    : contents_(std::move(contents)), volume_(std::move(volume)), size_bytes_(size_bytes) {
  assert(size_bytes_ >= volume_->layout().block_count() * block_bytes());
}

Ext2Image::Place Ext2Image::inode_table_place(GroupNo group, std::uint32_t index) const {
  const std::uint32_t used = volume_->used_table_blocks(group);
  Place place{Kind::inode_table, 0, index >= used, group, 0, index};
  place.blocks = (place.zero ? volume_->layout().inode_table_blocks() : used) - index;
  return place;
}

Ext2Image::Place Ext2Image::place_in_group_metadata(GroupNo group, std::uint32_t at) const {
  const GroupLayout& layout = volume_->layout();
  if (layout.has_superblock(group)) {
    if (at == 0) return {Kind::superblock, 1, false, group};
    --at;
    if (at < layout.descriptor_blocks()) {
      return {Kind::descriptors, layout.descriptor_blocks() - at, false, group, 0, at};
    }
    at -= layout.descriptor_blocks();
  }
  if (at == 0) return {Kind::block_bitmap, 1, false, group};
  if (at == 1) return {Kind::inode_bitmap, 1, false, group};
  return inode_table_place(group, at - 2);
}

Ext2Image::Place Ext2Image::place_in_packed_metadata(SpaceNo space) const {
  const GroupLayout& layout = volume_->layout();
  const GroupLayout::PackedAt at = layout.packed_at(space);
  switch (at.what) {
    case GroupLayout::Packed::block_bitmap: {
      const GroupNo blank = volume_->first_blank_group();
      const GroupNo last = layout.group_count() - 1;
      if (volume_->is_blank(at.group)) return {Kind::block_bitmap, last - at.group, true, at.group};
      const GroupNo end = at.group < blank && blank < last ? blank : last + 1;
      return {Kind::block_bitmap, end - at.group, false, at.group};
    }
    case GroupLayout::Packed::inode_bitmap: {
      const GroupNo first_unused = volume_->first_unused_inode_group();
      const bool unused = at.group >= first_unused;
      return {Kind::inode_bitmap, (unused ? layout.group_count() : first_unused) - at.group, unused,
              at.group};
    }
    case GroupLayout::Packed::inode_table:
      return inode_table_place(at.group, at.index);
    case GroupLayout::Packed::gap:
      return {Kind::unused, at.blocks_left, true};
  }
  std::unreachable();
}

Ext2Image::Place Ext2Image::place_in_files(SpaceNo space) const {
  const NodeNo node = volume_->node_at(space);
  const InodeBlocks blocks = volume_->blocks_of_node(node);
  const std::uint64_t local = space - blocks.start;
  if (local < blocks.mapping_blocks)
    return {Kind::file_map, blocks.mapping_blocks - local, false, 0, node, local};
  const std::uint64_t rank = local - blocks.mapping_blocks;
  if (contents_->tree->node(node).is_symlink())
    return {Kind::symlink_target, 1, false, 0, node, rank};
  const auto runs = blocks.runs();
  const BlockRun& run = *std::prev(std::ranges::upper_bound(runs, rank, {}, &BlockRun::rank));
  return {Kind::file_data,
          run.rank + run.count - rank,
          false,
          0,
          node,
          run.logical + (rank - run.rank)};
}

Ext2Image::Place Ext2Image::place_of(BlockNo block) const {
  const GroupLayout& layout = volume_->layout();
  const std::uint32_t first_data_block = volume_->parameters().first_data_block();
  if (block < first_data_block) return {Kind::boot, first_data_block - block, true};
  const GroupNo group = layout.group_of(block);
  const BlockNo at = block - layout.group_start(group);
  if (at < layout.overhead(group))
    return place_in_group_metadata(group, static_cast<std::uint32_t>(at));

  const SpaceNo space = layout.space_below(block);
  const Volume::Region region = volume_->region_of(space);
  Place place;
  switch (region) {
    case Volume::Region::packed_metadata:
      place = place_in_packed_metadata(space);
      break;
    case Volume::Region::directories: {
      const std::uint32_t directory = volume_->directory_at(space);
      const InodeBlocks blocks = volume_->blocks_of_directory(directory);
      const std::uint64_t local = space - blocks.start;
      if (local < blocks.mapping_blocks) {
        place = {Kind::directory_map, blocks.mapping_blocks - local, false, 0, directory, local};
      } else {
        const std::uint64_t index = local - blocks.mapping_blocks;
        place = {Kind::directory, blocks.data_blocks() - index, false, 0, directory, index};
      }
      break;
    }
    case Volume::Region::xattrs:
      place = {Kind::attributes,
               volume_->region_end(region) - space,
               false,
               0,
               0,
               space - volume_->xattrs_start()};
      break;
    case Volume::Region::journal: {
      const InodeBlocks blocks = volume_->blocks_of_journal();
      const std::uint64_t local = space - blocks.start;
      if (local < blocks.mapping_blocks) {
        place = {Kind::journal_map, blocks.mapping_blocks - local, false, 0, 0, local};
      } else {
        const std::uint64_t index = local - blocks.mapping_blocks;
        place = {Kind::journal, index == 0 ? 1 : blocks.data_blocks() - index, index != 0, 0, 0,
                 index};
      }
      break;
    }
    case Volume::Region::files:
      place = place_in_files(space);
      break;
    case Volume::Region::free:
      place = {Kind::unused, volume_->region_end(region) - space, true};
      break;
  }
  place.blocks = std::min(place.blocks, layout.contiguous_from(space));
  return place;
}

Region Ext2Image::region_at(std::uint64_t offset) const {
  const std::uint64_t bytes = block_bytes();
  const std::uint64_t block_count = volume_->layout().block_count();
  const BlockNo block = offset / bytes;
  if (block >= block_count) {  // behind the file system: what a given size has left over
    return Region::empty({block_count * bytes, size_bytes_ - block_count * bytes});
  }
  const Place place = place_of(block);
  const Range range = blocks_at(block, place.blocks);
  if (place.zero) return Region::empty(range);
  if (place.kind != Kind::file_data) return Region::computed(range);
  const std::uint64_t from = place.index * bytes;
  const std::uint64_t size = contents_->tree->node(NodeNo{place.owner}).size_bytes;
  return {.kind = Region::Kind::file,
          .range = range,
          .data_bytes = std::min(range.length, size - from),
          .file = NodeNo{place.owner},
          .file_offset = from};
}

void Ext2Image::write_block(std::uint64_t block, std::span<std::byte> out) const {
  const Place place = place_of(block);
  const auto index = static_cast<std::uint32_t>(place.index);
  const InodeNumbers& numbers = contents_->numbers;
  const auto seed_of_directory = [&] {
    const auto directories = contents_->tree->directories();
    const bool ours = place.owner >= directories.size();
    return inode_seed(*volume_, ours ? kFirstInode : numbers.of(directories[place.owner].node));
  };
  switch (place.kind) {
    case Kind::superblock: {
      std::ranges::fill(out, std::byte{0});
      // Only the first one leaves room for a boot sector before it.
      const std::size_t at =
          place.group == 0 && out.size() > kSuperblockOffset ? kSuperblockOffset : 0;
      write_superblock(*volume_, place.group, out.subspan(at).first<1024>());
      break;
    }
    case Kind::descriptors:
      write_descriptors(*volume_, index, out);
      break;
    case Kind::block_bitmap:
      write_block_bitmap(*volume_, place.group, out);
      break;
    case Kind::inode_bitmap:
      write_inode_bitmap(*volume_, place.group, out);
      break;
    case Kind::inode_table:
      write_inode_table(*volume_, place.group, index, out);
      break;
    case Kind::directory:
      contents_->directories.write_block(place.owner, index, seed_of_directory(), out);
      break;
    case Kind::directory_map:
      volume_->mapper().write_mapping_block(volume_->blocks_of_directory(place.owner), place.index,
                                            seed_of_directory(), out);
      break;
    case Kind::attributes:
      contents_->xattrs.write_block(index, block, volume_->parameters(), out);
      break;
    case Kind::journal:
      write_journal_superblock(*volume_, out);
      break;
    case Kind::journal_map:
      volume_->mapper().write_mapping_block(volume_->blocks_of_journal(), place.index,
                                            inode_seed(*volume_, kJournalInode), out);
      break;
    case Kind::file_map:
      volume_->mapper().write_mapping_block(
          volume_->blocks_of_node(NodeNo{place.owner}), place.index,
          inode_seed(*volume_, numbers.of(NodeNo{place.owner})), out);
      break;
    case Kind::symlink_target: {
      std::ranges::fill(out, std::byte{0});
      const std::string_view target = contents_->tree->symlink_target(NodeNo{place.owner});
      std::memcpy(out.data(), target.data(), target.size());
      break;
    }
    case Kind::boot:
    case Kind::file_data:
    case Kind::unused:
      assert(false && "not a computed block");
      std::ranges::fill(out, std::byte{0});
      break;
  }
}

std::string Ext2Image::describe(std::uint64_t offset) const {
  const BlockNo block = offset / block_bytes();
  if (block >= volume_->layout().block_count()) return "behind the file system";
  const Place place = place_of(block);
  const auto path_of = [&](NodeNo node) {
    return node == kRootNode ? std::string("/") : "/" + contents_->tree->path(node);
  };
  const auto directory_path = [&] {
    const auto directories = contents_->tree->directories();
    return place.owner >= directories.size() ? "/" + std::string(kLostFoundName)
                                             : path_of(directories[place.owner].node);
  };
  switch (place.kind) {
    case Kind::boot:
      return "boot block";
    case Kind::superblock:
      return fmt::format("superblock, group {}", place.group);
    case Kind::descriptors:
      return fmt::format("group descriptors, copy in group {}", place.group);
    case Kind::block_bitmap:
      return fmt::format("block bitmap, group {}", place.group);
    case Kind::inode_bitmap:
      return fmt::format("inode bitmap, group {}", place.group);
    case Kind::inode_table: {
      const std::uint64_t first =
          static_cast<std::uint64_t>(place.group) * volume_->layout().inodes_per_group() +
          place.index * volume_->parameters().inodes_per_block() + 1;
      return fmt::format("inode table, group {}, inodes {}-{}{}", place.group, first,
                         first + volume_->parameters().inodes_per_block() - 1,
                         place.zero ? " (unused)" : "");
    }
    case Kind::directory:
      return fmt::format("directory {}, block {}", directory_path(), place.index);
    case Kind::directory_map:
      return fmt::format("block map of directory {}", directory_path());
    case Kind::attributes:
      return fmt::format("extended attributes, block {}", place.index);
    case Kind::journal:
      return fmt::format("journal, block {}", place.index);
    case Kind::journal_map:
      return "block map of the journal";
    case Kind::file_map:
      return fmt::format("block map of file {}", path_of(NodeNo{place.owner}));
    case Kind::file_data:
      return fmt::format("file {} at {}", path_of(NodeNo{place.owner}),
                         place.index * block_bytes() + offset % block_bytes());
    case Kind::symlink_target:
      return fmt::format("target of symlink {}", path_of(NodeNo{place.owner}));
    case Kind::unused:
      return "free";
  }
  std::unreachable();
}

std::string Ext2Image::volume_id() const { return to_string(volume_->parameters().uuid); }

std::vector<ImageFact> Ext2Image::facts() const {
  const Parameters& parameters = volume_->parameters();
  const GroupLayout& layout = volume_->layout();
  const std::uint64_t used_inodes = contents_->numbers.last();
  return {
      {"format", std::string(name_of(parameters.variant))},
      {"size_bytes", size_bytes_},
      {"label", parameters.label},
      {"uuid", to_string(parameters.uuid)},
      {"features", parameters.feature_words()},
      {"block_bytes", std::uint64_t{parameters.block_bytes}},
      {"block_count", layout.block_count()},
      {"free_block_count", volume_->free_blocks()},
      {"inode_bytes", std::uint64_t{parameters.inode_bytes}},
      {"inode_count", std::uint64_t{volume_->inode_count()}},
      {"free_inode_count", volume_->inode_count() - used_inodes},
      {"group_count", std::uint64_t{layout.group_count()}},
      {"directory_count", std::uint64_t{contents_->directories.count()}},
      {"journal_blocks", volume_->blocks_of_journal().data_blocks()},
  };
}

std::string Ext2Image::remark() const { return source_remark(*contents_->tree); }

void Ext2Image::differences(DifferenceSink& sink) const {
  list_source_differences(*contents_->tree, sink);
}

}  // namespace mkvirtfs::ext2
