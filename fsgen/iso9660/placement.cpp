// SPDX-License-Identifier: BSD-3-Clause
// Where an ISO image has what: the answers of IsoImage::data_at() and structure().
#include <array>
#include <optional>
#include <string_view>
#include <vector>

#include "fsgen/iso9660/iso_image.h"

namespace mkvirtfs::iso9660 {
namespace {

constexpr std::string_view kPrimary = "primary_volume_descriptor";
constexpr std::string_view kBootRecord = "boot_record";
constexpr std::string_view kJoliet = "joliet_volume_descriptor";
constexpr std::string_view kTerminator = "volume_descriptor_set_terminator";
constexpr std::string_view kPathTable = "path_table";
constexpr std::string_view kCatalogue = "boot_catalogue";
constexpr std::array kNames = {
    structures::kBootArea, structures::kVolume, structures::kTail, kPrimary, kBootRecord, kJoliet,
    kTerminator,           kPathTable,          kCatalogue};

Range blocks_at(BlockNo first, std::uint64_t count) {
  return {std::uint64_t{first.value()} * kBlockBytes, count * kBlockBytes};
}

}  // namespace

DataPlacement IsoImage::data_at(std::string_view path) const {
  const std::optional<NodeNo> no = find_node(tree(), path);
  if (!no) return {};
  const Node& node = tree().node(*no);
  if (node.is_directory()) {
    const Hierarchy::IsoDirectory& directory = volume_.primary->directory(tree().directory_no(*no));
    const Range range = blocks_at(directory.block, directory.blocks);
    return {DataPlacement::Kind::stored, range.length, {{0, range}}};
  }
  // Rock Ridge has targets of symlinks in directory records, component by component.
  if (node.is_symlink()) return {DataPlacement::Kind::embedded, node.size_bytes, {}};
  if (node.size_bytes == 0) return {.kind = DataPlacement::Kind::no_bytes};
  const Range range{blocks_at(volume_.files.block_of(*no), 0).offset, node.size_bytes};
  return {DataPlacement::Kind::stored, range.length, {{0, range}}};
}

std::span<const std::string_view> IsoImage::structure_names() const noexcept { return kNames; }

std::vector<Range> IsoImage::structure(std::string_view name, std::uint64_t number) const {
  // Of what is not there, the block is 0, where nothing but the system area is.
  const auto block = [](BlockNo at) {
    return at == BlockNo{0} ? std::vector<Range>() : std::vector{blocks_at(at, 1)};
  };
  if (name == kPathTable) {
    if (number >= (volume_.joliet ? 4 : 2)) return {};
    const Hierarchy& hierarchy = number < 2 ? *volume_.primary : *volume_.joliet;
    return {{blocks_at(volume_.path_tables[number], 0).offset, hierarchy.path_table_bytes()}};
  }
  if (number != 0) return {};
  if (name == structures::kBootArea) return {blocks_at(BlockNo{0}, kSystemBlocks)};
  if (name == structures::kVolume) return {blocks_at(BlockNo{0}, volume_.end.value())};
  if (name == structures::kTail) {
    const std::uint64_t end = blocks_at(volume_.end, 0).offset;
    return end == size_bytes() ? std::vector<Range>()
                               : std::vector<Range>{{end, size_bytes() - end}};
  }
  if (name == kPrimary) return block(kPrimaryDescriptor);
  if (name == kBootRecord) return block(volume_.boot_record);
  if (name == kJoliet) return block(volume_.joliet_descriptor);
  if (name == kTerminator) return block(volume_.terminator);
  if (name == kCatalogue) return block(volume_.catalog);
  return {};
}

}  // namespace mkvirtfs::iso9660
