// SPDX-License-Identifier: BSD-3-Clause
//
// What an ext volume needs depends on its size, and its size on what it needs: descriptors on the
// number of groups, mapping blocks on where group metadata cuts a file. So the contents are
// measured once, and sizes are tried: a volume of so many blocks is placed, which takes a pass over
// the nodes; what does not fit says how many blocks lack, and the next try has as many more.
#include "fsgen/ext2/plan.h"

#include <ext2fs/ext2fs.h>
#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <limits>
#include <string>
#include <vector>

#include "fsgen/ext2/ext2_image.h"
#include "fsgen/ext2/volume.h"
#include "fsgen/image/size_search.h"
#include "support/arithmetic.h"
#include "support/text.h"

namespace mkvirtfs::ext2 {
namespace {

constexpr std::uint64_t kSpareInodes = 1024;
constexpr std::uint64_t kLeastBlocksOfAJournal =
    2048;  // a smaller file system has none (ext2fs_default_journal_size)
constexpr std::uint64_t kMostInodes = std::numeric_limits<std::uint32_t>::max();

std::vector<Setting> ways_to_larger_images(const Parameters& parameters) {
  if (parameters.block_bytes < 4096) return {{"block-size", "4096"}};
  if (parameters.variant != Variant::ext4) return {{"fs", "ext4"}};
  return {};
}

/// Finds the size of a volume: everything in it depends on everything else, so sizes are tried
/// until one holds.
class Sizer {
 public:
  Sizer(const Contents& contents, const Options& options)
      : contents_(contents), parameters_(contents.parameters) {
    const std::uint64_t used = contents.numbers.last().value();
    const std::uint64_t wanted = options.inodes ? *options.inodes : used + used / 10 + kSpareInodes;
    inodes_ = std::min(std::max(wanted, used), kMostInodes);
  }

  /// Exactly so many blocks, but for a rest too small for a group. nullptr if the contents do not
  /// fit; `shortfall` then says by how many blocks at least.
  std::unique_ptr<const Volume> try_blocks(std::uint64_t block_count,
                                           std::uint64_t& shortfall) const {
    shortfall = 1;
    const std::optional<Volume::Size> size = shape(block_count, shortfall);
    if (!size) return nullptr;
    auto volume = std::make_unique<const Volume>(contents_, *size);
    if (volume->fits()) return volume;
    shortfall = volume->shortfall();
    return nullptr;
  }

  /// The smallest volume found with `free_blocks(used)` left free.
  template <class FreeBlocks>
  Result<std::unique_ptr<const Volume>> fit(FreeBlocks&& free_blocks,
                                            std::uint64_t rounded_to) const {
    std::uint64_t blocks = least_blocks();
    while (true) {
      if (blocks > most_blocks()) return too_big(blocks);
      std::uint64_t shortfall = 0;
      auto volume = try_blocks(blocks, shortfall);
      if (volume) {
        const std::uint64_t used = volume->layout().block_count() - volume->free_blocks();
        const std::uint64_t wanted = free_blocks(used);
        if (volume->free_blocks() >= wanted) return volume;
        shortfall = wanted - volume->free_blocks();
      }
      blocks = round_up(blocks + shortfall, rounded_to);
    }
  }

  /// The smallest block count that holds the contents, near enough to be named in a message and to
  /// be true there.
  Result<std::uint64_t> smallest() const {
    auto found = fit([](std::uint64_t) { return std::uint64_t{0}; }, 1);
    if (!found) return propagate(found);
    return smallest_that_holds<std::uint64_t>(
        contents_.data_blocks, (*found)->layout().block_count(), [&](std::uint64_t blocks) {
          std::uint64_t shortfall = 0;
          return blocks > parameters_.first_data_block() && try_blocks(blocks, shortfall);
        });
  }

  std::uint64_t most_blocks() const noexcept {
    // Block numbers have 32 bits without 64bit, else 48; and the descriptor table's copies must fit
    // in a group.
    const std::uint64_t by_number = std::uint64_t{1} << (parameters_.sixty_four_bit ? 48 : 32);
    const std::uint64_t descriptors_per_block =
        parameters_.block_bytes / parameters_.descriptor_bytes();
    const std::uint64_t half_a_group = parameters_.blocks_per_group() / 2;
    return std::min(by_number - 1,
                    half_a_group * descriptors_per_block * parameters_.blocks_per_group());
  }

  std::uint64_t inodes() const noexcept { return inodes_; }

 private:
  std::unexpected<Error> too_big(std::uint64_t blocks) const {
    return fail(
        Errc::does_not_fit,
        fmt::format("the image needs {}; with {}-byte blocks and these features it ends at {}",
                    human_size(blocks * parameters_.block_bytes), parameters_.block_bytes,
                    human_size(most_blocks() * parameters_.block_bytes)),
        ways_to_larger_images(parameters_));
  }

  std::uint64_t least_blocks() const noexcept {
    const std::uint64_t most_inodes_in_group = std::uint64_t{8} * parameters_.block_bytes;
    const std::uint64_t for_inodes =
        (ceil_div(inodes_, most_inodes_in_group) - 1) * parameters_.blocks_per_group() + 1;
    const std::uint64_t for_data =
        contents_.data_blocks + ceil_div(inodes_, std::uint64_t{parameters_.inodes_per_block()});
    std::uint64_t least = std::max(for_inodes, for_data) + parameters_.first_data_block() + 1;
    if (parameters_.has_journal) least = std::max(least, kLeastBlocksOfAJournal);
    return least;
  }

  std::optional<Volume::Size> shape(std::uint64_t block_count, std::uint64_t& shortfall) const {
    const std::uint32_t step = GroupLayout::inode_step(parameters_);
    while (true) {
      if (block_count <= parameters_.first_data_block()) return std::nullopt;
      const std::uint64_t groups = GroupLayout::group_count_for(parameters_, block_count);
      const std::uint64_t inodes_per_group =
          round_up(ceil_div(inodes_, groups), std::uint64_t{step});
      if (inodes_per_group > std::uint64_t{8} * parameters_.block_bytes) {
        const std::uint64_t groups_needed =
            ceil_div(inodes_, std::uint64_t{8} * parameters_.block_bytes);
        shortfall = (groups_needed - groups) * parameters_.blocks_per_group();
        return std::nullopt;
      }
      if (inodes_per_group * groups > kMostInodes) return std::nullopt;
      const auto per_group = static_cast<std::uint32_t>(inodes_per_group);
      const std::uint64_t usable =
          GroupLayout::usable_block_count(parameters_, block_count, per_group);
      if (usable != block_count) {
        if (usable <= parameters_.first_data_block()) {
          shortfall = 1 + per_group / parameters_.inodes_per_block();
          return std::nullopt;
        }
        block_count = usable;
        continue;
      }
      const std::uint64_t group_metadata = 1 +
                                           GroupLayout::descriptor_blocks_for(parameters_, groups) +
                                           2 + per_group / parameters_.inodes_per_block();
      if (group_metadata >= parameters_.blocks_per_group()) return std::nullopt;
      Volume::Size size{block_count, per_group, 0};
      if (parameters_.has_journal) {
        if (block_count < kLeastBlocksOfAJournal) {
          shortfall = kLeastBlocksOfAJournal - block_count;
          return std::nullopt;
        }
        size.journal_blocks = static_cast<std::uint32_t>(ext2fs_default_journal_size(block_count));
      }
      return size;
    }
  }

  const Contents& contents_;
  const Parameters& parameters_;
  std::uint64_t inodes_;
};

}  // namespace

Result<std::shared_ptr<const PlannedImage>> plan(std::shared_ptr<const SourceTree> tree,
                                                 const Options& options) {
  const Result<Parameters> parameters = resolve(options, *tree);
  if (!parameters) return propagate(parameters);
  Result<std::unique_ptr<const Contents>> contents =
      Contents::make(std::move(tree), *parameters, options.threads);
  if (!contents) return propagate(contents);

  const Sizer sizer(**contents, options);
  const std::uint32_t block_bytes = parameters->block_bytes;
  if (options.inodes && *options.inodes < (*contents)->numbers.last().value()) {
    return std::unexpected(
        Error{Errc::does_not_fit,
              0,
              fmt::format("the source needs {}", (*contents)->numbers.last().value()),
              {"inodes", std::to_string(*options.inodes)}});
  }

  if (!options.size_bytes) {
    auto volume =
        sizer.fit([&](std::uint64_t used) { return free_units(options.free, used, block_bytes); },
                  kRoundSizeBytes / block_bytes);
    if (!volume) return propagate(volume);
    const std::uint64_t size_bytes = (*volume)->layout().block_count() * block_bytes;
    return std::make_shared<Ext2Image>(std::move(*contents), std::move(*volume), size_bytes);
  }

  const std::uint64_t blocks = *options.size_bytes / block_bytes;
  if (blocks > sizer.most_blocks()) {
    std::vector<Setting> ways;
    if (parameters->variant != Variant::ext4) ways = {{"fs", "ext4"}};
    return std::unexpected(
        Error{Errc::does_not_fit,
              0,
              fmt::format("with {}-byte blocks and these features an image ends at {} bytes",
                          block_bytes, sizer.most_blocks() * block_bytes),
              {"size", std::to_string(*options.size_bytes)},
              std::move(ways)});
  }
  std::uint64_t shortfall = 0;
  auto volume = sizer.try_blocks(blocks, shortfall);
  if (!volume) {
    const Result<std::uint64_t> smallest = sizer.smallest();
    if (!smallest) return propagate(smallest);
    return size_too_small(*options.size_bytes, *smallest * block_bytes);
  }
  return std::make_shared<Ext2Image>(std::move(*contents), std::move(volume), *options.size_bytes);
}

}  // namespace mkvirtfs::ext2
