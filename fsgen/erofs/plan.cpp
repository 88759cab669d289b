// SPDX-License-Identifier: BSD-3-Clause
//
// Everything is placed in one go: how long each inode is with what follows it decides where inodes
// stand, and then the blocks are dealt out.
#include "fsgen/erofs/plan.h"

#include <fmt/format.h>

#include <bit>
#include <span>
#include <utility>

#include "fsgen/erofs/erofs_image.h"
#include "fsgen/erofs/volume.h"
#include "support/arithmetic.h"
#include "support/sha256.h"
#include "support/text.h"

namespace mkvirtfs::erofs {
namespace {

Result<void> check(const Options& options) {
  if (!std::has_single_bit(options.block_bytes) || options.block_bytes < kLeastBlockBytes ||
      options.block_bytes > kMostBlockBytes) {
    return fail_option({"block-size", std::to_string(options.block_bytes)},
                       fmt::format("blocks of EROFS are powers of two from {} to {} bytes",
                                   kLeastBlockBytes, kMostBlockBytes));
  }
  if (options.label.size() >= kLabelBytes || options.label.find('\0') != std::string::npos) {
    return fail_option({"label", options.label},
                       fmt::format("EROFS labels are up to {} bytes, this one is {}",
                                   kLabelBytes - 1, options.label.size()));
  }
  return {};
}

Result<void> check_files(const SourceTree& tree) {
  for (NodeNo no; no < tree.node_count(); ++no) {
    const std::uint64_t size = tree.node(no).size_bytes;
    if (size <= Chunks::kMostFileBytes) continue;
    return fail(Errc::does_not_fit, fmt::format("{} is {} bytes; files of EROFS end at {}",
                                                tree.path(no), size, Chunks::kMostFileBytes));
  }
  return {};
}

/// Identifiers derive from the source and the options alone (law 1).
Uuid make_uuid(const SourceTree& tree, const Options& options) {
  Sha256 digest;
  const std::string what = fmt::format(
      "mkvirtfs erofs 1\n{}\n{} {} {} {}\n{} {}\n", options.label, options.block_bytes,
      std::to_underlying(options.inode_times), options.tail_packing, options.duplicates.size(),
      options.made_at_s.has_value(), options.made_at_s.value_or(0));
  digest.update(std::as_bytes(std::span(what)));
  digest.update(tree.id());
  const auto bytes = digest.finish();
  return derived_uuid(std::span(bytes).first<16>());
}

std::unexpected<Error> too_large(const Volume& volume, NodeNo no) {
  const std::uint64_t most_bytes = kMostBlocks * volume.block_bytes();
  return fail(Errc::does_not_fit,
              fmt::format("{} would end behind {}, where volumes of EROFS with blocks of {} end",
                          volume.tree->path(no), human_size(most_bytes), volume.block_bytes()),
              {{"fs", "ext4"}});
}

/// Deals out the blocks behind the inodes.
Result<void> place_blocks(Volume& volume) {
  const SourceTree& tree = *volume.tree;
  const std::uint32_t block_bytes = volume.block_bytes();
  std::uint64_t at = volume.inodes.end_bytes() / block_bytes;
  const auto add = [&](NodeNo no, std::uint64_t blocks,
                       StartTable<BlockNo>& table) -> Result<void> {
    if (at > kMostBlocks || blocks > kMostBlocks - at) return too_large(volume, no);
    table.add(BlockNo{static_cast<std::uint32_t>(at)});
    at += blocks;
    return {};
  };
  volume.shared_xattrs = BlockNo{static_cast<std::uint32_t>(at)};
  at += ceil_div<std::uint64_t>(volume.xattrs.shared().size(), block_bytes);

  volume.directory_blocks.reserve(tree.directories().size());
  for (const Directory& directory : tree.directories()) {
    const std::uint64_t blocks = volume.shape_of(directory.node).blocks;
    Result<void> added = add(directory.node, blocks, volume.directory_blocks);
    if (!added) return added;
  }
  volume.directory_blocks.finish(BlockNo{static_cast<std::uint32_t>(at)});

  volume.sequence = data_sequence(tree);
  volume.data_blocks.reserve(tree.node_count());
  for (std::uint32_t position = 0; position < tree.node_count(); ++position) {
    const NodeNo no{volume.sequence.at(position)};
    const Shape shape = volume.shape_of(no);
    const bool is_shared = volume.stored_as(no, shape) != no;
    if (is_shared) ++volume.shared_file_count;
    if (shape.is_compact) ++volume.compact_count;
    if (shape.tail_bytes != 0 && tree.node(no).is_regular()) ++volume.packed_tail_count;
    const bool has_blocks = !is_shared && !tree.node(no).is_directory();
    if (Result<void> added = add(no, has_blocks ? shape.blocks : 0, volume.data_blocks); !added) {
      return added;
    }
  }
  volume.data_blocks.finish(BlockNo{static_cast<std::uint32_t>(at)});
  return {};
}

}  // namespace

Result<std::shared_ptr<const PlannedImage>> plan(std::shared_ptr<const SourceTree> tree,
                                                 const Options& options) {
  if (Result<void> good = check(options); !good) return propagate(good);
  if (Result<void> good = check_files(*tree); !good) return propagate(good);
  auto volume = std::make_unique<Volume>();
  volume->tree = std::move(tree);
  volume->options = options;
  volume->uuid = options.uuid ? *options.uuid : make_uuid(*volume->tree, options);
  volume->build_time =
      options.made_at_s ? Timestamp{*options.made_at_s, 0} : volume->tree->newest_mtime();

  Result<Xattrs> xattrs = Xattrs::make(*volume->tree);
  if (!xattrs) return propagate(xattrs);
  volume->xattrs = std::move(*xattrs);
  volume->directories = std::make_unique<Directories>(*volume->tree, options.block_bytes);
  volume->chunks = Chunks(*volume->tree, options.block_bytes);
  // The superblock has a block for itself: the checksum over it is over no bytes of files.
  const std::uint64_t first_inode =
      round_up<std::uint64_t>(kSuperblockAt + kSuperblockBytes, options.block_bytes);
  Result<InodeTable> inodes =
      InodeTable::make(*volume->tree, first_inode, options.block_bytes,
                       [&](NodeNo no) { return volume->shape_of(no).inode_bytes(); });
  if (!inodes) return propagate(inodes);
  volume->inodes = std::move(*inodes);
  if (Result<void> placed = place_blocks(*volume); !placed) return propagate(placed);
  return std::make_shared<ErofsImage>(std::move(volume));
}

}  // namespace mkvirtfs::erofs
