// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/iso9660/iso_image.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <string>
#include <utility>

#include "fsgen/tree/source_differences.h"

namespace mkvirtfs::iso9660 {
namespace {

constexpr Range bytes_of(std::uint64_t first_block, std::uint64_t end_block) {
  return {first_block * kBlockBytes, (end_block - first_block) * kBlockBytes};
}

}  // namespace

IsoImage::Place IsoImage::place_before_directories(std::uint32_t block) const noexcept {
  const auto alone = [&](Kind kind, std::uint32_t which = 0) -> Place {
    return {kind, block, block + 1, which};
  };
  if (block < kSystemBlocks) return {Kind::system_area, 0, kSystemBlocks};
  if (block == kSystemBlocks) return alone(Kind::primary_descriptor);
  if (block == volume_.boot_record) return alone(Kind::boot_record);
  if (block == volume_.joliet_descriptor) return alone(Kind::joliet_descriptor);
  if (block == volume_.terminator) return alone(Kind::terminator);
  std::uint32_t table = volume_.joliet ? 3 : 1;
  while (block < volume_.path_tables[table]) --table;
  return alone(Kind::path_table, table);
}

IsoImage::Place IsoImage::place_in(const Hierarchy& hierarchy, std::uint32_t block) const noexcept {
  const std::uint32_t number = hierarchy.directory_at(block);
  const Hierarchy::Directory& directory = hierarchy.directories()[number];
  const std::uint32_t records_end = directory.block + directory.blocks;
  if (block < records_end) {
    return {Kind::directory, directory.block, records_end, number, &hierarchy};
  }
  return {Kind::directory, records_end, records_end + directory.continuation_blocks, number,
          &hierarchy};
}

IsoImage::Place IsoImage::place_of(std::uint64_t at) const noexcept {
  if (at >= volume_.end) return {Kind::behind, volume_.end, size_bytes() / kBlockBytes};
  const auto block = static_cast<std::uint32_t>(at);
  if (block < volume_.path_tables_end) return place_before_directories(block);
  if (block < volume_.primary->end_block()) return place_in(*volume_.primary, block);
  if (block < metadata_end()) return place_in(*volume_.joliet, block);
  if (volume_.catalog != 0 && block == volume_.catalog) return {Kind::catalog, block, at + 1};
  if (block >= volume_.files.end_block()) {
    return {Kind::padding, volume_.files.end_block(), volume_.end};
  }
  const auto run = volume_.files.run_at(block);
  if (!run) return {Kind::padding, block, at + 1};  // between boot files
  return {Kind::file, run->block, std::uint64_t{run->block} + run->blocks, run->node};
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
              .data_bytes = volume_.tree->node(NodeNo{place.which}).size_bytes,
              .file = NodeNo{place.which},
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
    case Kind::path_table: {
      const Hierarchy& hierarchy = place.which >= 2 ? *volume_.joliet : *volume_.primary;
      const std::uint64_t index = block - volume_.path_tables[place.which];
      hierarchy.write_path_table(static_cast<std::uint32_t>(index), place.which % 2 == 1, out);
      return;
    }
    case Kind::directory: {
      const std::uint64_t index = block - place.hierarchy->directories()[place.which].block;
      place.hierarchy->write_block(place.which, static_cast<std::uint32_t>(index), volume_.files,
                                   out);
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
      return fmt::format("{}path table {}, block {}", place.which >= 2 ? "Joliet " : "",
                         place.which % 2 == 0 ? "L" : "M",
                         block - volume_.path_tables[place.which]);
    case Kind::directory: {
      const Hierarchy::Directory& directory = place.hierarchy->directories()[place.which];
      const std::string of =
          fmt::format("{}directory /{}", place.hierarchy->is_joliet() ? "Joliet " : "",
                      place.hierarchy->path(place.which));
      const std::uint64_t index = block - directory.block;
      return index < directory.blocks
                 ? fmt::format("{}, block {}", of, index)
                 : fmt::format("{}, continuations {}", of, index - directory.blocks);
    }
    case Kind::catalog:
      return "boot catalogue";
    case Kind::file:
      return fmt::format("file /{} at {}", volume_.tree->path(NodeNo{place.which}),
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
  for (const Hierarchy::Directory& directory : volume_.primary->directories()) {
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
      {"volume_block_count", std::uint64_t{volume_.end}},
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
      {"first_file_block", std::uint64_t{volume_.files.first_block()}},
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
  if (volume_.joliet && !volume_.joliet->differences(sink)) return;
  list_source_differences(*volume_.tree, sink);
}

}  // namespace mkvirtfs::iso9660
