// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/disk/read_disk.h"

#include <fmt/format.h>

#include <array>
#include <cassert>
#include <span>
#include <vector>

#include "fsgen/disk/cached_source.h"
#include "fsgen/disk/ext_reader.h"
#include "fsgen/disk/fat_reader.h"
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
  }
  return {};
}

Result<std::optional<DiskFormat>> detect(ByteSource& disk) {
  const Result<bool> ext = is_ext(disk);
  if (!ext) return propagate(ext);
  const Result<bool> fat = is_fat(disk);
  if (!fat) return propagate(fat);
  if (*ext && *fat) {
    return fail(
        Errc::unreadable,
        fmt::format("{} has the superblock of ext and the boot sector of FAT", disk.name()));
  }
  if (*ext) return DiskFormat::ext;
  if (*fat) return DiskFormat::fat;
  return std::nullopt;
}

Result<ReadDisk> read_disk_here(const std::shared_ptr<ByteSource>& disk, DiskFormat format,
                                const archive::ReadLimits& limits, LogSink& log) {
  CachedSource cached(disk);
  switch (format) {
    case DiskFormat::ext:
      return read_ext(cached, limits, log);
    case DiskFormat::fat:
      return read_fat(cached, limits, log);
  }
  assert(false);
  return ReadDisk();
}

}  // namespace mkvirtfs::disk
