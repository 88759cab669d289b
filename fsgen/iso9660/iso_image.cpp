// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/iso9660/iso_image.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>
#include <iterator>
#include <string>
#include <utility>

#include "fsgen/tree/source_differences.h"

namespace mkvirtfs::iso9660 {
namespace {

constexpr std::uint64_t offset_of(std::uint32_t block) {
  return std::uint64_t{block} * kBlockBytes;
}

}  // namespace

Extent IsoImage::file_extent(const FilePlaces::Run& run, std::uint64_t offset) const {
  const std::uint64_t start = offset_of(run.block);
  const std::uint64_t at = offset - start;
  Extent extent;
  Range dense;
  const auto runs = volume_.tree->data_runs(run.node, dense);
  const auto after = std::ranges::upper_bound(runs, at, {}, &Range::offset);
  if (after != runs.begin() && std::prev(after)->end() > at) {
    const Range& data = *std::prev(after);
    extent.kind = ExtentKind::content;
    extent.offset = start + data.offset;
    extent.length = data.length;
    extent.content = ContentNo{run.node};
    extent.content_offset = data.offset;
    return extent;
  }
  extent.offset = start + (after == runs.begin() ? 0 : std::prev(after)->end());
  extent.length =
      (after == runs.end() ? offset_of(run.block + run.blocks) : start + after->offset) -
      extent.offset;
  return extent;
}

Extent IsoImage::extent_at(std::uint64_t offset) const {
  const auto stretch = [](ExtentKind kind, std::uint64_t begin, std::uint64_t end) {
    Extent extent;
    extent.kind = kind;
    extent.offset = begin;
    extent.length = end - begin;
    return extent;
  };
  const std::uint64_t metadata = offset_of(kSystemBlocks);
  const std::uint64_t behind_metadata = offset_of(metadata_end());
  if (offset < metadata) return stretch(ExtentKind::hole, 0, metadata);
  if (offset < behind_metadata) return stretch(ExtentKind::computed, metadata, behind_metadata);
  const std::uint64_t files = offset_of(volume_.files.first_block());
  if (offset < files) return stretch(ExtentKind::hole, behind_metadata, files);
  const std::uint64_t behind_files = offset_of(volume_.files.end_block());
  if (offset >= behind_files) return stretch(ExtentKind::hole, behind_files, size_bytes());
  const auto block = static_cast<std::uint32_t>(offset / kBlockBytes);
  const auto run = volume_.files.run_at(block);
  if (!run) return stretch(ExtentKind::hole, offset_of(block), offset_of(block + 1));
  return file_extent(*run, offset);
}

Extent IsoImage::patched(const Extent& extent, std::uint64_t offset) const {
  const auto after = std::ranges::upper_bound(volume_.patches, offset, {}, &Patch::offset);
  if (after != volume_.patches.begin()) {
    const Patch& patch = *std::prev(after);
    if (offset - patch.offset < patch.bytes.size()) {
      Extent memory;
      memory.kind = ExtentKind::memory;
      memory.offset = patch.offset;
      memory.length = patch.bytes.size();
      memory.memory = patch.bytes.data();
      return memory;
    }
  }
  if (after == volume_.patches.end() || after->offset >= extent.end()) return extent;
  return extent.clipped(offset, after->offset);
}

void IsoImage::map(Range range, ExtentSink& sink) const {
  assert(range.end() <= size_bytes());
  Extent pending;  // neighbours of one kind are told as one, but for those that name a file
  std::uint64_t at = range.offset;
  while (at < range.end()) {
    const Extent extent = patched(extent_at(at), at).clipped(at, range.end());
    at = extent.end();
    const bool joins = pending.length > 0 && pending.kind == extent.kind &&
                       extent.kind != ExtentKind::content && extent.kind != ExtentKind::memory;
    if (joins) {
      pending.length += extent.length;
      continue;
    }
    if (pending.length > 0 && !sink.extent(pending)) return;
    pending = extent;
  }
  if (pending.length > 0) sink.extent(pending);
}

void IsoImage::compute(std::uint64_t offset, std::span<std::byte> out) const {
  std::array<std::byte, kBlockBytes> scratch;
  while (!out.empty()) {
    const auto block = static_cast<std::uint32_t>(offset / kBlockBytes);
    const std::size_t skip = offset % kBlockBytes;
    const std::size_t length = std::min<std::size_t>(kBlockBytes - skip, out.size());
    if (length == kBlockBytes) {
      write_metadata_block(volume_, block, out.first(kBlockBytes));
    } else {
      write_metadata_block(volume_, block, scratch);
      std::memcpy(out.data(), scratch.data() + skip, length);
    }
    offset += length;
    out = out.subspan(length);
  }
}

std::string IsoImage::describe_directory(const Hierarchy& hierarchy, std::uint32_t block) const {
  const std::uint32_t number = hierarchy.directory_at(block);
  const Hierarchy::Directory& directory = hierarchy.directories()[number];
  const std::uint32_t index = block - directory.block;
  const std::string of = fmt::format("{}directory /{}", hierarchy.is_joliet() ? "Joliet " : "",
                                     hierarchy.path(number));
  return index < directory.blocks
             ? fmt::format("{}, block {}", of, index)
             : fmt::format("{}, continuations {}", of, index - directory.blocks);
}

std::string IsoImage::describe(std::uint64_t offset) const {
  const auto block = static_cast<std::uint32_t>(offset / kBlockBytes);
  if (block < kSystemBlocks) return "system area";
  if (block == kSystemBlocks) return "primary volume descriptor";
  if (block == volume_.boot_record) return "boot record";
  if (block == volume_.joliet_descriptor) return "Joliet volume descriptor";
  if (block == volume_.terminator) return "volume descriptor set terminator";
  if (block < volume_.path_tables_end) {
    std::size_t table = volume_.joliet ? 3 : 1;
    while (block < volume_.path_tables[table]) --table;
    return fmt::format("{}path table {}, block {}", table >= 2 ? "Joliet " : "",
                       table % 2 == 0 ? "L" : "M", block - volume_.path_tables[table]);
  }
  if (block < volume_.primary->end_block()) return describe_directory(*volume_.primary, block);
  if (block < metadata_end()) return describe_directory(*volume_.joliet, block);
  if (volume_.catalog != 0 && block == volume_.catalog) return "boot catalogue";
  if (block >= volume_.end) return "behind the volume";
  if (block >= volume_.files.first_block() && block < volume_.files.end_block()) {
    if (const auto run = volume_.files.run_at(block)) {
      return fmt::format("file /{} at {}", volume_.tree->path(run->node),
                         offset - offset_of(run->block));
    }
  }
  return "padding";
}

std::uint64_t IsoImage::described_end(std::uint64_t offset) const {
  const auto block = static_cast<std::uint32_t>(offset / kBlockBytes);
  if (block < kSystemBlocks) return offset_of(kSystemBlocks);
  if (block >= volume_.end) return size_bytes();
  if (block >= volume_.files.end_block()) return offset_of(volume_.end);
  if (block >= volume_.files.first_block()) {
    const auto run = volume_.files.run_at(block);
    return offset_of(run ? run->block + run->blocks : block + 1);
  }
  const auto directory_end = [&](const Hierarchy& hierarchy) {
    const Hierarchy::Directory& directory = hierarchy.directories()[hierarchy.directory_at(block)];
    const std::uint32_t records_end = directory.block + directory.blocks;
    return offset_of(block < records_end ? records_end
                                         : records_end + directory.continuation_blocks);
  };
  if (block >= volume_.path_tables_end && block < volume_.primary->end_block()) {
    return directory_end(*volume_.primary);
  }
  if (block >= volume_.path_tables_end && block < metadata_end()) {
    return directory_end(*volume_.joliet);
  }
  return offset_of(block + 1);
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
      {"patch_count", std::uint64_t{volume_.patches.size()}},
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
