// SPDX-License-Identifier: BSD-3-Clause
// Where an ext image has what: the answers of Ext2Image::data_at() and structure().
#include <ext2fs/ext2_fs.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <string_view>
#include <vector>

#include "fsgen/ext2/ext2_image.h"

namespace mkvirtfs::ext2 {
namespace {

constexpr std::string_view kSuperblock = "superblock";
constexpr std::string_view kDescriptors = "group_descriptors";
constexpr std::string_view kReservedDescriptors = "reserved_group_descriptors";
constexpr std::string_view kBlockBitmap = "block_bitmap";
constexpr std::string_view kInodeBitmap = "inode_bitmap";
constexpr std::string_view kInodeTable = "inode_table";
constexpr std::string_view kInode = "inode";
constexpr std::string_view kAttributes = "attribute_blocks";
constexpr std::string_view kJournal = "journal";
constexpr std::array kNames = {structures::kBootArea, structures::kVolume,
                               structures::kTail,     kSuperblock,
                               kDescriptors,          kReservedDescriptors,
                               kBlockBitmap,          kInodeBitmap,
                               kInodeTable,           kInode,
                               kAttributes,           kJournal};

constexpr std::uint64_t kSuperblockBytes = 1024;
constexpr std::uint64_t kBootAreaBytes = 1024;

}  // namespace

std::vector<DataPlacement::Run> Ext2Image::runs_of(const InodeBlocks& blocks,
                                                   std::uint64_t size_bytes) const {
  const GroupLayout& layout = volume_->layout();
  std::vector<DataPlacement::Run> runs;
  for (const BlockRun& run : blocks.runs()) {
    for (std::uint64_t done = 0; done < run.count;) {
      const SpaceNo at = blocks.data_start() + run.rank + done;
      const std::uint64_t count = std::min(run.count - done, layout.contiguous_from(at));
      const std::uint64_t data_offset = (run.logical + done) * block_bytes();
      Range range = blocks_at(layout.block_at(at), count);
      range.length = std::min(range.length, size_bytes - data_offset);
      runs.push_back({data_offset, range});
      done += count;
    }
  }
  return runs;
}

std::vector<Range> Ext2Image::ranges_of(SpaceNo start, std::uint64_t count) const {
  InodeBlocks blocks;
  blocks.dense.count = count;
  blocks.start = start;
  std::vector<Range> ranges;
  for (const DataPlacement::Run& run : runs_of(blocks, count * block_bytes())) {
    ranges.push_back(run.range);
  }
  return ranges;
}

std::optional<Range> Ext2Image::inode_range(std::uint64_t number) const {
  if (number == 0 || number > volume_->inode_count()) return std::nullopt;
  const std::uint32_t per_group = volume_->layout().inodes_per_group();
  const GroupNo group{static_cast<std::uint32_t>((number - 1) / per_group)};
  const std::uint64_t inode_bytes = volume_->parameters().inode_bytes;
  const Range table = blocks_at(volume_->layout().inode_table(group), 1);
  return Range{table.offset + (number - 1) % per_group * inode_bytes, inode_bytes};
}

DataPlacement Ext2Image::data_at(std::string_view path) const {
  const auto stored = [&](const InodeBlocks& blocks, std::uint64_t size_bytes) {
    return DataPlacement{DataPlacement::Kind::stored, size_bytes, runs_of(blocks, size_bytes)};
  };
  const auto directory = [&](DirectoryNo number) {
    return stored(volume_->blocks_of_directory(number),
                  std::uint64_t{contents_->directories.block_count(number)} * block_bytes());
  };
  const std::optional<NodeNo> no = find_node(tree(), path);
  if (!no) {
    const bool ours = path == kLostFoundName && contents_->numbers.adds_lost_found();
    return ours ? directory(contents_->directories.lost_found()) : DataPlacement();
  }
  const Node& node = tree().node(*no);
  if (node.is_directory()) return directory(tree().directory_no(*no));
  if (node.size_bytes == 0) return {.kind = DataPlacement::Kind::no_bytes};
  if (node.is_symlink() && !contents_->is_slow_symlink(node)) {
    const Range inode = *inode_range(contents_->numbers.of(*no).value());
    const Range target{inode.offset + offsetof(ext2_inode, i_block), node.size_bytes};
    return {DataPlacement::Kind::embedded, node.size_bytes, {{0, target}}};
  }
  const InodeBlocks blocks = volume_->blocks_of_node(*no);
  if (blocks.runs().empty()) return {DataPlacement::Kind::hole, node.size_bytes, {}};
  return stored(blocks, node.size_bytes);
}

std::span<const std::string_view> Ext2Image::structure_names() const noexcept { return kNames; }

std::vector<Range> Ext2Image::structure(std::string_view name, std::uint64_t number) const {
  if (name == kInode) {
    const std::optional<Range> inode = inode_range(number);
    return inode ? std::vector{*inode} : std::vector<Range>();
  }
  const std::array grouped = {kSuperblock,  kDescriptors, kReservedDescriptors,
                              kBlockBitmap, kInodeBitmap, kInodeTable};
  if (std::ranges::find(grouped, name) != grouped.end()) {
    if (number >= volume_->layout().group_count()) return {};
    return group_structure(name, GroupNo{static_cast<std::uint32_t>(number)});
  }
  if (number != 0) return {};
  if (name == structures::kBootArea) return {{0, kBootAreaBytes}};
  if (name == kAttributes) {
    return ranges_of(volume_->xattrs_start(), contents_->xattrs.block_count());
  }
  if (name == kJournal) {
    const InodeBlocks blocks = volume_->blocks_of_journal();
    return ranges_of(blocks.data_start(), blocks.data_blocks());
  }
  const Range volume = blocks_at(BlockNo{0}, volume_->layout().block_count());
  if (name == structures::kVolume) return {volume};
  if (name == structures::kTail && volume.end() < size_bytes_) {
    return {{volume.end(), size_bytes_ - volume.end()}};
  }
  return {};
}

std::vector<Range> Ext2Image::group_structure(std::string_view name, GroupNo group) const {
  const GroupLayout& layout = volume_->layout();
  if (name == kBlockBitmap) return {blocks_at(layout.block_bitmap(group), 1)};
  if (name == kInodeBitmap) return {blocks_at(layout.inode_bitmap(group), 1)};
  if (name == kInodeTable) {
    return {blocks_at(layout.inode_table(group), layout.inode_table_blocks())};
  }
  if (!layout.has_superblock(group)) return {};
  const BlockNo start = layout.group_start(group);
  if (name == kDescriptors) return {blocks_at(start + 1, layout.descriptor_blocks())};
  if (name == kReservedDescriptors) {
    if (layout.reserved_descriptor_blocks() == 0) return {};
    return {
        blocks_at(start + (1 + layout.descriptor_blocks()), layout.reserved_descriptor_blocks())};
  }
  // The first one stands behind the boot area, in the same block if that is large enough.
  return {{std::max(start.value() * block_bytes(), kBootAreaBytes), kSuperblockBytes}};
}

}  // namespace mkvirtfs::ext2
