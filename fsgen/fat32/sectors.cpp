// SPDX-License-Identifier: BSD-3-Clause
// The sectors of a volume that hold metadata: reserved ones, FATs, directories.
#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>
#include <string_view>

#include "fsgen/fat32/attribute_rules.h"
#include "fsgen/fat32/dos_time.h"
#include "fsgen/fat32/names.h"
#include "fsgen/fat32/volume.h"
#include "support/arithmetic.h"
#include "support/byte_order.h"

namespace mkvirtfs::fat32 {
namespace {

constexpr std::uint8_t kExtendedBootSignature = 0x29;

// Attributes of a directory entry that its kind decides.
constexpr std::uint8_t kVolumeLabel = 0x08;
constexpr std::uint8_t kIsDirectory = 0x10;
constexpr std::uint8_t kArchive = 0x20;
constexpr std::uint8_t kLongEntry = 0x0F;

void put_text(std::span<std::byte> out, std::size_t at, std::size_t size, std::string_view text) {
  std::ranges::fill(out.subspan(at, size), std::byte{' '});
  std::memcpy(out.data() + at, text.data(), text.size());
}

void put_signature(std::span<std::byte> sector) {
  sector[510] = std::byte{0x55};
  sector[511] = std::byte{0xAA};
}

/// fatgen103, "Boot Sector and BPB".
void write_boot_sector(const Volume& volume, std::span<std::byte> out) {
  const Layout& layout = volume.layout();
  const bool fat32 = layout.width == Width::fat32;
  const std::size_t code = fat32 ? 0x5A : 0x3E;
  out[0] = std::byte{0xEB};
  out[1] = static_cast<std::byte>(code - 2);
  out[2] = std::byte{0x90};
  put_text(out, 0x03, 8, "MSWIN4.1");  // what the specification recommends: some readers look
  store_le(out, 0x0B, static_cast<std::uint16_t>(layout.sector_bytes));
  out[0x0D] = static_cast<std::byte>(layout.sectors_per_cluster());
  store_le(out, 0x0E, static_cast<std::uint16_t>(layout.reserved_sectors));
  out[0x10] = static_cast<std::byte>(Layout::kFats);
  store_le(out, 0x11, static_cast<std::uint16_t>(layout.root_entries));
  const auto sectors = static_cast<std::uint32_t>(layout.total_sectors());
  if (!fat32 && sectors < 0x10000) {
    store_le(out, 0x13, static_cast<std::uint16_t>(sectors));
  } else {
    store_le(out, 0x20, sectors);
  }
  out[0x15] = static_cast<std::byte>(layout.media);
  if (!fat32) store_le(out, 0x16, static_cast<std::uint16_t>(layout.fat_sectors));
  store_le(out, 0x18, layout.sectors_per_track);
  store_le(out, 0x1A, layout.heads);
  store_le(out, 0x1C, volume.contents().options().hidden_sectors);
  std::size_t at = 0x24;
  if (fat32) {
    store_le(out, 0x24, layout.fat_sectors);
    store_le(out, 0x2C, volume.chain_start(Volume::chain_of(kFatRoot)).value());
    store_le(out, 0x30, static_cast<std::uint16_t>(kInfoSector));
    store_le(out, 0x32, static_cast<std::uint16_t>(kBackupSector));
    at = 0x40;
  }
  out[at] = layout.is_floppy() ? std::byte{0x00} : std::byte{0x80};  // the BIOS's drive number
  out[at + 2] = std::byte{kExtendedBootSignature};
  store_le(out, at + 3, volume.volume_id());
  const std::string& label = volume.contents().label();
  put_text(out, at + 7, 11, label.empty() ? "NO NAME" : std::string_view(label));
  put_text(out, at + 18, 8, fat32 ? "FAT32" : layout.width == Width::fat16 ? "FAT16" : "FAT12");
  // For those who start it all the same: INT 18h, "no system here", and stay.
  constexpr std::array<std::uint8_t, 5> kNoSystem = {0xCD, 0x18, 0xF4, 0xEB, 0xFD};
  std::memcpy(out.data() + code, kNoSystem.data(), kNoSystem.size());
  put_signature(out);
}

/// fatgen103, "FAT32 FSInfo Sector Structure".
void write_info_sector(const Volume& volume, std::span<std::byte> out) {
  constexpr std::uint32_t kUnknown = 0xFFFFFFFF;
  store_le(out, 0, std::uint32_t{0x41615252});
  store_le(out, 0x1E4, std::uint32_t{0x61417272});
  store_le(out, 0x1E8, volume.free_clusters());
  store_le(out, 0x1EC, volume.free_clusters() == 0 ? kUnknown : volume.used_end().value());
  put_signature(out);
}

/// The entries of a FAT, one after the other.
class FatWalk {
 public:
  FatWalk(const Volume& volume, ClusterNo first) : volume_(volume), at_(first) {
    if (at_ >= kFirstCluster && at_ < volume.used_end()) find_end();
  }

  /// The entry of the next cluster; the bits beyond the width are set where all are.
  std::uint32_t next() {
    constexpr std::uint32_t kEnd = 0x0FFFFFFF;
    const ClusterNo cluster = at_;
    ++at_;
    if (cluster == ClusterNo{0}) return 0x0FFFFF00u | volume_.layout().media;
    if (cluster == ClusterNo{1}) {
      // All ones: with "was unmounted" and "saw no disk errors" among them.
      if (at_ < volume_.used_end()) find_end();
      return kEnd;
    }
    if (cluster >= volume_.used_end()) return 0;
    if (at_ < chain_end_) return at_.value();
    if (at_ < volume_.used_end()) find_end();
    return kEnd;
  }

 private:
  void find_end() {
    // Chains are met in order: the next one that is not empty ends here.
    if (chain_end_ == ClusterNo{0}) {
      chain_ = volume_.chain_at(at_);
    } else {
      while (volume_.chain_end(chain_) <= at_) ++chain_;
    }
    chain_end_ = volume_.chain_end(chain_);
  }

  const Volume& volume_;
  ClusterNo at_;
  ChainNo chain_;
  ClusterNo chain_end_;
};

/// One directory entry of the classic kind (fatgen103, "FAT 32 Byte Directory Entry Structure").
struct ShortEntry {
  ShortName name;
  std::uint8_t attributes;
  std::uint8_t case_bits = 0;
  DosTime time;
  std::uint32_t cluster = 0;  // 0: none
  std::uint32_t size_bytes = 0;
};

void write_short_entry(const ShortEntry& entry, std::span<std::byte> out) {
  std::memcpy(out.data(), entry.name.data(), entry.name.size());
  out[0x0B] = static_cast<std::byte>(entry.attributes);
  out[0x0C] = static_cast<std::byte>(entry.case_bits);
  out[0x0D] = static_cast<std::byte>(entry.time.hundredths);
  store_le(out, 0x0E, entry.time.time);
  store_le(out, 0x10, entry.time.date);
  store_le(out, 0x12, entry.time.date);
  store_le(out, 0x14, static_cast<std::uint16_t>(entry.cluster >> 16));
  store_le(out, 0x16, entry.time.time);
  store_le(out, 0x18, entry.time.date);
  store_le(out, 0x1A, static_cast<std::uint16_t>(entry.cluster));
  store_le(out, 0x1C, entry.size_bytes);
}

/// One of the entries that say a long name: units 13 * (part - 1) and on.
struct LongEntry {
  std::span<const char16_t> units;  // of the whole name
  std::uint32_t part;               // from 1
  std::uint32_t parts;
  std::uint8_t checksum;
};

void write_long_entry(const LongEntry& entry, std::span<std::byte> out) {
  constexpr std::array<std::size_t, kUnitsPerSlot> kPlaces = {1,  3,  5,  7,  9,  14, 16,
                                                              18, 20, 22, 24, 28, 30};
  constexpr std::uint32_t kLast = 0x40;
  out[0x00] = static_cast<std::byte>(entry.part | (entry.part == entry.parts ? kLast : 0));
  out[0x0B] = std::byte{kLongEntry};
  out[0x0C] = std::byte{0};
  out[0x0D] = static_cast<std::byte>(entry.checksum);
  store_le(out, 0x1A, std::uint16_t{0});
  const std::size_t first = (entry.part - 1) * kUnitsPerSlot;
  for (std::size_t i = 0; i < kUnitsPerSlot; ++i) {
    const std::size_t at = first + i;
    const std::uint16_t unit = at < entry.units.size() ? static_cast<std::uint16_t>(entry.units[at])
                               : at == entry.units.size() ? 0x0000
                                                          : 0xFFFF;
    store_le(out, kPlaces[i], unit);
  }
}

ShortName dots(std::size_t count) noexcept {
  ShortName name;
  name.fill(' ');
  std::fill_n(name.begin(), count, '.');
  return name;
}

/// All slots of a directory, any part of which can be asked for.
class SlotWriter {
 public:
  SlotWriter(const Volume& volume, FatDirectoryNo directory)
      : volume_(volume),
        contents_(volume.contents()),
        directory_no_(directory),
        directory_(contents_.directory(directory)) {}

  void write(std::uint32_t first, std::span<std::byte> out) const {
    std::uint32_t slot = first;
    const auto take = [&] {
      const std::span<std::byte> one = out.first(kSlotBytes);
      out = out.subspan(kSlotBytes);
      ++slot;
      return one;
    };
    const std::uint32_t header = contents_.header_slots(directory_no_);
    while (!out.empty() && slot < header) {
      const std::uint32_t which = slot;
      write_header(which, take());
    }
    const auto items = contents_.items_of(directory_);
    if (slot >= directory_.slot_count) items_end(out);
    if (out.empty() || slot >= directory_.slot_count) return;
    const auto after = std::ranges::upper_bound(items, slot, {}, [](const Contents::Item& item) {
      return static_cast<std::uint32_t>(item.slot);
    });
    for (auto item = std::prev(after); !out.empty(); ++item) {
      if (item == items.end()) {
        items_end(out);
        return;
      }
      const Prepared prepared = prepare(*item);
      for (auto part = slot - static_cast<std::uint32_t>(item->slot);
           part <= prepared.long_slots && !out.empty(); ++part) {
        write_part(*item, prepared, part, take());
      }
    }
  }

 private:
  struct Prepared {
    LongName name;
    ShortForm form;
    ShortName short_name;
    std::uint32_t long_slots;
  };

  static void items_end(std::span<std::byte> out) { std::ranges::fill(out, std::byte{0}); }

  DosTime time_of(NodeNo node) const noexcept {
    return dos_time(contents_.tree().node(node).mtime(), contents_.options().time_zone);
  }

  void write_header(std::uint32_t slot, std::span<std::byte> out) const {
    if (directory_no_ == kFatRoot) {
      const Options& options = contents_.options();
      ShortEntry entry{.name = {}, .attributes = kVolumeLabel, .time = {}};
      entry.name.fill(' ');
      std::ranges::copy(contents_.label(), entry.name.begin());
      const Timestamp made =
          options.made_at_s ? Timestamp{*options.made_at_s, 0} : contents_.tree().newest_mtime();
      entry.time = dos_time(made, options.time_zone);
      write_short_entry(entry, out);
      return;
    }
    const FatDirectoryNo of = slot == 0 ? directory_no_ : directory_.parent;
    write_short_entry({.name = dots(slot + 1),
                       .attributes = kIsDirectory,
                       .time = time_of(contents_.node_of(of)),
                       .cluster = volume_.entry_cluster(Volume::chain_of(of))},
                      out);
  }

  Prepared prepare(const Contents::Item& item) const {
    Prepared prepared{contents_.name(directory_, item), {}, {}, 0};
    prepared.form = short_form(prepared.name.units());
    const auto tail = static_cast<std::uint32_t>(item.tail);
    prepared.short_name = tail == 0 ? prepared.form.name : with_tail(prepared.form, tail);
    prepared.long_slots = prepared.form.needs_long ? prepared.name.slots() : 0;
    return prepared;
  }

  void write_part(const Contents::Item& item, const Prepared& prepared, std::uint32_t part,
                  std::span<std::byte> out) const {
    if (part < prepared.long_slots) {
      // The last part of the name comes first.
      write_long_entry({.units = prepared.name.units(),
                        .part = prepared.long_slots - part,
                        .parts = prepared.long_slots,
                        .checksum = short_name_checksum(prepared.short_name)},
                       out);
      return;
    }
    const Node& node = contents_.node_of(item);
    const ItemNo no{static_cast<std::uint32_t>(&item - contents_.items().data())};
    std::uint8_t attributes = item.is_directory ? kIsDirectory : kArchive;
    // Of a directory that nobody may write Windows would think something else.
    if (!item.is_directory && (node.mode & 0222) == 0) attributes |= kReadOnly;
    attributes |= static_cast<std::uint8_t>(item.attributes);
    write_short_entry(
        {.name = prepared.short_name,
         .attributes = attributes,
         .case_bits = prepared.form.case_bits,
         .time = dos_time(node.mtime(), contents_.options().time_zone),
         .cluster = volume_.entry_cluster(item.is_directory ? Volume::chain_of(item.directory())
                                                            : volume_.chain_of(no)),
         .size_bytes = static_cast<std::uint32_t>(contents_.size_bytes(item))},
        out);
  }

  const Volume& volume_;
  const Contents& contents_;
  const FatDirectoryNo directory_no_;
  const Contents::FatDirectory& directory_;
};

}  // namespace

void write_reserved_sector(const Volume& volume, std::uint32_t sector, std::span<std::byte> out) {
  std::ranges::fill(out, std::byte{0});
  if (sector != 0 && volume.layout().width != Width::fat32) return;
  switch (sector < kBackupSector ? sector : sector - kBackupSector) {
    case 0:
      write_boot_sector(volume, out);
      break;
    case kInfoSector:
      write_info_sector(volume, out);
      break;
    case kSecondBootSector:
      put_signature(out);
      break;
    default:
      break;
  }
}

void write_fat_sector(const Volume& volume, std::uint32_t index, std::span<std::byte> out) {
  const auto first_entry = [&](std::size_t entries_per_sector) {
    return ClusterNo{static_cast<std::uint32_t>(index * entries_per_sector)};
  };
  switch (volume.layout().width) {
    case Width::fat12: {
      // Two entries stand in three bytes, and an entry may stand in two sectors.
      const std::uint64_t first_byte = std::uint64_t{index} * out.size();
      const std::uint64_t first_pair = first_byte / 3;
      FatWalk walk(volume, ClusterNo{static_cast<std::uint32_t>(2 * first_pair)});
      for (std::uint64_t at = first_pair * 3; at < first_byte + out.size(); at += 3) {
        const std::uint32_t low = walk.next() & 0xFFF;
        const std::uint32_t both = low | (walk.next() & 0xFFF) << 12;
        for (std::uint64_t byte = 0; byte < 3; ++byte) {
          if (at + byte >= first_byte && at + byte < first_byte + out.size()) {
            out[at + byte - first_byte] = static_cast<std::byte>(both >> (8 * byte));
          }
        }
      }
      return;
    }
    case Width::fat16: {
      FatWalk walk(volume, first_entry(out.size() / 2));
      for (std::size_t at = 0; at < out.size(); at += 2) {
        store_le(out, at, static_cast<std::uint16_t>(walk.next()));
      }
      return;
    }
    case Width::fat32: {
      FatWalk walk(volume, first_entry(out.size() / 4));
      for (std::size_t at = 0; at < out.size(); at += 4) store_le(out, at, walk.next());
      return;
    }
  }
}

std::uint64_t used_fat_bytes(const Volume& volume) noexcept {
  const std::uint64_t entries = volume.used_end().value();
  switch (volume.layout().width) {
    case Width::fat12:
      return ceil_div<std::uint64_t>(entries * 3, 2);
    case Width::fat16:
      return entries * 2;
    case Width::fat32:
      return entries * 4;
  }
  return 0;
}

void write_directory_sector(const Volume& volume, FatDirectoryNo directory, std::uint32_t index,
                            std::span<std::byte> out) {
  const auto slots = static_cast<std::uint32_t>(out.size() / kSlotBytes);
  SlotWriter(volume, directory).write(index * slots, out);
}

}  // namespace mkvirtfs::fat32
