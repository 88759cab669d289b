// SPDX-License-Identifier: BSD-3-Clause
//
// The superblock and inodes, field by field. An inode of 32 bytes has no time of its own, and
// narrow numbers; one of 64 bytes has all.
#include <algorithm>
#include <array>
#include <bit>
#include <span>
#include <string_view>

#include "fsgen/erofs/volume.h"
#include "fsgen/image/crc32c.h"
#include "support/arithmetic.h"

namespace mkvirtfs::erofs {
namespace {

constexpr std::uint32_t kMagic = 0xE0F5E1E2;
constexpr std::uint32_t kHasChecksum = 0x1;
constexpr std::uint32_t kTimesAreMtimes = 0x2;
constexpr std::uint32_t kHasChunks = 0x4;  // of the features that a reader must know

/// How the data of an inode is stored; it stands above the bit that says which inode it is.
enum class Layout : std::uint16_t { plain = 0, with_inline_end = 2, chunks = 4 };

/// As the kernel's new_encode_dev().
std::uint32_t encoded(DeviceNumber number) {
  return (number.minor & 0xFF) | (number.major << 8) | ((number.minor & ~0xFFu) << 12);
}

/// The four bytes whose meaning depends on what it is.
std::uint32_t place_field(const Volume& volume, NodeNo no, const Shape& shape) {
  const Node& node = volume.tree->node(no);
  if (node.is_device()) return encoded(volume.tree->device_number(no));
  if (shape.chunks != nullptr) return shape.chunks->chunk_bits;
  return volume.first_block(no, shape);
}

std::uint32_t link_count(const Volume& volume, NodeNo no) {
  const Node& node = volume.tree->node(no);
  return node.is_directory() ? volume.directories->link_count(volume.tree->directory_no(no))
                             : node.link_count;
}

void write_fields(const Volume& volume, NodeNo no, const Shape& shape, Window& out) {
  const Node& node = volume.tree->node(no);
  const std::uint64_t at = volume.inodes.offset_of(no);
  const Layout layout = shape.chunks != nullptr ? Layout::chunks
                        : shape.tail_bytes != 0 ? Layout::with_inline_end
                                                : Layout::plain;
  const auto format = static_cast<std::uint16_t>((shape.is_compact ? 0 : 1) |
                                                 static_cast<std::uint16_t>(layout) << 1);
  const std::uint32_t links = link_count(volume, no);
  out.put(at, format);
  out.put(at + 2, volume.xattrs.body_count(node.xattrs));
  out.put(at + 4, node.mode);
  out.put(at + 16, place_field(volume, no, shape));
  out.put(at + 20, no.value() + 1);  // an inode number for programs of 32 bits
  if (shape.is_compact) {
    out.put(at + 6, narrow<std::uint16_t>(links));
    out.put(at + 8, narrow<std::uint32_t>(shape.size_bytes));
    out.put(at + 24, narrow<std::uint16_t>(node.uid));
    out.put(at + 26, narrow<std::uint16_t>(node.gid));
    return;
  }
  const Timestamp mtime =
      volume.options.inode_times == InodeTimes::build ? volume.build_time : node.mtime();
  out.put(at + 8, shape.size_bytes);
  out.put(at + 24, node.uid);
  out.put(at + 28, node.gid);
  out.put(at + 32, static_cast<std::uint64_t>(mtime.seconds));
  out.put(at + 40, mtime.nanoseconds);
  out.put(at + 44, links);
}

/// The end of a directory or a symlink.
void write_tail(const Volume& volume, NodeNo no, const Shape& shape, Window& out) {
  const std::uint64_t at = volume.inodes.offset_of(no) + shape.head_bytes;
  const SourceTree& tree = *volume.tree;
  if (tree.node(no).is_symlink()) {
    out.put(at, tree.symlink_target(no).substr(shape.size_bytes - shape.tail_bytes));
  } else if (tree.node(no).is_directory()) {
    const DirectoryNo directory = tree.directory_no(no);
    volume.directories->write_block(tree, directory, volume.directories->block_count(directory) - 1,
                                    at, volume, out);
  }
}

}  // namespace

void write_superblock(const Volume& volume, Window& out) {
  // The checksum is over all of the block that is behind the boot area, and at least over a block.
  const std::uint32_t block_bytes = volume.block_bytes();
  const std::uint32_t covered =
      block_bytes > kSuperblockAt ? block_bytes - std::uint32_t{kSuperblockAt} : block_bytes;
  std::vector<std::byte> bytes(covered);
  Window made(kSuperblockAt, bytes);
  const auto put = [&](std::uint64_t at, auto value) { made.put(kSuperblockAt + at, value); };
  put(0, kMagic);
  put(8, kHasChecksum | kTimesAreMtimes);
  put(12, static_cast<std::uint8_t>(std::countr_zero(block_bytes)));
  put(14, narrow<std::uint16_t>(volume.slot_of(kRootNode).value()));
  put(16, std::uint64_t{volume.tree->node_count()});
  put(24, static_cast<std::uint64_t>(volume.build_time.seconds));
  put(32, volume.build_time.nanoseconds);
  put(36, volume.block_count());
  // Slots are counted from the start of the volume, and so are blocks: at 40 stands 0.
  if (!volume.xattrs.shared().empty()) put(44, volume.shared_xattrs.value());
  put(48, std::span<const std::byte>(volume.uuid));
  put(64, std::string_view(volume.options.label));
  put(80, volume.chunks.files().empty() ? std::uint32_t{0} : kHasChunks);
  const std::uint32_t checksum = crc32c(~std::uint32_t{0}, bytes);
  put(4, checksum);
  out.put(kSuperblockAt, std::span<const std::byte>(bytes));
}

void write_inode(const Volume& volume, NodeNo no, Window& out) {
  const Shape shape = volume.shape_of(no);
  const std::uint64_t at = volume.inodes.offset_of(no);
  if (out.common({at, shape.inode_bytes()}).length == 0) return;
  write_fields(volume, no, shape, out);
  const std::uint64_t xattrs_at = at + (shape.is_compact ? kCompactBytes : kExtendedBytes);
  const std::span<const std::byte> xattrs = volume.xattrs.body(volume.tree->node(no).xattrs);
  out.put(xattrs_at, xattrs);
  if (shape.chunks != nullptr) {
    volume.chunks.write_map(*shape.chunks, volume.first_block(no, shape), xattrs_at + xattrs.size(),
                            out);
  }
  if (shape.tail_bytes != 0) write_tail(volume, no, shape, out);
}

}  // namespace mkvirtfs::erofs
