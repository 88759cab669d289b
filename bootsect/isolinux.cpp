// SPDX-License-Identifier: BSD-3-Clause
//
// As a CD, firmware finds the boot catalogue, which leads to isolinux.bin; that finds itself by
// the table in it. As a disk, firmware runs the code in the first sector, which loads isolinux.bin
// from a sector that stands behind the code.
#include "bootsect/isolinux.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <limits>
#include <utility>

#include "bootsect/eltorito.h"
#include "support/byte_order.h"

namespace mkvirtfs::bootsect {
namespace {

constexpr std::size_t kSector = 512;
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
constexpr std::byte kEfiType{0xEF};
constexpr std::size_t kEntryBytes = 16;

std::unexpected<Error> fail_unknown(std::string_view what) {
  return fail(Errc::unsupported, fmt::format("not a piece of ISOLINUX: {}", what));
}

/// A partition that is the image UEFI starts; firmware goes by sectors alone.
void put_efi_entry(std::span<std::byte> entry, Range efi_image) {
  constexpr std::array<std::byte, 3> kBehind{std::byte{0xFE}, std::byte{0xFF}, std::byte{0xFF}};
  std::ranges::copy(kBehind, entry.begin() + 1);
  entry[4] = kEfiType;
  std::ranges::copy(kBehind, entry.begin() + 5);
  store_le(entry, 8, static_cast<std::uint32_t>(efi_image.offset / kSector));
  store_le(entry, 12, static_cast<std::uint32_t>((efi_image.length + kSector - 1) / kSector));
}

/// For one that is longer than its count can say, firmware takes all up to the volume's end.
BootImage efi_boot_image(Range efi_image) {
  const std::uint64_t sectors = (efi_image.length + kSector - 1) / kSector;
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

}  // namespace

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
  std::vector<std::byte> sector(hybrid_code.begin(), hybrid_code.end());
  sector.resize(kSector);
  const std::span<std::byte> out(sector);
  store_le(out, kLoaderSector, std::uint64_t{loader_block} * kSectorsPerBlock);
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

Result<std::vector<Patch>> efi_iso_patches(const PlannedImage& image, std::uint32_t disk_id,
                                           Range efi_image) {
  const std::vector<Range> catalogue = image.structure("boot_catalogue");
  assert(!catalogue.empty() && efi_image.length != 0);
  if (const auto sectors = sectors_of(image.size_bytes()); !sectors) return propagate(sectors);
  auto catalogue_block = boot_catalogue(std::array{efi_boot_image(efi_image)});
  if (!catalogue_block) return propagate(catalogue_block);
  std::vector<std::byte> table(kSector - kDiskId);
  const std::span<std::byte> out(table);
  store_le(out, 0, disk_id);
  put_efi_entry(out.subspan(kEntry - kDiskId), efi_image);
  out[kSignature - kDiskId] = std::byte{0x55};
  out[kSignature - kDiskId + 1] = std::byte{0xAA};
  std::vector<Patch> patches;
  patches.push_back({kDiskId, std::move(table), "partition table"});
  patches.push_back(
      {catalogue.front().offset, *std::move(catalogue_block), "El Torito's boot catalogue"});
  return patches;
}

Result<std::vector<Patch>> isolinux_patches(const IsolinuxTemplate& from, const PlannedImage& image,
                                            std::string_view path, std::uint32_t disk_id,
                                            Range efi_image) {
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
  std::vector<BootImage> images{{.block = block}};
  if (efi_image.length != 0) images.push_back(efi_boot_image(efi_image));
  auto catalogue_block = boot_catalogue(images);
  if (!catalogue_block) return propagate(catalogue_block);
  auto sector = isohybrid_sector(from.hybrid_code, block, disk_id, image.size_bytes(), efi_image);
  if (!sector) return propagate(sector);
  std::vector<Patch> patches;
  patches.push_back({0, *std::move(sector), "isohybrid's code and partition table"});
  patches.push_back(
      {catalogue.front().offset, *std::move(catalogue_block), "El Torito's boot catalogue"});
  patches.push_back({*at + kBootInformationAt, boot_information_table(from.loader, block),
                     "boot information table"});
  return patches;
}

}  // namespace mkvirtfs::bootsect
