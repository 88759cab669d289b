// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/disk/read_disk.h"

#include <fmt/format.h>

#include <array>
#include <cassert>
#include <span>
#include <vector>

#include "fsgen/archive/iso_directory.h"
#include "fsgen/disk/cached_source.h"
#include "fsgen/disk/erofs_reader.h"
#include "fsgen/disk/ext_reader.h"
#include "fsgen/disk/fat_reader.h"
#include "fsgen/disk/iso_reader.h"
#include "support/byte_order.h"

namespace mkvirtfs::disk {
namespace {

constexpr std::uint64_t kExtMagicAt = 1024 + 56;
constexpr std::uint16_t kExtMagic = 0xef53;

Result<bool> is_ext(ByteSource& disk) {
  std::array<std::byte, 2> magic{};
  if (disk.size_bytes() < kExtMagicAt + magic.size()) return false;
  if (Result<void> good = disk.read(kExtMagicAt, magic); !good) return propagate(good);
  return load_le<std::uint16_t>(magic) == kExtMagic;
}

}  // namespace

std::string_view to_string(DiskFormat format) noexcept {
  switch (format) {
    case DiskFormat::ext:
      return "ext";
    case DiskFormat::fat:
      return "fat";
    case DiskFormat::erofs:
      return "erofs";
    case DiskFormat::iso:
      return "iso";
  }
  return {};
}

Result<std::optional<DiskFormat>> detect(ByteSource& disk) {
  struct Magic {
    DiskFormat format;
    std::string_view what;  // that it has
    Result<bool> (*is_there)(ByteSource&);
  };
  static constexpr std::array kMagics = std::to_array<Magic>({
      {DiskFormat::ext, "the superblock of ext", is_ext},
      {DiskFormat::fat, "the boot sector of FAT", is_fat},
      {DiskFormat::erofs, "the superblock of EROFS", is_erofs},
      {DiskFormat::iso, "the volume descriptors of ISO 9660", archive::is_iso9660},
  });
  const Magic* found = nullptr;
  for (const Magic& magic : kMagics) {
    const Result<bool> is_there = magic.is_there(disk);
    if (!is_there) return propagate(is_there);
    if (!*is_there) continue;
    if (found != nullptr) {
      return fail(Errc::unreadable,
                  fmt::format("{} has {} and {}", disk.name(), found->what, magic.what));
    }
    found = &magic;
  }
  if (found == nullptr) return std::nullopt;
  return found->format;
}

Result<ReadDisk> read_disk_here(const std::shared_ptr<ByteSource>& disk, DiskFormat format,
                                const archive::ReadLimits& limits, LogSink& log) {
  CachedSource cached(disk);
  switch (format) {
    case DiskFormat::ext:
      return read_ext(cached, limits, log);
    case DiskFormat::fat:
      return read_fat(cached, limits, log);
    case DiskFormat::erofs:
      return read_erofs(cached, limits, log);
    case DiskFormat::iso:
      return read_iso(cached, limits, log);
  }
  assert(false);
  return ReadDisk();
}

}  // namespace mkvirtfs::disk
