// SPDX-License-Identifier: BSD-3-Clause
// The superblock, inodes, maps of chunks and extended attributes of EROFS. Every place is asked of
// the disk's size before it is read. Maps of chunks may be as long as the disk, but not in sum: in
// a sound volume no two inodes have the same one.
#include "fsgen/disk/erofs_volume.h"

#include <ext2fs/ext2fs.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <span>
#include <string_view>

#include "fsgen/disk/member_list.h"
#include "support/byte_order.h"

namespace mkvirtfs::disk {
namespace {

constexpr std::uint64_t kSuperblockAt = 1024;
constexpr std::size_t kSuperblockBytes = 128;
constexpr unsigned kLeastBlockBits = 9;
constexpr unsigned kMostBlockBits = 16;
constexpr std::uint64_t kSlotBytes = 32;

constexpr std::uint32_t kHasChecksum = 0x1;
// Of the features that a reader must know: how files are compressed, chunks, devices.
constexpr std::uint32_t kKnownFeatures = 0x3f;
constexpr std::uint32_t kXattrPrefixes = 0x40;

constexpr unsigned kCompressedFull = 1;
constexpr unsigned kInlineEnd = 2;
constexpr unsigned kCompressedCompact = 3;
constexpr unsigned kChunks = 4;

constexpr std::uint32_t kChunkBitsMask = 0x1f;
constexpr std::uint32_t kChunkIndexes = 0x20;
constexpr std::uint32_t kNoBlock = 0xffffffff;

constexpr std::uint64_t kXattrHeaderBytes = 12;
constexpr std::uint64_t kXattrEntryBytes = 4;
constexpr std::array<std::string_view, 7> kXattrPrefixTexts{
    "",        "user.",    "system.posix_acl_access", "system.posix_acl_default", "trusted.",
    "lustre.", "security."};

std::unexpected<Error> wrong(std::string what, Errc code = Errc::unreadable) {
  return fail(code, std::move(what));
}

std::uint64_t round_up_to(std::uint64_t value, std::uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}

}  // namespace

/// As the kernel's new_decode_dev().
DeviceNumber ErofsInode::device() const noexcept {
  return {(place >> 8) & 0xfff, (place & 0xff) | ((place >> 12) & 0xfff00)};
}

Result<ErofsVolume> ErofsVolume::open(CachedSource& disk, Problems& problems) {
  ErofsVolume volume(disk);
  if (Result<void> good = volume.parse(); !good) {
    return propagate(fmt::format("{}: byte {}: its EROFS superblock", disk.name(), kSuperblockAt),
                     good);
  }
  std::array<std::byte, kSuperblockBytes> super{};
  if (Result<void> good = disk.read(kSuperblockAt, super); !good) return propagate(good);
  if ((load_le<std::uint32_t>(super, 8) & kHasChecksum) != 0) {
    const Result<bool> good = volume.has_good_checksum(load_le<std::uint32_t>(super, 4));
    if (!good) return propagate(good);
    if (!*good) problems.add(kSuperblockAt, "the checksum of its superblock is wrong");
  }
  return volume;
}

Result<void> ErofsVolume::parse() {
  std::array<std::byte, kSuperblockBytes> super{};
  if (!disk_.holds(kSuperblockAt, super.size())) return wrong("the disk ends before its end");
  if (Result<void> good = disk_.read(kSuperblockAt, super); !good) return good;
  if (load_le<std::uint32_t>(super) != 0xe0f5e1e2) return wrong("has no magic number");
  const auto features = load_le<std::uint32_t>(super, 80);
  if ((features & kXattrPrefixes) != 0) {
    return wrong("has long prefixes of attributes, which are not read", Errc::unsupported);
  }
  if ((features & ~kKnownFeatures) != 0) {
    return wrong(fmt::format("has features that are not known: {:#x}", features & ~kKnownFeatures),
                 Errc::unsupported);
  }
  block_bits_ = std::to_integer<unsigned>(super[12]);
  if (block_bits_ < kLeastBlockBits || block_bits_ > kMostBlockBits) {
    return wrong(fmt::format("has blocks of 2^{} bytes", block_bits_));
  }
  if (super[90] != std::byte{0}) {
    return wrong("has another size for blocks of directories", Errc::unsupported);
  }
  const std::uint32_t devices = load_le<std::uint16_t>(super, 86);
  const bool has_devices = (features & 0x8) != 0 && devices != 0;
  device_mask_ = has_devices ? std::bit_ceil(devices + 1) - 1 : 0;
  end_ = disk_.size_bytes();
  // Behind its own blocks are those of other devices.
  if (has_devices) end_ = std::min(end_, block_offset(load_le<std::uint32_t>(super, 36)));
  root_number_ = load_le<std::uint16_t>(super, 14);
  build_time_ = {static_cast<std::int64_t>(load_le<std::uint64_t>(super, 24)),
                 load_le<std::uint32_t>(super, 32)};
  if (build_time_.nanoseconds > 999'999'999) return wrong("has a time that is none");
  inodes_at_ = block_offset(load_le<std::uint32_t>(super, 40));
  shared_xattrs_at_ = block_offset(load_le<std::uint32_t>(super, 44));
  return {};
}

/// Over all of its block that is behind the boot area, and at least over a block.
Result<bool> ErofsVolume::has_good_checksum(std::uint32_t expected) {
  const std::uint64_t covered =
      block_bytes() > kSuperblockAt ? block_bytes() - kSuperblockAt : block_bytes();
  if (!disk_.holds(kSuperblockAt, covered)) return false;
  std::vector<std::byte> bytes(covered);
  if (Result<void> good = disk_.read(kSuperblockAt, bytes); !good) return propagate(good);
  store_le(bytes, 4, std::uint32_t{0});
  return expected == ext2fs_crc32c_le(~std::uint32_t{0},
                                      reinterpret_cast<const unsigned char*>(bytes.data()),
                                      bytes.size());
}

std::uint64_t ErofsVolume::offset_of(std::uint64_t number) const noexcept {
  // No product overflows: what lies behind the end lies there.
  const std::uint64_t most = std::numeric_limits<std::uint64_t>::max() - inodes_at_;
  return number > most / kSlotBytes ? std::numeric_limits<std::uint64_t>::max()
                                    : inodes_at_ + number * kSlotBytes;
}

Result<ErofsInode> ErofsVolume::inode(std::uint64_t number) {
  ErofsInode made;
  made.number = number;
  made.offset = offset_of(number);
  std::array<std::byte, 64> bytes{};
  if (!holds({made.offset, 32})) return wrong("lies behind the end of the disk");
  if (Result<void> good = disk_.read(made.offset, std::span(bytes).first(32)); !good) {
    return propagate(good);
  }
  const auto format = load_le<std::uint16_t>(bytes);
  if ((format & ~0xfu) != 0 || format >> 1 > kChunks) {
    return wrong(fmt::format("has the unknown form {:#x}", format), Errc::unsupported);
  }
  made.layout = format >> 1;
  made.mode = load_le<std::uint16_t>(bytes, 4);
  made.place = load_le<std::uint32_t>(bytes, 16);
  std::uint64_t inode_bytes = 32;
  if ((format & 1) == 0) {
    made.link_count = load_le<std::uint16_t>(bytes, 6);
    made.size_bytes = load_le<std::uint32_t>(bytes, 8);
    made.uid = load_le<std::uint16_t>(bytes, 24);
    made.gid = load_le<std::uint16_t>(bytes, 26);
    made.mtime = build_time_;
  } else {
    inode_bytes = bytes.size();
    if (!holds({made.offset, inode_bytes})) return wrong("goes on behind the end of the disk");
    if (Result<void> good = disk_.read(made.offset, bytes); !good) return propagate(good);
    made.size_bytes = load_le<std::uint64_t>(bytes, 8);
    made.uid = load_le<std::uint32_t>(bytes, 24);
    made.gid = load_le<std::uint32_t>(bytes, 28);
    made.mtime = {static_cast<std::int64_t>(load_le<std::uint64_t>(bytes, 32)),
                  load_le<std::uint32_t>(bytes, 40)};
    made.link_count = load_le<std::uint32_t>(bytes, 44);
  }
  const std::uint64_t units = load_le<std::uint16_t>(bytes, 2);
  made.xattrs = {made.offset + inode_bytes, units == 0 ? 0 : kXattrHeaderBytes + 4 * (units - 1)};
  if (!holds(made.xattrs)) return wrong("has attributes behind the end of the disk");
  made.tail_offset = made.xattrs.end();
  return made;
}

Result<ErofsData> ErofsVolume::data(const ErofsInode& inode) {
  ErofsData made;
  const std::uint64_t size = inode.size_bytes;
  if (size == 0) return made;
  if (size > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
    return wrong("its size is more than a file can have");
  }
  if (inode.layout == kCompressedFull || inode.layout == kCompressedCompact) {
    return wrong("it is compressed", Errc::unsupported);
  }
  if (inode.layout == kChunks) {
    if (Result<void> good = add_chunks(inode, made); !good) return propagate(good);
    return made;
  }
  const std::uint64_t tail_bytes = inode.layout == kInlineEnd ? (size - 1) % block_bytes() + 1 : 0;
  const Range blocks{block_offset(inode.place), size - tail_bytes};
  const Range tail{inode.tail_offset, tail_bytes};
  if (blocks.length != 0 && !holds(blocks)) return wrong("it goes on behind the end of the disk");
  if (tail_bytes != 0) {
    if (!holds(tail)) return wrong("its end lies behind the end of the disk");
    if (tail.offset / block_bytes() != (tail.end() - 1) / block_bytes()) {
      return wrong("its end behind the inode crosses the end of a block");
    }
  }
  append_piece(made.pieces, blocks);
  append_piece(made.pieces, tail);
  made.runs.push_back({0, size});
  return made;
}

Result<void> ErofsVolume::add_chunks(const ErofsInode& inode, ErofsData& made) {
  if ((inode.place & 0xffff & ~(kChunkBitsMask | kChunkIndexes)) != 0) {
    return wrong("its chunks are of an unknown form", Errc::unsupported);
  }
  const bool has_indexes = (inode.place & kChunkIndexes) != 0;
  const std::uint64_t unit = has_indexes ? 8 : 4;
  const std::uint64_t chunk_bytes = block_bytes() << (inode.place & kChunkBitsMask);
  const std::uint64_t count = (inode.size_bytes - 1) / chunk_bytes + 1;
  const std::uint64_t map_at = round_up_to(inode.tail_offset, unit);
  if (count > end_ / unit || !holds({map_at, count * unit})) {
    return wrong("its map of chunks goes on behind the end of the disk");
  }
  map_bytes_ += count * unit;
  if (map_bytes_ > end_) return wrong("its map of chunks lies where other inodes have theirs");
  std::array<std::byte, 4096> bytes{};
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t in = i * unit % bytes.size();
    if (in == 0) {
      const auto part = std::span(bytes).first(
          static_cast<std::size_t>(std::min<std::uint64_t>(bytes.size(), (count - i) * unit)));
      if (Result<void> good = disk_.read(map_at + i * unit, part); !good) return good;
    }
    const auto block = load_le<std::uint32_t>(bytes, in + (has_indexes ? 4 : 0));
    if (block == kNoBlock) continue;
    if (has_indexes && (load_le<std::uint16_t>(bytes, in + 2) & device_mask_) != 0) {
      return wrong("it lies on another device", Errc::unsupported);
    }
    const std::uint64_t from = i * chunk_bytes;
    const Range piece{block_offset(block), std::min(chunk_bytes, inode.size_bytes - from)};
    if (!holds(piece)) return wrong(fmt::format("its chunk {} goes on behind the disk's end", i));
    append_piece(made.runs, {from, piece.length});
    append_piece(made.pieces, piece);
  }
  return {};
}

Result<std::string> ErofsVolume::text(Range range) {
  std::string made(range.length, '\0');
  if (Result<void> good = disk_.read(range.offset, std::as_writable_bytes(std::span(made)));
      !good) {
    return propagate(good);
  }
  return made;
}

Result<std::uint64_t> ErofsVolume::take_xattr(std::uint64_t offset, std::uint64_t end,
                                              Xattrs& found) {
  std::array<std::byte, kXattrEntryBytes> head{};
  if (offset > end || end - offset < head.size()) return wrong("an attribute of it has no room");
  if (Result<void> good = disk_.read(offset, head); !good) return propagate(good);
  const Range name{offset + head.size(), std::to_integer<std::uint64_t>(head[0])};
  const Range value{name.end(), load_le<std::uint16_t>(head, 2)};
  if (value.end() > end) return wrong("an attribute of it is longer than what holds it");
  const auto prefix = std::to_integer<std::size_t>(head[1]);
  if (prefix >= kXattrPrefixTexts.size() || kXattrPrefixTexts[prefix].empty()) {
    return wrong(fmt::format("an attribute of it has the unknown prefix {}", prefix));
  }
  // The two kinds of ACL are whole names; all others need more than the prefix.
  const bool is_whole = !kXattrPrefixTexts[prefix].ends_with('.');
  if (is_whole != (name.length == 0)) return wrong("an attribute of it has an invalid name");
  Result<std::string> suffix = text(name);
  if (!suffix) return propagate(suffix);
  Result<std::string> bytes = text(value);
  if (!bytes) return propagate(bytes);
  std::string full = std::string(kXattrPrefixTexts[prefix]) + *suffix;
  if (full.find('\0') != std::string::npos) return wrong("an attribute's name has a NUL byte");
  found.emplace_back(std::move(full), std::move(*bytes));
  return round_up_to(value.end(), 4);
}

Result<ErofsVolume::Xattrs> ErofsVolume::xattrs(const ErofsInode& inode) {
  Xattrs found;
  if (inode.xattrs.length <= kXattrHeaderBytes) return found;
  std::array<std::byte, kXattrHeaderBytes> header{};
  if (Result<void> good = disk_.read(inode.xattrs.offset, header); !good) return propagate(good);
  const auto shared = std::to_integer<std::uint64_t>(header[4]);
  if (kXattrHeaderBytes + 4 * shared > inode.xattrs.length) {
    return wrong("it has more shared attributes than it has room for");
  }
  std::uint64_t at = inode.xattrs.offset + kXattrHeaderBytes;
  for (std::uint64_t i = 0; i < shared; ++i, at += 4) {
    std::array<std::byte, 4> number{};
    if (Result<void> good = disk_.read(at, number); !good) return propagate(good);
    const std::uint64_t offset =
        shared_xattrs_at_ + std::uint64_t{4} * load_le<std::uint32_t>(number);
    const auto taken = take_xattr(offset, end_, found);
    if (!taken) return propagate(taken);
  }
  while (at < inode.xattrs.end()) {
    const auto next = take_xattr(at, inode.xattrs.end(), found);
    if (!next) return propagate(next);
    at = *next;
  }
  std::ranges::sort(found);
  const auto twice = std::ranges::adjacent_find(found, {}, &Xattrs::value_type::first);
  if (twice != found.end()) return wrong("it has an attribute twice");
  return found;
}

}  // namespace mkvirtfs::disk
