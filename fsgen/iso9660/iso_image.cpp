// SPDX-License-Identifier: BSD-3-Clause
//
// What a block is follows from where the parts of the volume begin, which stand in a fixed order;
// in the directories and the files it is a binary search.
#include "fsgen/iso9660/iso_image.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <string>
#include <utility>

#include "fsgen/tree/source_differences.h"

namespace mkvirtfs::iso9660 {
namespace {

constexpr Range bytes_of(std::uint64_t first_block, std::uint64_t end_block) {
  return {first_block * kBlockBytes, (end_block - first_block) * kBlockBytes};
}

/// Of the path tables every second one is big-endian.
constexpr std::endian byte_order_of(std::size_t path_table) {
  return path_table % 2 == 0 ? std::endian::little : std::endian::big;
}

}  // namespace

IsoImage::Place IsoImage::place_before_directories(BlockNo block) const noexcept {
  const auto alone = [&](Kind kind) -> Place {
    return {.kind = kind, .start = block.value(), .end = std::uint64_t{block.value()} + 1};
  };
  if (block < kPrimaryDescriptor) return {.kind = Kind::system_area, .end = kSystemBlocks};
  if (block == kPrimaryDescriptor) return alone(Kind::primary_descriptor);
  if (block == volume_.boot_record) return alone(Kind::boot_record);
  if (block == volume_.joliet_descriptor) return alone(Kind::joliet_descriptor);
  if (block == volume_.terminator) return alone(Kind::terminator);
  Place place = alone(Kind::path_table);
  place.path_table = volume_.joliet ? 3 : 1;
  while (block < volume_.path_tables[place.path_table]) --place.path_table;
  place.hierarchy = place.path_table >= 2 ? volume_.joliet.get() : volume_.primary.get();
  return place;
}

IsoImage::Place IsoImage::place_in(const Hierarchy& hierarchy, BlockNo block) const noexcept {
  const DirectoryNo no = hierarchy.directory_at(block);
  const Hierarchy::IsoDirectory& directory = hierarchy.directory(no);
  const bool is_record = block < directory.continuations();
  return {.kind = Kind::directory,
          .start = (is_record ? directory.block : directory.continuations()).value(),
          .end = (is_record ? directory.continuations() : directory.end()).value(),
          .hierarchy = &hierarchy,
          .directory = no};
}

IsoImage::Place IsoImage::place_of(std::uint64_t at) const noexcept {
  const std::uint64_t end = volume_.end.value();
  if (at >= end) return {.kind = Kind::behind, .start = end, .end = size_bytes() / kBlockBytes};
  const BlockNo block = block_no(at);
  if (block < volume_.path_tables_end) return place_before_directories(block);
  if (block < volume_.primary->end_block()) return place_in(*volume_.primary, block);
  if (block < metadata_end()) return place_in(*volume_.joliet, block);
  if (volume_.catalog != BlockNo{0} && block == volume_.catalog) {
    return {.kind = Kind::catalog, .start = at, .end = at + 1};
  }
  const BlockNo files_end = volume_.files.end_block();
  if (block >= files_end) return {.kind = Kind::padding, .start = files_end.value(), .end = end};
  const auto run = volume_.files.run_at(block);
  if (!run) return {.kind = Kind::padding, .start = at, .end = at + 1};  // between boot files
  return {.kind = Kind::file,
          .start = run->block.value(),
          .end = run->end().value(),
          .file = run->node};
}

Region IsoImage::region_at(std::uint64_t offset) const {
  const Place place = place_of(offset / kBlockBytes);
  const Range range = bytes_of(place.start, place.end);
  switch (place.kind) {
    case Kind::system_area:
    case Kind::catalog:
    case Kind::padding:
    case Kind::behind:
      return Region::empty(range);
    case Kind::primary_descriptor:
    case Kind::boot_record:
    case Kind::joliet_descriptor:
    case Kind::terminator:
    case Kind::path_table:
    case Kind::directory:
      return Region::computed(range);
    case Kind::file:
      return {.kind = Region::Kind::file,
              .range = range,
              .data_bytes = volume_.tree->node(place.file).size_bytes,
              .file = place.file,
              .has_holes = true};
  }
  std::unreachable();
}

void IsoImage::write_block(std::uint64_t block, std::span<std::byte> out) const {
  const Place place = place_of(block);
  switch (place.kind) {
    case Kind::primary_descriptor:
      write_volume_descriptor(volume_, *volume_.primary, out);
      return;
    case Kind::boot_record:
      write_boot_record(volume_, out);
      return;
    case Kind::joliet_descriptor:
      write_volume_descriptor(volume_, *volume_.joliet, out);
      return;
    case Kind::terminator:
      write_terminator(out);
      return;
    case Kind::path_table:
      place.hierarchy->write_path_table(block_no(block) - volume_.path_tables[place.path_table],
                                        byte_order_of(place.path_table), out);
      return;
    case Kind::directory: {
      const BlockNo first = place.hierarchy->directory(place.directory).block;
      place.hierarchy->write_block(place.directory, block_no(block) - first, volume_.files, out);
      return;
    }
    case Kind::system_area:
    case Kind::catalog:
    case Kind::file:
    case Kind::padding:
    case Kind::behind:
      assert(false && "not a computed block");
      std::ranges::fill(out, std::byte{0});
      return;
  }
}

std::string IsoImage::describe(std::uint64_t offset) const {
  const std::uint64_t block = offset / kBlockBytes;
  const Place place = place_of(block);
  switch (place.kind) {
    case Kind::system_area:
      return "system area";
    case Kind::primary_descriptor:
      return "primary volume descriptor";
    case Kind::boot_record:
      return "boot record";
    case Kind::joliet_descriptor:
      return "Joliet volume descriptor";
    case Kind::terminator:
      return "volume descriptor set terminator";
    case Kind::path_table:
      return fmt::format("{}path table {}, block {}", place.hierarchy->is_joliet() ? "Joliet " : "",
                         byte_order_of(place.path_table) == std::endian::little ? "L" : "M",
                         block_no(block) - volume_.path_tables[place.path_table]);
    case Kind::directory: {
      const Hierarchy::IsoDirectory& directory = place.hierarchy->directory(place.directory);
      const std::string of =
          fmt::format("{}directory /{}", place.hierarchy->is_joliet() ? "Joliet " : "",
                      place.hierarchy->path(place.directory));
      const std::uint32_t index = block_no(block) - directory.block;
      return index < directory.blocks
                 ? fmt::format("{}, block {}", of, index)
                 : fmt::format("{}, continuations {}", of, index - directory.blocks);
    }
    case Kind::catalog:
      return "boot catalogue";
    case Kind::file:
      return fmt::format("file /{} at {}", volume_.tree->path(place.file),
                         offset - place.start * kBlockBytes);
    case Kind::padding:
      return "padding";
    case Kind::behind:
      return "behind the volume";
  }
  std::unreachable();
}

std::string IsoImage::volume_id() const {
  const std::string_view digits = volume_.time_digits;
  std::string id(digits.substr(0, 4));
  for (std::size_t at = 4; at < digits.size(); at += 2) {
    id += '-';
    id += digits.substr(at, 2);
  }
  return id;
}

std::vector<ImageFact> IsoImage::facts() const {
  const Options& options = volume_.options;
  std::uint64_t continuations = 0;
  std::uint64_t directory_blocks = 0;
  for (const Hierarchy::IsoDirectory& directory : volume_.primary->directories()) {
    directory_blocks += directory.blocks;
    continuations += directory.continuation_blocks;
  }
  const Hierarchy* joliet = volume_.joliet.get();
  return {
      {"format", std::string("iso9660")},
      {"size_bytes", size_bytes()},
      {"label", volume_.label},
      {"volume_id", volume_id()},
      {"block_bytes", std::uint64_t{kBlockBytes}},
      {"volume_block_count", std::uint64_t{volume_.end.value()}},
      {"interchange_level", std::uint64_t{options.level}},
      {"directory_count", std::uint64_t{volume_.primary->directories().size()}},
      {"relocated_directory_count", std::uint64_t{volume_.primary->relocated_count()}},
      {"entry_count", volume_.primary->record_count()},
      {"numbered_name_count", volume_.primary->renamed_count()},
      {"directory_block_count", directory_blocks},
      {"continuation_block_count", continuations},
      {"path_table_bytes", std::uint64_t{volume_.primary->path_table_bytes()}},
      {"joliet_entry_count", joliet != nullptr ? joliet->record_count() : 0},
      {"joliet_numbered_name_count", joliet != nullptr ? joliet->renamed_count() : 0},
      {"joliet_left_out_count", joliet != nullptr ? joliet->left_out_count() : 0},
      {"duplicate_file_count", std::uint64_t{options.duplicates.size()}},
      {"first_file_block", std::uint64_t{volume_.files.first_block().value()}},
      {"patch_count", std::uint64_t{0}},
  };
}

std::string IsoImage::remark() const {
  std::string text;
  if (volume_.joliet) {
    const Hierarchy& joliet = *volume_.joliet;
    const std::uint64_t symlinks = joliet.left_out_symlink_count();
    const std::uint64_t others = joliet.left_out_count() - symlinks;
    if (symlinks != 0) text = counted(symlinks, "symlink", "symlinks");
    if (others != 0) {
      if (!text.empty()) text += ", ";
      text += counted(others, "special file", "special files");
    }
    if (!text.empty()) text = "left out of Joliet: " + text;
    if (joliet.changed_name_count() != 0) {
      text = joined_remarks(
          std::move(text),
          counted(joliet.changed_name_count(), "name was", "names were") + " changed in Joliet");
    }
  }
  return joined_remarks(std::move(text), source_remark(*volume_.tree));
}

void IsoImage::differences(DifferenceSink& sink) const {
  for (const Difference& link : volume_.options.followed) {
    if (!sink.difference(link)) return;
  }
  if (volume_.joliet && !volume_.joliet->differences(sink)) return;
  list_source_differences(*volume_.tree, sink);
}

}  // namespace mkvirtfs::iso9660
