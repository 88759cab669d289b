// SPDX-License-Identifier: BSD-3-Clause
//
// Where each node's data begins, in data order, is all that is kept: a node without data of its own
// begins where the next one does. Duplicates and boot files are such nodes, looked up beside.
#include "fsgen/iso9660/file_area.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <limits>

#include "support/arithmetic.h"
#include "support/text.h"

namespace mkvirtfs::iso9660 {
namespace {

constexpr std::uint64_t kMostBlocks = std::numeric_limits<std::uint32_t>::max();

}  // namespace

Result<FileArea> FileArea::make(const SourceTree& tree, BlockNo first_block,
                                std::span<const Duplicate> duplicates, std::span<const NodeNo> boot,
                                std::span<const Boot::File> boot_files) {
  const auto too_large = [&](NodeNo no) {
    return fail(Errc::does_not_fit,
                fmt::format("{} would end behind {}, where ISO 9660 volumes end", tree.path(no),
                            human_size(kMostBlocks * kBlockBytes)),
                {{"fs", "ext4"}});
  };
  FileArea area;
  area.first_block_ = first_block;
  const auto is_boot = [&](NodeNo no) { return std::ranges::find(boot, no) != boot.end(); };
  for (const Duplicate& duplicate : duplicates) {
    // What boot files become is not what others with their bytes are.
    if (!is_boot(duplicate.node) && !is_boot(duplicate.original)) {
      area.duplicates_.push_back(duplicate);
    }
  }

  std::uint64_t at = first_block.value();
  const auto place_boot = [&](bool is_last) -> Result<void> {
    for (std::size_t i = 0; i < boot.size(); ++i) {
      if (boot_files[i].is_last != is_last) continue;
      at = round_up<std::uint64_t>(at, std::max(1u, boot_files[i].align_blocks));
      const std::uint64_t blocks = blocks_for(tree.node(boot[i]).size_bytes);
      if (blocks > kMostBlocks || at > kMostBlocks - blocks) return too_large(boot[i]);
      area.boot_.push_back({boot[i], block_no(at), static_cast<std::uint32_t>(blocks)});
      at += blocks;
    }
    return {};
  };
  if (Result<void> good = place_boot(false); !good) return propagate(good);
  area.sequence_ = data_sequence(tree);
  area.starts_.reserve(tree.node_count());
  for (std::uint32_t position = 0; position < tree.node_count(); ++position) {
    const NodeNo no{area.sequence_.at(position)};
    area.starts_.add(block_no(at));
    const Node& node = tree.node(no);
    if (!node.is_regular()) continue;
    if (area.duplicate_of(no) != nullptr) continue;
    if (!boot.empty() && is_boot(no)) continue;
    const std::uint64_t blocks = blocks_for(node.size_bytes);
    if (blocks > kMostBlocks || at > kMostBlocks - blocks) return too_large(no);
    at += blocks;
  }
  area.starts_.finish(block_no(at));
  if (Result<void> good = place_boot(true); !good) return propagate(good);
  return area;
}

const Duplicate* FileArea::duplicate_of(NodeNo no) const noexcept {
  const auto duplicate = std::ranges::lower_bound(duplicates_, no, {}, &Duplicate::node);
  return duplicate != duplicates_.end() && duplicate->node == no ? &*duplicate : nullptr;
}

BlockNo FileArea::block_of(NodeNo no) const noexcept {
  if (const Duplicate* duplicate = duplicate_of(no)) {
    return starts_.begin_of(sequence_.position_of(duplicate->original));
  }
  const auto boot = std::ranges::find(boot_, no, &Run::node);
  if (boot != boot_.end()) return boot->block;
  const std::uint32_t position = sequence_.position_of(no);
  return starts_.is_empty(position) ? BlockNo{0} : starts_.begin_of(position);
}

std::optional<FileArea::Run> FileArea::run_at(BlockNo block) const noexcept {
  if (block < starts_.begin() || block >= starts_.end()) {
    const auto boot = std::ranges::find_if(
        boot_, [&](const Run& run) { return block >= run.block && block < run.end(); });
    return boot == boot_.end() ? std::nullopt : std::optional(*boot);
  }
  const std::uint32_t position = starts_.thing_at(block);
  const BlockNo start = starts_.begin_of(position);
  return Run{NodeNo{sequence_.at(position)}, start, starts_.end_of(position) - start};
}

}  // namespace mkvirtfs::iso9660
