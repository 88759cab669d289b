// SPDX-License-Identifier: BSD-3-Clause
//
// What stands at a byte follows from where the parts of the volume begin; in each of them it is a
// binary search. Blocks of inodes are made of the nodes that stand in them; one in which the end of
// a file is packed is derived of it.
#include "fsgen/erofs/erofs_image.h"

#include <fmt/format.h>

#include <cassert>
#include <string>
#include <utility>

#include "block/content.h"
#include "fsgen/tree/source_differences.h"
#include "support/arithmetic.h"

namespace mkvirtfs::erofs {

Range ErofsImage::packed_tail(NodeNo no) const noexcept {
  if (!volume_->options.tail_packing || !tree().node(no).is_regular()) return {};
  const Shape shape = volume_->shape_of(no);
  return {volume_->inodes.offset_of(no) + shape.head_bytes, shape.tail_bytes};
}

template <class Visit>
void ErofsImage::for_each_packed(Range range, Visit&& visit) const {
  for (const NodeNo no : volume_->inodes.nodes_in(range)) {
    const Range tail = packed_tail(no);
    const std::uint64_t from = std::max(tail.offset, range.offset);
    const std::uint64_t to = std::min(tail.end(), range.end());
    if (tail.length == 0 || from >= to) continue;
    const std::uint64_t in_file = tree().node(no).size_bytes - tail.length + (from - tail.offset);
    if (!visit(no, Range{from, to - from}, in_file)) return;
  }
}

Region ErofsImage::inodes_at(std::uint64_t offset) const {
  const InodeTable& inodes = volume_->inodes;
  if (!has_derived()) {
    return Region::computed({inodes.begin_bytes(), inodes.end_bytes() - inodes.begin_bytes()});
  }
  const std::uint32_t bytes = volume_->block_bytes();
  const Range block{round_down<std::uint64_t>(offset, bytes), bytes};
  Region region = Region::computed(block);
  for_each_packed(block, [&](NodeNo, const Range&, std::uint64_t) {
    region.kind = Region::Kind::derived;
    return false;
  });
  return region;
}

Region ErofsImage::data_region_at(BlockNo block) const {
  const std::uint32_t position = volume_->data_blocks.thing_at(block);
  const NodeNo no{volume_->sequence.at(position)};
  const BlockNo begin = volume_->data_blocks.begin_of(position);
  const Range range = bytes_of(begin, volume_->data_blocks.end_of(position));
  const Shape shape = volume_->shape_of(no);
  if (tree().node(no).is_symlink()) {
    return Region::computed(range, std::min(range.length, shape.size_bytes));
  }
  if (shape.chunks == nullptr) {
    return {.kind = Region::Kind::file,
            .range = range,
            .data_bytes = std::min(range.length, shape.size_bytes),
            .file = no,
            .has_holes = true};
  }
  const Chunks::Place place = volume_->chunks.place_of(*shape.chunks, block - begin);
  const Range run{range.offset + place.block * volume_->block_bytes(),
                  place.blocks * volume_->block_bytes()};
  return {.kind = Region::Kind::file,
          .range = run,
          .data_bytes = std::min(run.length, shape.size_bytes - place.file_offset),
          .file = no,
          .file_offset = place.file_offset,
          .has_holes = true};
}

Region ErofsImage::region_at(std::uint64_t offset) const {
  const std::uint64_t inodes_begin = volume_->inodes.begin_bytes();
  if (offset < kSuperblockAt) return Region::empty({0, kSuperblockAt});
  if (offset < inodes_begin) {
    return Region::computed({kSuperblockAt, inodes_begin - kSuperblockAt}, kSuperblockBytes);
  }
  if (offset < volume_->inodes.end_bytes()) return inodes_at(offset);
  const BlockNo block{static_cast<std::uint32_t>(offset / volume_->block_bytes())};
  const StartTable<BlockNo>& directories = volume_->directory_blocks;
  if (block < directories.begin()) {
    return Region::computed(bytes_of(volume_->shared_xattrs, directories.begin()),
                            volume_->xattrs.shared().size());
  }
  if (block >= directories.end()) return data_region_at(block);
  const std::uint32_t directory = directories.thing_at(block);
  return Region::computed(bytes_of(directories.begin_of(directory), directories.end_of(directory)));
}

void ErofsImage::write_block(std::uint64_t block, std::span<std::byte> out) const {
  Window window(block * block_bytes(), out);
  // A block of 512 bytes is one thing; a larger one may begin with the boot area.
  if (window.begin() < volume_->inodes.begin_bytes()) {
    write_superblock(*volume_, window);
    return;
  }
  if (window.begin() < volume_->inodes.end_bytes()) {
    for (const NodeNo no : volume_->inodes.nodes_in(window.range())) {
      write_inode(*volume_, no, window);
    }
    return;
  }
  const std::uint32_t bytes = volume_->block_bytes();
  const BlockNo at{static_cast<std::uint32_t>(window.begin() / bytes)};
  const StartTable<BlockNo>& directories = volume_->directory_blocks;
  if (at < directories.begin()) {
    window.put(bytes_of(BlockNo{0}, volume_->shared_xattrs).length, volume_->xattrs.shared());
  } else if (at < directories.end()) {
    const DirectoryNo no{directories.thing_at(at)};
    volume_->directories->write_block(tree(), no, at - directories.begin_of(no),
                                      std::uint64_t{at.value()} * bytes, *volume_, window);
  } else {
    const std::uint32_t position = volume_->data_blocks.thing_at(at);
    const NodeNo no{volume_->sequence.at(position)};
    assert(tree().node(no).is_symlink());
    window.put(bytes_of(BlockNo{0}, volume_->data_blocks.begin_of(position)).length,
               tree().symlink_target(no));
  }
}

Result<void> ErofsImage::derive_block(std::uint64_t block, std::span<std::byte> out,
                                      ContentStore& contents) const {
  write_block(block, out);
  const Range made{block * block_bytes(), out.size()};
  Result<void> read;
  for_each_packed(made, [&](NodeNo no, const Range& here, std::uint64_t file_offset) {
    read = contents.read(content_no(no), file_offset,
                         out.subspan(here.offset - made.offset, here.length));
    return read.has_value();
  });
  return read;
}

void ErofsImage::derived_from(Range range, ContentRangeSink& sink) const {
  const std::uint64_t begin = round_down<std::uint64_t>(range.offset, block_bytes());
  const std::uint64_t end = round_up<std::uint64_t>(range.end(), block_bytes());
  for_each_packed({begin, end - begin},
                  [&](NodeNo no, const Range& here, std::uint64_t file_offset) {
                    return sink.content_range(content_no(no), {file_offset, here.length});
                  });
}

std::string ErofsImage::describe_inodes(std::uint64_t offset) const {
  const std::uint32_t bytes = volume_->block_bytes();
  const Range block{round_down<std::uint64_t>(offset, bytes), bytes};
  const std::vector<NodeNo> nodes = volume_->inodes.nodes_in(block);
  for (const NodeNo no : nodes) {
    if (volume_->inodes.offset_of(no) < block.offset) continue;
    return fmt::format("inodes, from that of /{} on", tree().path(no));
  }
  assert(!nodes.empty());
  return fmt::format("inode of /{}, byte {}", tree().path(nodes.front()),
                     offset - volume_->inodes.offset_of(nodes.front()));
}

std::string ErofsImage::describe(std::uint64_t offset) const {
  if (offset < kSuperblockAt) return "boot area";
  if (offset < volume_->inodes.begin_bytes()) return "superblock";
  if (offset < volume_->inodes.end_bytes()) return describe_inodes(offset);
  const BlockNo block{static_cast<std::uint32_t>(offset / volume_->block_bytes())};
  const StartTable<BlockNo>& directories = volume_->directory_blocks;
  if (block < directories.begin()) return "shared extended attributes";
  if (block < directories.end()) {
    const DirectoryNo no{directories.thing_at(block)};
    return fmt::format("directory /{}, block {}", tree().path(tree().directory(no).node),
                       block - directories.begin_of(no));
  }
  const Region region = data_region_at(block);
  if (region.kind != Region::Kind::file) {
    const NodeNo no{volume_->sequence.at(volume_->data_blocks.thing_at(block))};
    return fmt::format("target of symlink /{}", tree().path(no));
  }
  return fmt::format("file /{} at {}", tree().path(region.file),
                     region.file_offset + (offset - region.range.offset));
}

std::string ErofsImage::volume_id() const { return to_string(volume_->uuid); }

std::vector<ImageFact> ErofsImage::facts() const {
  const std::uint32_t nodes = tree().node_count();
  const InodeTable& inodes = volume_->inodes;
  return {
      {"format", std::string("erofs")},
      {"size_bytes", size_bytes()},
      {"label", volume_->options.label},
      {"uuid", volume_id()},
      {"block_bytes", std::uint64_t{volume_->block_bytes()}},
      {"block_count", std::uint64_t{volume_->block_count()}},
      {"inode_count", std::uint64_t{nodes}},
      {"compact_inode_count", std::uint64_t{volume_->compact_count}},
      {"inode_area_bytes", inodes.end_bytes() - inodes.begin_bytes()},
      {"shared_xattr_count", std::uint64_t{volume_->xattrs.shared_count()}},
      {"directory_block_count",
       std::uint64_t{volume_->directory_blocks.end() - volume_->directory_blocks.begin()}},
      {"chunked_file_count", std::uint64_t{volume_->chunks.files().size()}},
      {"packed_tail_count", volume_->packed_tail_count},
      {"duplicate_file_count", volume_->shared_file_count},
      {"oldest_linux", std::string(volume_->oldest_linux())},
      {"patch_count", std::uint64_t{0}},
  };
}

std::string ErofsImage::switched_on() const {
  const std::size_t count = volume_->chunks.files().size();
  if (count == 0) return {};
  return counted(count, "file with holes is", "files with holes are") +
         " stored in chunks, which Linux reads since 5.15";
}

std::string ErofsImage::remark() const { return source_remark(tree()); }

void ErofsImage::differences(DifferenceSink& sink) const { list_source_differences(tree(), sink); }

}  // namespace mkvirtfs::erofs
