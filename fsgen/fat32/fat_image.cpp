// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/fat32/fat_image.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>
#include <utility>

#include "fsgen/tree/source_differences.h"
#include "support/arithmetic.h"

namespace mkvirtfs::fat32 {
FatImage::FatImage(std::unique_ptr<const Contents> contents, const Layout& layout,
                   std::uint32_t volume_id, std::uint64_t size_bytes, bool root_room_gave_way)
    : contents_(std::move(contents)),
      volume_(*contents_, layout, volume_id),
      size_bytes_(size_bytes),
      root_room_gave_way_(root_room_gave_way) {
  assert(size_bytes_ >= layout.size_bytes());
}

FatImage::Place FatImage::reserved_place(std::uint64_t offset) const noexcept {
  const Layout& layout = volume_.layout();
  const std::uint64_t sector_bytes = layout.sector_bytes;
  Place place{.kind = Kind::reserved,
              .end = layout.reserved_sectors * sector_bytes,
              .data_end = sector_bytes};
  if (layout.width != Width::fat32) return place;
  const std::uint64_t backup = kBackupSector * sector_bytes;
  if (offset < backup) {
    place.end = backup;
  } else {
    place.start = backup;
  }
  place.data_end = place.start + kBackedUpSectors * sector_bytes;
  return place;
}

FatImage::Place FatImage::cluster_place(std::uint64_t offset) const noexcept {
  const Layout& layout = volume_.layout();
  const std::uint64_t at = offset - layout.cluster_offset(kFirstCluster);
  const ClusterNo cluster = kFirstCluster + static_cast<std::uint32_t>(at / layout.cluster_bytes);
  const ChainNo chain = volume_.chain_at(cluster);
  Place place{.start = layout.cluster_offset(volume_.chain_start(chain)),
              .end = layout.cluster_offset(volume_.chain_end(chain))};
  if (chain < volume_.first_item_chain()) {
    place.kind = Kind::directory;
    place.directory = volume_.directory_of(chain);
    place.data_end = place.start + directory_bytes(place.directory);
  } else {
    place.kind = Kind::file;
    place.item = volume_.item_of(chain);
    place.data_end = place.start + contents_->size_bytes(contents_->item(place.item));
  }
  return place;
}

FatImage::Place FatImage::place_of(std::uint64_t offset) const noexcept {
  const Layout& layout = volume_.layout();
  const std::uint64_t sector_bytes = layout.sector_bytes;
  const std::uint64_t fats = layout.reserved_sectors * sector_bytes;
  if (offset < fats) return reserved_place(offset);
  const std::uint64_t root = layout.root_start() * sector_bytes;
  if (offset < root) {
    const std::uint64_t fat_bytes = layout.fat_sectors * sector_bytes;
    const auto fat = static_cast<std::uint32_t>((offset - fats) / fat_bytes);
    const std::uint64_t start = fats + fat * fat_bytes;
    return {.kind = Kind::fat,
            .start = start,
            .end = start + fat_bytes,
            .data_end = start + round_up(used_fat_bytes(volume_), sector_bytes),
            .fat = fat};
  }
  const std::uint64_t data = layout.data_start() * sector_bytes;
  if (offset < data) {
    return {.kind = Kind::root_directory,
            .start = root,
            .end = data,
            .data_end = root + directory_bytes(kFatRoot)};
  }
  const std::uint64_t free = layout.cluster_offset(volume_.used_end());
  if (offset < free) return cluster_place(offset);
  const std::uint64_t end = layout.size_bytes();
  if (offset < end) return {.kind = Kind::unused, .start = free, .end = end, .data_end = free};
  return {.kind = Kind::behind, .start = end, .end = size_bytes_, .data_end = end};
}

std::uint64_t FatImage::directory_bytes(FatDirectoryNo directory) const noexcept {
  const std::uint64_t slots = contents_->directory(directory).slot_count;
  return round_up(slots * kSlotBytes, std::uint64_t{volume_.layout().sector_bytes});
}

Region FatImage::region_at(std::uint64_t offset) const {
  const Place place = place_of(offset);
  const Range range{place.start, place.end - place.start};
  const std::uint64_t data_bytes = place.data_end - place.start;
  if (place.kind != Kind::file) return Region::computed(range, data_bytes);
  return {.kind = Region::Kind::file,
          .range = range,
          .data_bytes = data_bytes,
          .file = contents_->item(place.item).node(),
          .has_holes = true};
}

void FatImage::write_block(std::uint64_t sector, std::span<std::byte> out) const {
  const std::uint64_t offset = sector * out.size();
  const Place place = place_of(offset);
  const auto index = static_cast<std::uint32_t>((offset - place.start) / out.size());
  switch (place.kind) {
    case Kind::reserved:
      write_reserved_sector(volume_, static_cast<std::uint32_t>(sector), out);
      return;
    case Kind::fat:
      write_fat_sector(volume_, index, out);
      return;
    case Kind::root_directory:
    case Kind::directory:
      write_directory_sector(volume_, place.directory, index, out);
      return;
    case Kind::file:
    case Kind::unused:
    case Kind::behind:
      assert(false && "not a computed sector");
      std::ranges::fill(out, std::byte{0});
      return;
  }
}

FatDirectoryNo FatImage::directory_of(ItemNo item) const noexcept {
  // Directories have their items in the order of their own numbers.
  const auto directories = contents_->directories();
  const auto after =
      std::ranges::upper_bound(directories, item, {}, &Contents::FatDirectory::first_item);
  return FatDirectoryNo{static_cast<std::uint32_t>(after - directories.begin()) - 1};
}

std::string FatImage::path_of(ItemNo item) const {
  return contents_->path(directory_of(item), contents_->item(item).entry);
}

std::string FatImage::describe(std::uint64_t offset) const {
  const Layout& layout = volume_.layout();
  const Place place = place_of(offset);
  const std::uint64_t sector = offset / layout.sector_bytes;
  switch (place.kind) {
    case Kind::reserved: {
      const bool copy = sector >= kBackupSector && sector < kBackupSector + kBackedUpSectors;
      if (sector != 0 && layout.width != Width::fat32) return "reserved";
      switch (copy ? sector - kBackupSector : sector) {
        case 0:
          return copy ? "copy of the boot sector" : "boot sector";
        case 1:
          return copy ? "copy of FSInfo" : "FSInfo";
        case 2:
          return copy ? "copy of the second boot sector" : "second boot sector";
        default:
          return "reserved";
      }
    }
    case Kind::fat: {
      const std::uint64_t bits = layout.width == Width::fat12   ? 12
                                 : layout.width == Width::fat16 ? 16
                                                                : 32;
      const std::uint64_t first = (sector * layout.sector_bytes - place.start) * 8 / bits;
      const std::uint64_t end =
          ceil_div<std::uint64_t>(((sector + 1) * layout.sector_bytes - place.start) * 8, bits);
      return fmt::format("FAT {}, entries {}-{}", place.fat + 1, first, end - 1);
    }
    case Kind::root_directory:
    case Kind::directory:
      return fmt::format("directory /{}, entries {}-{}", contents_->path(place.directory),
                         (sector * layout.sector_bytes - place.start) / kSlotBytes,
                         ((sector + 1) * layout.sector_bytes - place.start) / kSlotBytes - 1);
    case Kind::file:
      return fmt::format("file /{} at {}", path_of(place.item), offset - place.start);
    case Kind::unused:
      return "free";
    case Kind::behind:
      return "behind the file system";
  }
  std::unreachable();
}

std::vector<ImageFact> FatImage::facts() const {
  const Layout& layout = volume_.layout();
  std::uint64_t directories = 0;
  for (const Contents::Item& item : contents_->items()) directories += item.is_directory;
  return {
      {"format", std::string(name_of(layout.width))},
      {"size_bytes", size_bytes_},
      {"label", contents_->label()},
      {"volume_id", volume_id()},
      {"sector_bytes", std::uint64_t{layout.sector_bytes}},
      {"cluster_bytes", std::uint64_t{layout.cluster_bytes}},
      {"cluster_count", std::uint64_t{layout.cluster_count}},
      {"free_cluster_count", std::uint64_t{volume_.free_clusters()}},
      {"reserved_sector_count", std::uint64_t{layout.reserved_sectors}},
      {"fat_sector_count", std::uint64_t{layout.fat_sectors}},
      {"root_entry_count", std::uint64_t{layout.root_entries}},
      {"hidden_sector_count", std::uint64_t{contents_->options().hidden_sectors}},
      {"directory_count", directories + 1},
      {"file_count", contents_->items().size() - directories},
      {"mapped_name_count", contents_->mapped_count()},
      {"followed_symlink_count", contents_->followed_count()},
      {"skipped_count", std::uint64_t{contents_->skipped().size()}},
  };
}

std::string FatImage::remark() const {
  struct Group {
    std::string_view one, many;
    std::vector<Reason> reasons;
  };
  static const std::array<Group, 6> kGroups = {{
      {"symlink",
       "symlinks",
       {Reason::symlink, Reason::symlink_dangling, Reason::symlink_outside, Reason::symlink_loop}},
      {"device", "devices", {Reason::character_device, Reason::block_device}},
      {"FIFO or socket", "FIFOs and sockets", {Reason::fifo, Reason::socket}},
      {"name that is not UTF-8", "names that are not UTF-8", {Reason::not_utf8}},
      {"name that differs only in case", "names that differ only in case", {Reason::case_clash}},
      {"entry too large for FAT",
       "entries too large for FAT",
       {Reason::too_large, Reason::directory_full}},
  }};
  std::string skipped;
  for (const Group& group : kGroups) {
    std::uint64_t count = 0;
    for (const Reason reason : group.reasons) count += contents_->skipped_count(reason);
    if (count == 0) continue;
    if (!skipped.empty()) skipped += ", ";
    skipped += counted(count, group.one, group.many);
  }
  std::string text;
  if (!skipped.empty()) text = "left out: " + skipped;
  if (contents_->mapped_count() != 0) {
    text += fmt::format("{}{} mapped", text.empty() ? "" : "; ",
                        counted(contents_->mapped_count(), "name was", "names were"));
  }
  return joined_remarks(std::move(text), source_remark(contents_->tree()));
}

void FatImage::differences(DifferenceSink& sink) const {
  if (!list_format_differences(sink)) return;
  list_source_differences(contents_->tree(), sink);
}

bool FatImage::list_format_differences(DifferenceSink& sink) const {
  for (const Contents::Skipped& skipped : contents_->skipped()) {
    if (!sink.difference({"skipped", contents_->path(skipped.directory, skipped.entry),
                          std::string(words_of(skipped.reason))})) {
      return false;
    }
  }
  if (contents_->mapped_count() == 0 && contents_->followed_count() == 0) return true;
  const auto directories = contents_->directories();
  for (FatDirectoryNo d; d.value() < directories.size(); ++d) {
    const Contents::FatDirectory& directory = contents_->directory(d);
    for (const Contents::Item& item : contents_->items_of(directory)) {
      const LongName name = contents_->name(directory, item);
      if (name.is_mapped() && !sink.difference({"mapped", contents_->path(d, item.entry),
                                                "is named " + readable_name(name.units())})) {
        return false;
      }
      if (contents_->is_followed(directory, item) &&
          !sink.difference(
              {"followed", contents_->path(d, item.entry),
               "is a copy of /" + contents_->tree().path(item.is_directory
                                                             ? contents_->node_of(item.directory())
                                                             : item.node())})) {
        return false;
      }
    }
  }
  return true;
}

}  // namespace mkvirtfs::fat32
