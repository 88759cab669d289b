// SPDX-License-Identifier: BSD-3-Clause
//
// As a CD, firmware finds the boot catalogue, which leads to isolinux.bin; that finds itself by
// the table in it. As a disk, firmware runs the code in the first sector, which loads isolinux.bin
// from a sector that stands behind the code. The table of a hybrid has room in the system area, 64
// sectors of which a GPT takes the first 34.
#include "bootsect/isolinux.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <limits>
#include <utility>

#include "bootsect/eltorito.h"
#include "bootsect/gpt.h"
#include "bootsect/mbr.h"
#include "bootsect/partition_type.h"
#include "support/arithmetic.h"
#include "support/byte_order.h"

namespace mkvirtfs::bootsect {
namespace {

constexpr std::uint64_t kSector = 512;
constexpr std::uint32_t kSectorsPerBlock = kCdBlockBytes / kSector;

// In isolinux.bin: behind the boot information table, what says that isohybrid's code can start it.
constexpr std::size_t kHybridMark = 64;
constexpr std::uint32_t kHybridMagic = 0x7078C0FB;
constexpr std::size_t kMostLoaderBytes = 1u << 20;

// In the first sector.
constexpr std::size_t kHybridCodeBytes = 432;
constexpr std::size_t kLoaderSector = kHybridCodeBytes;
constexpr std::size_t kDiskId = 440;
constexpr std::size_t kEntry = 446;
constexpr std::size_t kSignature = 510;
constexpr std::uint32_t kHeads = 64;
constexpr std::uint32_t kSectorsPerTrack = 32;
constexpr std::uint64_t kMostCylinders = 1024;
constexpr std::byte kActive{0x80};
constexpr std::byte kHiddenNtfs{0x17};  // what systems leave alone
constexpr std::uint8_t kEfiType = 0xEF;
constexpr std::size_t kEntryBytes = 16;

std::unexpected<Error> fail_unknown(std::string_view what) {
  return fail(Errc::unsupported, fmt::format("not a piece of ISOLINUX: {}", what));
}

/// The image that UEFI starts, as a partition.
MbrPartition efi_partition(Range efi_image, bool is_active) {
  return {.type = kEfiType,
          .active = is_active,
          .first_sector = static_cast<std::uint32_t>(efi_image.offset / kSector),
          .sector_count = static_cast<std::uint32_t>(ceil_div(efi_image.length, kSector))};
}

/// The same in an MBR that has no GPT; firmware goes by sectors alone.
void put_efi_entry(std::span<std::byte> entry, Range efi_image) {
  constexpr std::array<std::byte, 3> kBehind{std::byte{0xFE}, std::byte{0xFF}, std::byte{0xFF}};
  const MbrPartition partition = efi_partition(efi_image, false);
  std::ranges::copy(kBehind, entry.begin() + 1);
  entry[4] = std::byte{kEfiType};
  std::ranges::copy(kBehind, entry.begin() + 5);
  store_le(entry, 8, partition.first_sector);
  store_le(entry, 12, partition.sector_count);
}

/// A GPT with that partition alone, and an MBR that shows it. `is_active`: a BIOS starts the image,
/// and some start no disk without an active partition.
Result<std::vector<Patch>> hybrid_table(std::uint64_t image_bytes, const IsoTable& table,
                                        bool is_active) {
  const Result<PartitionType> type = find_partition_type("esp", "");
  if (!type) return propagate(type);
  const MbrPartition partition = efi_partition(table.efi_image, is_active);
  GptTable gpt;
  gpt.sector_count = image_bytes / kSector;
  gpt.disk_id = table.ids.disk;
  gpt.partitions = {{.type = *type->guid,
                     .id = table.ids.partitions.front(),
                     .first_sector = partition.first_sector,
                     .sector_count = partition.sector_count,
                     .name = {}}};
  gpt.in_mbr = {partition};
  gpt.mbr_id = table.ids.mbr;
  return gpt_table(gpt);
}

/// For one that is longer than its count can say, firmware takes all up to the volume's end.
BootImage efi_boot_image(Range efi_image) {
  const std::uint64_t sectors = ceil_div(efi_image.length, kSector);
  const bool is_sayable = sectors <= std::numeric_limits<std::uint16_t>::max();
  return {.platform = BootPlatform::efi,
          .block = static_cast<std::uint32_t>(efi_image.offset / kCdBlockBytes),
          .loaded_sectors = static_cast<std::uint16_t>(is_sayable ? sectors : 0)};
}

Result<std::uint32_t> sectors_of(std::uint64_t image_bytes) {
  const std::uint64_t count = image_bytes / kSector;
  if (count <= std::numeric_limits<std::uint32_t>::max()) return static_cast<std::uint32_t>(count);
  return fail(Errc::does_not_fit,
              fmt::format("an isohybrid of {} bytes; its table ends at {}", image_bytes,
                          std::uint64_t{std::numeric_limits<std::uint32_t>::max()} * kSector));
}

std::span<const std::byte> bytes_of(const std::vector<std::byte>& all) noexcept { return all; }

/// What stands before the table: code, and the sector of what it loads.
std::vector<std::byte> isohybrid_code(std::span<const std::byte> hybrid_code,
                                      std::uint32_t loader_block) {
  std::vector<std::byte> bytes(hybrid_code.begin(), hybrid_code.end());
  bytes.resize(kMbrCodeBytes);
  store_le(std::span(bytes), kLoaderSector, std::uint64_t{loader_block} * kSectorsPerBlock);
  return bytes;
}

}  // namespace

std::uint64_t iso_gpt_tail_bytes() noexcept { return gpt_sectors_at_end(kSector) * kSector; }

Result<IsolinuxTemplate> check_isolinux(std::vector<std::byte> loader,
                                        std::vector<std::byte> hybrid_code) {
  if (loader.size() < kHybridMark + 4 || loader.size() > kMostLoaderBytes) {
    return fail_unknown(fmt::format("isolinux.bin of {} bytes", loader.size()));
  }
  if (load_le<std::uint32_t>(bytes_of(loader), kHybridMark) != kHybridMagic) {
    return fail_unknown("isolinux.bin without the mark that isohybrid looks for");
  }
  if (hybrid_code.size() != kHybridCodeBytes) {
    return fail_unknown(
        fmt::format("isohdpfx.bin of {} bytes, not {}", hybrid_code.size(), kHybridCodeBytes));
  }
  return IsolinuxTemplate{std::move(loader), std::move(hybrid_code)};
}

Result<std::vector<std::byte>> isohybrid_sector(std::span<const std::byte> hybrid_code,
                                                std::uint32_t loader_block, std::uint32_t disk_id,
                                                std::uint64_t image_bytes, Range efi_image) {
  assert(hybrid_code.size() == kHybridCodeBytes && image_bytes % kIsohybridAlignmentBytes == 0);
  const Result<std::uint32_t> sector_count = sectors_of(image_bytes);
  if (!sector_count) return propagate(sector_count);
  const auto last_cylinder = static_cast<std::uint32_t>(
      std::min(image_bytes / kIsohybridAlignmentBytes, kMostCylinders) - 1);
  std::vector<std::byte> sector = isohybrid_code(hybrid_code, loader_block);
  sector.resize(kSector);
  const std::span<std::byte> out(sector);
  store_le(out, kDiskId, disk_id);
  const std::span<std::byte> entry = out.subspan(kEntry);
  entry[0] = kActive;
  entry[2] = std::byte{1};  // cylinder 0, head 0, sector 1
  entry[4] = efi_image.length == 0 ? kHiddenNtfs : std::byte{0};
  entry[5] = static_cast<std::byte>(kHeads - 1);
  entry[6] = static_cast<std::byte>(kSectorsPerTrack | (last_cylinder & 0x300) >> 2);
  entry[7] = static_cast<std::byte>(last_cylinder & 0xFF);
  store_le(entry, 12, *sector_count);
  if (efi_image.length != 0) put_efi_entry(entry.subspan(kEntryBytes), efi_image);
  out[kSignature] = std::byte{0x55};
  out[kSignature + 1] = std::byte{0xAA};
  return sector;
}

Result<std::vector<Patch>> efi_iso_patches(const PlannedImage& image, const IsoTable& table) {
  const std::vector<Range> catalogue = image.structure("boot_catalogue");
  assert(!catalogue.empty() && table.efi_image.length != 0);
  if (const auto sectors = sectors_of(image.size_bytes()); !sectors) return propagate(sectors);
  auto catalogue_block = boot_catalogue(std::array{efi_boot_image(table.efi_image)});
  if (!catalogue_block) return propagate(catalogue_block);
  std::vector<Patch> patches;
  if (table.is_hybrid) {
    auto tables = hybrid_table(image.size_bytes(), table, false);
    if (!tables) return propagate(tables);
    patches = *std::move(tables);
  } else {
    std::vector<std::byte> bytes(kSector - kDiskId);
    const std::span<std::byte> out(bytes);
    store_le(out, 0, table.ids.mbr);
    put_efi_entry(out.subspan(kEntry - kDiskId), table.efi_image);
    out[kSignature - kDiskId] = std::byte{0x55};
    out[kSignature - kDiskId + 1] = std::byte{0xAA};
    patches.push_back({kDiskId, std::move(bytes), "partition table"});
  }
  patches.push_back(
      {catalogue.front().offset, *std::move(catalogue_block), "El Torito's boot catalogue"});
  return patches;
}

Result<std::vector<Patch>> isolinux_patches(const IsolinuxTemplate& from, const PlannedImage& image,
                                            std::string_view path, const IsoTable& table) {
  const std::vector<Range> catalogue = image.structure("boot_catalogue");
  if (catalogue.empty()) {
    return fail(Errc::unsupported, "ISOLINUX boots from ISO 9660", {{"fs", "iso"}});
  }
  const DataPlacement placed = image.data_at(path);
  const std::optional<std::uint64_t> at = placed.find(0);
  if (!at || placed.size_bytes != from.loader.size()) {
    return fail(Errc::usage,
                fmt::format("{}: not the loader's {} bytes", path, from.loader.size()));
  }
  const auto block = static_cast<std::uint32_t>(*at / kCdBlockBytes);
  const Range efi_image = table.efi_image;
  std::vector<BootImage> images{{.block = block}};
  if (efi_image.length != 0) images.push_back(efi_boot_image(efi_image));
  auto catalogue_block = boot_catalogue(images);
  if (!catalogue_block) return propagate(catalogue_block);
  auto sector =
      isohybrid_sector(from.hybrid_code, block, table.ids.mbr, image.size_bytes(), efi_image);
  if (!sector) return propagate(sector);
  std::vector<Patch> patches;
  if (table.is_hybrid && efi_image.length != 0) {
    auto tables = hybrid_table(image.size_bytes(), table, true);
    if (!tables) return propagate(tables);
    patches = *std::move(tables);
    patches.push_back({0, isohybrid_code(from.hybrid_code, block), "isohybrid's code"});
  } else {
    patches.push_back({0, *std::move(sector), "isohybrid's code and partition table"});
  }
  patches.push_back(
      {catalogue.front().offset, *std::move(catalogue_block), "El Torito's boot catalogue"});
  patches.push_back({*at + kBootInformationAt, boot_information_table(from.loader, block),
                     "boot information table"});
  return patches;
}

}  // namespace mkvirtfs::bootsect
