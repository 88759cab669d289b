// SPDX-License-Identifier: BSD-3-Clause
//
// What a block is: group metadata if it stands at the front of its group, else its number in space
// says in which area it lies, and the area which directory, attribute block or node has it. Each
// answer says for how many blocks it holds, so that a map takes one look-up a region.
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

std::string name_of(const OwnFile& file) {
  switch (file.what) {
    case OwnFile::What::user_quota:
      return "quota file of users";
    case OwnFile::What::group_quota:
      return "quota file of groups";
    case OwnFile::What::project_quota:
      return "quota file of projects";
    case OwnFile::What::orphans:
      return "orphan file";
    case OwnFile::What::xattr_value:
      return fmt::format("value of an extended attribute, inode {}", file.inode.value());
  }
  std::unreachable();
}

}  // namespace

Ext2Image::Ext2Image(std::unique_ptr<const Contents> contents, std::unique_ptr<const Volume> volume,
                     std::uint64_t size_bytes, std::string gave_way)
    : contents_(std::move(contents)),
      volume_(std::move(volume)),
      size_bytes_(size_bytes),
      gave_way_(std::move(gave_way)) {
  assert(size_bytes_ >= volume_->layout().block_count() * block_bytes());
}

Ext2Image::Place Ext2Image::inode_table_place(GroupNo group, std::uint32_t index) const {
  const std::uint32_t used = volume_->used_table_blocks(group);
  const bool zero = index >= used;
  const std::uint32_t end = zero ? volume_->layout().inode_table_blocks() : used;
  return {.kind = Kind::inode_table,
          .blocks = end - index,
          .zero = zero,
          .group = group,
          .index = index};
}

Ext2Image::Place Ext2Image::place_in_group_metadata(GroupNo group, std::uint32_t at) const {
  const GroupLayout& layout = volume_->layout();
  if (layout.has_superblock(group)) {
    if (at == 0) return {.kind = Kind::superblock, .group = group};
    --at;
    if (at < layout.descriptor_blocks()) {
      return {.kind = Kind::descriptors,
              .blocks = layout.descriptor_blocks() - at,
              .group = group,
              .index = at};
    }
    at -= layout.descriptor_blocks();
    if (at < layout.reserved_descriptor_blocks()) {
      const bool has_map = group == GroupNo{0} && layout.group_count() > 1;
      return {.kind = Kind::reserved_descriptors,
              .blocks = layout.reserved_descriptor_blocks() - at,
              .zero = !has_map,
              .group = group,
              .index = at};
    }
    at -= layout.reserved_descriptor_blocks();
  }
  if (at == 0) return {.kind = Kind::block_bitmap, .group = group};
  if (at == 1) return {.kind = Kind::inode_bitmap, .group = group};
  return inode_table_place(group, at - 2);
}

Ext2Image::Place Ext2Image::place_in_packed_metadata(SpaceNo space) const {
  const GroupLayout& layout = volume_->layout();
  const GroupLayout::PackedAt at = layout.packed_at(space);
  const GroupNo group_end{layout.group_count()};
  switch (at.what) {
    case GroupLayout::Packed::block_bitmap: {
      const GroupNo blank = volume_->first_blank_group();
      const GroupNo last = group_end - 1;
      const bool zero = volume_->is_blank(at.group);
      const GroupNo end = zero ? last : at.group < blank && blank < last ? blank : group_end;
      return {
          .kind = Kind::block_bitmap, .blocks = end - at.group, .zero = zero, .group = at.group};
    }
    case GroupLayout::Packed::inode_bitmap: {
      const GroupNo first_unused = volume_->first_unused_inode_group();
      const bool unused = at.group >= first_unused;
      return {.kind = Kind::inode_bitmap,
              .blocks = (unused ? group_end : first_unused) - at.group,
              .zero = unused,
              .group = at.group};
    }
    case GroupLayout::Packed::inode_table:
      return inode_table_place(at.group, at.index);
    case GroupLayout::Packed::gap:
      return {.kind = Kind::unused, .blocks = at.blocks_left, .zero = true};
  }
  std::unreachable();
}

Ext2Image::Place Ext2Image::place_in_directories(SpaceNo space) const {
  const DirectoryNo directory = volume_->directory_at(space);
  const InodeBlocks blocks = volume_->blocks_of_directory(directory);
  const std::uint64_t at = space - blocks.start;
  if (at < blocks.mapping_blocks) {
    return {.kind = Kind::directory_map,
            .blocks = blocks.mapping_blocks - at,
            .directory = directory,
            .index = at};
  }
  const std::uint64_t index = at - blocks.mapping_blocks;
  return {.kind = Kind::directory,
          .blocks = blocks.data_blocks() - index,
          .directory = directory,
          .index = index};
}

Ext2Image::Place Ext2Image::place_in_own_files(SpaceNo space) const {
  const std::uint32_t own = volume_->own_at(space);
  const InodeBlocks blocks = volume_->blocks_of_own(own);
  const std::uint64_t at = space - blocks.start;
  if (at < blocks.mapping_blocks) {
    return {
        .kind = Kind::own_file_map, .blocks = blocks.mapping_blocks - at, .own = own, .index = at};
  }
  const std::uint64_t index = at - blocks.mapping_blocks;
  return {
      .kind = Kind::own_file, .blocks = blocks.data_blocks() - index, .own = own, .index = index};
}

Ext2Image::Place Ext2Image::place_in_journal(SpaceNo space) const {
  const InodeBlocks blocks = volume_->blocks_of_journal();
  const std::uint64_t at = space - blocks.start;
  if (at < blocks.mapping_blocks) {
    return {.kind = Kind::journal_map, .blocks = blocks.mapping_blocks - at, .index = at};
  }
  const std::uint64_t index = at - blocks.mapping_blocks;
  if (index == 0) return {.kind = Kind::journal};
  return {
      .kind = Kind::journal, .blocks = blocks.data_blocks() - index, .zero = true, .index = index};
}

Ext2Image::Place Ext2Image::place_in_files(SpaceNo space) const {
  const NodeNo node = volume_->node_at(space);
  const InodeBlocks blocks = volume_->blocks_of_node(node);
  const std::uint64_t at = space - blocks.start;
  if (at < blocks.mapping_blocks) {
    return {
        .kind = Kind::file_map, .blocks = blocks.mapping_blocks - at, .node = node, .index = at};
  }
  const std::uint64_t rank = at - blocks.mapping_blocks;
  if (contents_->tree->node(node).is_symlink()) {
    return {.kind = Kind::symlink_target, .node = node, .index = rank};
  }
  const auto runs = blocks.runs();
  const BlockRun& run = *std::prev(std::ranges::upper_bound(runs, rank, {}, &BlockRun::rank));
  return {.kind = Kind::file_data,
          .blocks = run.rank + run.count - rank,
          .node = node,
          .index = run.logical + (rank - run.rank)};
}

Ext2Image::Place Ext2Image::place_in_space(SpaceNo space) const {
  const Volume::Area area = volume_->area_of(space);
  switch (area) {
    case Volume::Area::packed_metadata:
      return place_in_packed_metadata(space);
    case Volume::Area::directories:
      return place_in_directories(space);
    case Volume::Area::xattrs:
      return {.kind = Kind::attributes,
              .blocks = volume_->area_end(area) - space,
              .index = space - volume_->xattrs_start()};
    case Volume::Area::resize_map:
      return {.kind = Kind::resize_map};
    case Volume::Area::own_files:
      return place_in_own_files(space);
    case Volume::Area::journal:
      return place_in_journal(space);
    case Volume::Area::files:
      return place_in_files(space);
    case Volume::Area::free:
      return {.kind = Kind::unused, .blocks = volume_->area_end(area) - space, .zero = true};
  }
  std::unreachable();
}

Ext2Image::Place Ext2Image::place_of(BlockNo block) const {
  const GroupLayout& layout = volume_->layout();
  const BlockNo first{volume_->parameters().first_data_block()};
  if (block < first) return {.kind = Kind::boot, .blocks = first - block, .zero = true};
  const GroupNo group = layout.group_of(block);
  const std::uint64_t at = block - layout.group_start(group);
  if (at < layout.overhead(group)) {
    return place_in_group_metadata(group, static_cast<std::uint32_t>(at));
  }
  const SpaceNo space = layout.space_below(block);
  Place place = place_in_space(space);
  place.blocks = std::min(place.blocks, layout.contiguous_from(space));
  return place;
}

Region Ext2Image::region_at(std::uint64_t offset) const {
  const std::uint64_t bytes = block_bytes();
  const BlockNo end{volume_->layout().block_count()};
  const BlockNo block{offset / bytes};
  if (block >= end) {  // behind the file system: what a given size has left over
    const std::uint64_t volume_bytes = end.value() * bytes;
    return Region::empty({volume_bytes, size_bytes_ - volume_bytes});
  }
  const Place place = place_of(block);
  const Range range = blocks_at(block, place.blocks);
  if (place.zero) return Region::empty(range);
  if (place.kind != Kind::file_data) return Region::computed(range);
  const std::uint64_t from = place.index * bytes;
  const std::uint64_t size = contents_->tree->node(place.node).size_bytes;
  return {.kind = Region::Kind::file,
          .range = range,
          .data_bytes = std::min(range.length, size - from),
          .file = place.node,
          .file_offset = from};
}

void Ext2Image::write_block(std::uint64_t block, std::span<std::byte> out) const {
  const Place place = place_of(BlockNo{block});
  const auto index = static_cast<std::uint32_t>(place.index);
  const Directories& directories = contents_->directories;
  const auto seed_of_directory = [&] {
    return inode_seed(*volume_, directories.inode_of(place.directory));
  };
  switch (place.kind) {
    case Kind::superblock: {
      std::ranges::fill(out, std::byte{0});
      // Only the first one leaves room for a boot sector before it.
      const bool first = place.group == GroupNo{0} && out.size() > kSuperblockOffset;
      write_superblock(*volume_, place.group,
                       out.subspan(first ? kSuperblockOffset : 0).first<1024>());
      break;
    }
    case Kind::descriptors:
      write_descriptors(*volume_, index, out);
      break;
    case Kind::reserved_descriptors:
      write_reserved_descriptors(*volume_, index, out);
      break;
    case Kind::resize_map:
      write_resize_map(*volume_, out);
      break;
    case Kind::own_file:
      write_own(*volume_, place.own, place.index, BlockNo{block}, out);
      break;
    case Kind::own_file_map:
      volume_->mapper().write_mapping_block(
          volume_->blocks_of_own(place.own), place.index,
          inode_seed(*volume_, contents_->own_files[place.own].inode), out);
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
      directories.write_block(place.directory, index, seed_of_directory(), out);
      break;
    case Kind::directory_map:
      volume_->mapper().write_mapping_block(volume_->blocks_of_directory(place.directory),
                                            place.index, seed_of_directory(), out);
      break;
    case Kind::attributes:
      contents_->xattrs.write_block(index, BlockNo{block}, volume_->parameters(), out);
      break;
    case Kind::journal:
      write_journal_superblock(*volume_, out);
      break;
    case Kind::journal_map:
      volume_->mapper().write_mapping_block(volume_->blocks_of_journal(), place.index,
                                            inode_seed(*volume_, kJournalInode), out);
      break;
    case Kind::file_map:
      volume_->mapper().write_mapping_block(volume_->blocks_of_node(place.node), place.index,
                                            inode_seed(*volume_, contents_->numbers.of(place.node)),
                                            out);
      break;
    case Kind::symlink_target: {
      std::ranges::fill(out, std::byte{0});
      const std::string_view target = contents_->tree->symlink_target(place.node);
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
  const BlockNo block{offset / block_bytes()};
  if (block >= BlockNo{volume_->layout().block_count()}) return "behind the file system";
  const Place place = place_of(block);
  const auto path_of = [&](NodeNo node) {
    return node == kRootNode ? std::string("/") : "/" + contents_->tree->path(node);
  };
  const auto directory_path = [&] {
    const auto directories = contents_->tree->directories();
    const std::uint32_t number = place.directory.value();
    return number < directories.size() ? path_of(directories[number].node)
                                       : "/" + std::string(kLostFoundName);
  };
  switch (place.kind) {
    case Kind::boot:
      return "boot block";
    case Kind::superblock:
      return fmt::format("superblock, group {}", place.group.value());
    case Kind::descriptors:
      return fmt::format("group descriptors, copy in group {}", place.group.value());
    case Kind::reserved_descriptors:
      return fmt::format("reserved group descriptors, block {}, copy in group {}", place.index,
                         place.group.value());
    case Kind::resize_map:
      return "block map of the reserved group descriptors";
    case Kind::own_file:
      return fmt::format("{}, block {}", name_of(contents_->own_files[place.own]), place.index);
    case Kind::own_file_map:
      return fmt::format("block map of the {}", name_of(contents_->own_files[place.own]));
    case Kind::block_bitmap:
      return fmt::format("block bitmap, group {}", place.group.value());
    case Kind::inode_bitmap:
      return fmt::format("inode bitmap, group {}", place.group.value());
    case Kind::inode_table: {
      const std::uint64_t first =
          std::uint64_t{place.group.value()} * volume_->layout().inodes_per_group() +
          place.index * volume_->parameters().inodes_per_block() + 1;
      return fmt::format("inode table, group {}, inodes {}-{}{}", place.group.value(), first,
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
      return fmt::format("block map of file {}", path_of(place.node));
    case Kind::file_data:
      return fmt::format("file {} at {}", path_of(place.node),
                         place.index * block_bytes() + offset % block_bytes());
    case Kind::symlink_target:
      return fmt::format("target of symlink {}", path_of(place.node));
    case Kind::unused:
      return "free";
  }
  std::unreachable();
}

std::string Ext2Image::volume_id() const { return to_string(volume_->parameters().uuid); }

std::vector<ImageFact> Ext2Image::facts() const {
  const Parameters& parameters = volume_->parameters();
  const GroupLayout& layout = volume_->layout();
  const std::uint64_t used_inodes = contents_->numbers.last().value();
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

std::string Ext2Image::switched_on() const {
  const std::optional<NodeNo> first = contents_->xattrs.first_with_value();
  if (!first || volume_->parameters().ea_inode_is_asked) return {};
  return fmt::format(
      "ea_inode is on, because the extended attributes of {} need more than a block; GRUB cannot "
      "read such a volume",
      *first == kRootNode ? "/" : contents_->tree->path(*first));
}

std::string Ext2Image::remark() const { return source_remark(*contents_->tree); }

void Ext2Image::differences(DifferenceSink& sink) const {
  list_source_differences(*contents_->tree, sink);
}

}  // namespace mkvirtfs::ext2
