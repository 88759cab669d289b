// SPDX-License-Identifier: BSD-3-Clause
//
// The loader has a header at 0x18, which begins with a magic number and leads to a second one with
// the places of all that an installer fills in: the sectors of the loader itself, its directory,
// the two sectors of its settings (ADV). The boot sector finds the first sector of the loader, this
// finds the others. A checksum covers the loader. docs/layout-boot.md has the table.
//
// In an installer's program both are arrays. The loader's end is found by two signs together: the
// last sector ends with the end mark of compressed code (0x11, then zeroes only), and the length, a
// multiple of 512, is a number in the program.
#include "bootsect/syslinux.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "support/byte_order.h"

namespace mkvirtfs::bootsect {
namespace {

constexpr std::size_t kSector = 512;
constexpr std::size_t kAdvSectors = 2;
constexpr std::uint32_t kMagic = 0x3EB202FE;

// In the loader.
constexpr std::string_view kBanner = "\r\nSYSLINUX ";
constexpr std::size_t kHeader = 0x18;
constexpr std::size_t kDataSectors = kHeader + 8;
constexpr std::size_t kAdvSectorCount = kHeader + 10;
constexpr std::size_t kDwords = kHeader + 12;
constexpr std::size_t kChecksum = kHeader + 16;
constexpr std::size_t kMaxTransfer = kHeader + 20;
constexpr std::size_t kPlaces = kHeader + 22;
constexpr std::size_t kExtentBytes = 10;
constexpr std::size_t kFewestLoaderBytes = 16u << 10;
constexpr std::size_t kMostLoaderBytes = 256u << 10;

// In the boot sector.
constexpr std::size_t kSectorMagic = 0x1F8;
constexpr std::size_t kSignature = 0x1FE;
constexpr std::size_t kHeadBytes = 0x0B;  // jump and name, before the BPB
constexpr std::size_t kCode = 0x5A;       // behind the BPB of FAT32, for all widths

using Bytes = std::span<const std::byte>;

/// Where an installer fills in what (syslxint.h, struct ext_patch_area). The last two are places of
/// the boot sector.
struct Places {
  std::size_t adv;
  std::size_t directory;
  std::size_t directory_bytes;
  std::size_t extents;
  std::size_t extent_count;
  std::size_t first_sector_low;
  std::size_t first_sector_high;
  std::size_t raid;
};

/// nullopt when they do not lie inside.
std::optional<Places> places_of(Bytes loader) noexcept {
  constexpr std::size_t kPlacesBytes = 22;
  const std::size_t at = load_le<std::uint16_t>(loader, kPlaces);
  if (at + kPlacesBytes > loader.size()) return std::nullopt;
  const auto field = [&](std::size_t number) {
    return std::size_t{load_le<std::uint16_t>(loader, at + 2 * number)};
  };
  const Places places{.adv = field(0),
                      .directory = field(1),
                      .directory_bytes = field(2),
                      .extents = field(5),
                      .extent_count = field(6),
                      .first_sector_low = field(7),
                      .first_sector_high = field(8),
                      .raid = field(9)};
  const bool inside =
      places.adv + 16 <= loader.size() && places.directory_bytes != 0 &&
      places.directory + places.directory_bytes <= loader.size() && places.extents > kPlaces &&
      places.extents + places.extent_count * kExtentBytes <= loader.size() &&
      places.first_sector_low >= kCode && places.first_sector_high >= kCode &&
      places.raid >= kCode && places.first_sector_low + 4 <= kSectorMagic &&
      places.first_sector_high + 4 <= kSectorMagic && places.raid + 2 <= kSectorMagic;
  return inside ? std::optional(places) : std::nullopt;
}

bool has_text(Bytes bytes, std::string_view text) noexcept {
  return bytes.size() >= text.size() && std::memcmp(bytes.data(), text.data(), text.size()) == 0;
}

std::unexpected<Error> fail_unknown(std::string_view why) {
  return fail(Errc::unsupported, fmt::format("not an installer of SYSLINUX 6.04: {}", why));
}

/// The one place where `is_here(rest)` holds; nullopt when there is none, or several.
template <class IsHere>
std::optional<std::size_t> only_place(Bytes bytes, std::size_t fewest, IsHere&& is_here) {
  std::optional<std::size_t> found;
  for (std::size_t at = 0; at + fewest <= bytes.size(); ++at) {
    if (!is_here(bytes.subspan(at))) continue;
    if (found) return std::nullopt;
    found = at;
  }
  return found;
}

bool is_boot_sector(Bytes rest) noexcept {
  return rest[0] == std::byte{0xEB} && rest[kSignature] == std::byte{0x55} &&
         rest[kSignature + 1] == std::byte{0xAA} && has_text(rest.subspan(3), "SYSLINUX") &&
         load_le<std::uint32_t>(rest, kSectorMagic) == kMagic;
}

bool is_loader(Bytes rest) noexcept {
  return rest[0] == std::byte{'\r'} && has_text(rest, kBanner) &&
         load_le<std::uint32_t>(rest, kHeader) == kMagic;
}

bool ends_compressed(Bytes sector) noexcept {
  const auto last = std::find_if(sector.rbegin(), sector.rend(),
                                 [](std::byte byte) { return byte != std::byte{0}; });
  // Two zeroes at least are a part of the mark.
  return last != sector.rend() && *last == std::byte{0x11} && last - sector.rbegin() >= 2;
}

/// Multiples of a sector that stand in the program as aligned numbers and may be a length.
std::vector<std::size_t> lengths_in(Bytes installer) {
  std::vector<std::size_t> lengths;
  for (std::size_t at = 0; at + 4 <= installer.size(); at += 4) {
    const std::size_t value = load_le<std::uint32_t>(installer, at);
    if (value % kSector == 0 && value >= kFewestLoaderBytes && value <= kMostLoaderBytes) {
      lengths.push_back(value);
    }
  }
  std::ranges::sort(lengths);
  const auto doubles = std::ranges::unique(lengths);
  lengths.erase(doubles.begin(), doubles.end());
  return lengths;
}

/// A sector of settings that has none: the sum of its words between the marks is the second one.
void append_adv(std::vector<std::byte>& out) {
  std::vector<std::byte> adv(kSector);
  const std::span<std::byte> bytes(adv);
  store_le(bytes, 0x000, std::uint32_t{0x5A2D2FA5});
  store_le(bytes, 0x004, std::uint32_t{0xA3041767});
  store_le(bytes, 0x1FC, std::uint32_t{0xDD28BF64});
  for (std::size_t copy = 0; copy < kAdvSectors; ++copy) {
    out.insert(out.end(), adv.begin(), adv.end());
  }
}

/// Stretches of sectors that follow each other; false when they are too many.
bool put_extents(std::span<std::byte> out, std::span<const std::uint64_t> sectors) {
  std::ranges::fill(out, std::byte{0});
  while (!sectors.empty()) {
    if (out.empty()) return false;
    std::size_t count = 1;
    while (count < sectors.size() && sectors[count] == sectors[0] + count) ++count;
    store_le(out, 0, sectors[0]);
    store_le(out, 8, static_cast<std::uint16_t>(count));
    out = out.subspan(kExtentBytes);
    sectors = sectors.subspan(count);
  }
  return true;
}

std::uint32_t checksum_of(Bytes loader) noexcept {
  std::uint32_t sum = kMagic;
  for (std::size_t at = 0; at < loader.size(); at += 4) sum -= load_le<std::uint32_t>(loader, at);
  return sum;
}

Patch patch_of(std::uint64_t offset, Bytes bytes, std::string_view what) {
  return {offset, {bytes.begin(), bytes.end()}, std::string(what)};
}

/// The sectors of the volume in which a file's sectors lie.
Result<std::vector<std::uint64_t>> sectors_of(const DataPlacement& placed, std::string_view path,
                                              std::size_t file_bytes) {
  if (placed.kind != DataPlacement::Kind::stored || placed.size_bytes != file_bytes) {
    return fail(Errc::usage, fmt::format("{}: not the loader's {} bytes", path, file_bytes));
  }
  std::vector<std::uint64_t> sectors;
  for (std::uint64_t at = 0; at < file_bytes; at += kSector) {
    const std::optional<std::uint64_t> place = placed.find(at);
    if (!place || *place % kSector != 0) {
      return fail(Errc::unsupported, fmt::format("{}: byte {} lies in no sector", path, at));
    }
    sectors.push_back(*place / kSector);
  }
  return sectors;
}

}  // namespace

Result<SyslinuxTemplate> find_syslinux(Bytes installer) {
  const auto sector_at = only_place(installer, kSector, is_boot_sector);
  if (!sector_at) return fail_unknown("it has no boot sector, or several");
  const auto loader_at = only_place(installer, kPlaces + 2, is_loader);
  if (!loader_at) return fail_unknown("it has no loader, or several");
  const Bytes rest = installer.subspan(*loader_at);
  std::optional<std::size_t> length;
  for (const std::size_t each : lengths_in(installer)) {
    if (each > rest.size() || !ends_compressed(rest.subspan(each - kSector, kSector))) continue;
    if (length) return fail_unknown("its loader may end at several places");
    length = each;
  }
  if (!length) return fail_unknown("its loader's end is not found");
  const Bytes sector = installer.subspan(*sector_at, kSector);
  const Bytes loader = rest.first(*length);
  if (!places_of(loader)) return fail_unknown("its loader has no places to fill in");
  return SyslinuxTemplate{{sector.begin(), sector.end()}, {loader.begin(), loader.end()}};
}

std::vector<std::byte> syslinux_file(const SyslinuxTemplate& from) {
  std::vector<std::byte> file = from.loader;
  append_adv(file);
  return file;
}

Result<SyslinuxBytes> patch_syslinux(const SyslinuxTemplate& from,
                                     std::span<const std::uint64_t> sectors,
                                     std::string_view directory, const SyslinuxSettings& settings) {
  const std::optional<Places> places = places_of(from.loader);
  const std::size_t count = from.loader.size() / kSector;
  assert(places && sectors.size() == count + kAdvSectors);
  SyslinuxBytes made{from.boot_sector, syslinux_file(from)};
  const std::span<std::byte> boot(made.boot_sector);
  store_le(boot, places->first_sector_low, static_cast<std::uint32_t>(sectors[0]));
  store_le(boot, places->first_sector_high, static_cast<std::uint32_t>(sectors[0] >> 32));
  constexpr std::uint16_t kInt18 = 0x18CD;
  if (settings.next_device_if_no) store_le(boot, places->raid, kInt18);

  const std::span<std::byte> file(made.file);
  store_le(file, kDataSectors, static_cast<std::uint16_t>(count));
  store_le(file, kAdvSectorCount, static_cast<std::uint16_t>(kAdvSectors));
  store_le(file, kDwords, static_cast<std::uint32_t>(from.loader.size() / 4));
  if (settings.one_sector_reads) store_le(file, kMaxTransfer, std::uint16_t{1});
  if (!put_extents(file.subspan(places->extents, places->extent_count * kExtentBytes),
                   sectors.subspan(1, count - 1))) {
    return fail(Errc::does_not_fit,
                fmt::format("ldlinux.sys lies in more than {} pieces", places->extent_count));
  }
  store_le(file, places->adv, sectors[count]);
  store_le(file, places->adv + 8, sectors[count + 1]);
  if (directory.size() >= places->directory_bytes) {
    return fail(Errc::does_not_fit,
                fmt::format("{}: SYSLINUX's directory has a path of at most {} bytes", directory,
                            places->directory_bytes - 1));
  }
  if (!directory.empty()) {
    std::memcpy(file.data() + places->directory, directory.data(), directory.size());
    file[places->directory + directory.size()] = std::byte{0};
  }
  store_le(file, kChecksum, std::uint32_t{0});
  store_le(file, kChecksum, checksum_of(file.first(from.loader.size())));
  return made;
}

Result<PlacedSyslinux> place_syslinux(const SyslinuxTemplate& from, const PlannedImage& image,
                                      std::string_view path, std::string_view root,
                                      const SyslinuxSettings& settings) {
  const std::vector<std::byte> before = syslinux_file(from);
  const DataPlacement data = image.data_at(path);
  const auto sectors = sectors_of(data, path, before.size());
  if (!sectors) return propagate(sectors);
  const std::size_t slash = path.rfind('/');
  const std::string directory =
      slash == path.npos ? std::string(root) : fmt::format("/{}", path.substr(0, slash));
  auto made = patch_syslinux(from, *sectors, directory, settings);
  if (!made) return propagate(made);
  PlacedSyslinux placed{*std::move(made), {}};
  // Only what differs, sector by sector.
  for (std::size_t number = 0; number < sectors->size(); ++number) {
    const Bytes was = Bytes(before).subspan(number * kSector, kSector);
    const Bytes is = Bytes(placed.bytes.file).subspan(number * kSector, kSector);
    const auto first = static_cast<std::size_t>(std::ranges::mismatch(was, is).in1 - was.begin());
    if (first == kSector) continue;
    std::size_t end = kSector;
    while (was[end - 1] == is[end - 1]) --end;
    placed.patches.push_back(patch_of((*sectors)[number] * kSector + first,
                                      is.subspan(first, end - first), "places in ldlinux.sys"));
  }
  return placed;
}

Result<std::vector<Patch>> syslinux_patches(const SyslinuxTemplate& from, const PlannedImage& image,
                                            std::string_view path,
                                            const SyslinuxSettings& settings) {
  const std::vector<Range> boot_sector = image.structure("boot_sector");
  if (boot_sector.empty())
    return fail(Errc::unsupported, "SYSLINUX boots from FAT", {{"fs", "fat"}});
  if (boot_sector.front().length != kSector) {
    return fail(Errc::unsupported,
                fmt::format("SYSLINUX boots from sectors of 512 bytes, and these have {}",
                            boot_sector.front().length),
                {{"sector-size", "512"}});
  }
  auto placed = place_syslinux(from, image, path, "", settings);
  if (!placed) return propagate(placed);
  std::vector<Patch> patches = std::move(placed->patches);
  const Bytes boot(placed->bytes.boot_sector);
  for (std::uint64_t copy = 0;; ++copy) {
    const std::vector<Range> sector = image.structure("boot_sector", copy);
    if (sector.empty()) break;
    const std::uint64_t at = sector.front().offset;
    patches.push_back(patch_of(at, boot.first(kHeadBytes), "SYSLINUX's jump"));
    patches.push_back(
        patch_of(at + kCode, boot.subspan(kCode, kSignature - kCode), "SYSLINUX's boot code"));
  }
  return patches;
}

}  // namespace mkvirtfs::bootsect
