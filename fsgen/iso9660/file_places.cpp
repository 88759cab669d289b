// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/iso9660/file_places.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <limits>

#include "fsgen/iso9660/system_use.h"
#include "support/arithmetic.h"
#include "support/text.h"

namespace mkvirtfs::iso9660 {
namespace {

constexpr std::uint64_t kMostBlocks = std::numeric_limits<std::uint32_t>::max();

}  // namespace

std::uint64_t blocks_for(std::uint64_t bytes) noexcept {
  return ceil_div<std::uint64_t>(bytes, kBlockBytes);
}

Result<FilePlaces> FilePlaces::make(const SourceTree& tree, std::uint32_t first_block,
                                    std::span<const Duplicate> duplicates,
                                    std::span<const NodeNo> boot,
                                    std::span<const Boot::File> boot_files) {
  const auto too_large = [&](NodeNo no) {
    return fail(Errc::does_not_fit,
                fmt::format("{} would end behind {}, where ISO 9660 volumes end", tree.path(no),
                            human_size(kMostBlocks * kBlockBytes)),
                {{"fs", "ext4"}});
  };
  FilePlaces places;
  places.first_block_ = first_block;
  const auto is_boot = [&](NodeNo no) { return std::ranges::find(boot, no) != boot.end(); };
  for (const Duplicate& duplicate : duplicates) {
    // What boot files become is not what others with their bytes are.
    if (!is_boot(duplicate.node) && !is_boot(duplicate.original)) {
      places.duplicates_.push_back(duplicate);
    }
  }

  std::uint64_t at = first_block;
  for (std::size_t i = 0; i < boot.size(); ++i) {
    at = round_up<std::uint64_t>(at, std::max(1u, boot_files[i].align_blocks));
    const std::uint64_t blocks = blocks_for(tree.node(boot[i]).size_bytes);
    if (blocks > kMostBlocks || at > kMostBlocks - blocks) return too_large(boot[i]);
    places.boot_.push_back(
        {boot[i], static_cast<std::uint32_t>(at), static_cast<std::uint32_t>(blocks)});
    at += blocks;
  }
  places.sequence_ = data_sequence(tree);
  places.starts_.reserve(tree.node_count());
  for (std::uint32_t position = 0; position < tree.node_count(); ++position) {
    const NodeNo no{places.sequence_.at(position)};
    places.starts_.add(static_cast<std::uint32_t>(at));
    const Node& node = tree.node(no);
    if (!node.is_regular()) continue;
    if (places.duplicate_of(no) != nullptr) continue;
    if (!boot.empty() && is_boot(no)) continue;
    const std::uint64_t blocks = blocks_for(node.size_bytes);
    if (blocks > kMostBlocks || at > kMostBlocks - blocks) return too_large(no);
    at += blocks;
  }
  places.starts_.finish(static_cast<std::uint32_t>(at));
  return places;
}

const Duplicate* FilePlaces::duplicate_of(NodeNo no) const noexcept {
  const auto duplicate = std::ranges::lower_bound(duplicates_, no, {}, &Duplicate::node);
  return duplicate != duplicates_.end() && duplicate->node == no ? &*duplicate : nullptr;
}

std::uint32_t FilePlaces::block_of(NodeNo no) const noexcept {
  if (const Duplicate* duplicate = duplicate_of(no)) {
    return starts_.begin_of(sequence_.position_of(duplicate->original));
  }
  const auto boot = std::ranges::find(boot_, no, &Run::node);
  if (boot != boot_.end()) return boot->block;
  const std::uint32_t position = sequence_.position_of(no);
  return starts_.is_empty(position) ? 0 : starts_.begin_of(position);
}

std::optional<FilePlaces::Run> FilePlaces::run_at(std::uint32_t block) const noexcept {
  if (block < starts_.begin()) {
    const auto boot = std::ranges::find_if(boot_, [&](const Run& run) {
      return block >= run.block && block - run.block < run.blocks;
    });
    return boot == boot_.end() ? std::nullopt : std::optional(*boot);
  }
  const std::uint32_t position = starts_.thing_at(block);
  const std::uint32_t start = starts_.begin_of(position);
  return Run{NodeNo{sequence_.at(position)}, start, starts_.end_of(position) - start};
}

}  // namespace mkvirtfs::iso9660
