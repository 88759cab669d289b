// SPDX-License-Identifier: BSD-3-Clause
//
// What an ext volume needs depends on its size, and its size on what it needs: descriptors on the
// number of groups, inodes on the number of blocks, mapping blocks on where group metadata cuts a
// file. So sizes are tried: a volume of so many blocks is placed, which takes a pass over the
// nodes; what does not fit says how many blocks lack, and the next try has as many more, and those
// that its own inodes take.
//
// A given size is tried with all defaults, then with fewer and fewer of them. Reserved descriptors
// give way first. Inodes that go by the size give way to the spare ones of a small volume, then the
// journal does, and only in the end
// these spare ones: a disk on which no file can be made is of little use.
#include "fsgen/ext2/sizer.h"

#include <ext2fs/ext2fs.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <string_view>
#include <utility>

#include "fsgen/image/size_search.h"
#include "support/arithmetic.h"
#include "support/text.h"

namespace mkvirtfs::ext2 {
namespace {

constexpr std::uint64_t kSpareInodes = 1024;
constexpr std::uint64_t kLeastBlocksOfAJournal =
    2048;  // a smaller file system has none (ext2fs_default_journal_size)
constexpr std::uint64_t kMostInodes = std::numeric_limits<std::uint32_t>::max();

/// The usage types "default", "big" and "huge" of mke2fs.
constexpr std::uint64_t default_bytes_per_inode(std::uint64_t volume_bytes) noexcept {
  if (volume_bytes >= std::uint64_t{16} << 40) return 65536;
  if (volume_bytes >= std::uint64_t{4} << 40) return 32768;
  return 16384;
}

constexpr Kept::Inodes most_inodes(Defaults defaults) noexcept {
  return defaults == Defaults::v0_1 ? Kept::Inodes::spare : Kept::Inodes::by_size;
}

constexpr Kept::Inodes fewest_inodes(Defaults defaults) noexcept {
  return defaults == Defaults::v0_1 ? Kept::Inodes::spare : Kept::Inodes::in_use;
}

std::vector<Setting> ways_to_larger_images(const Parameters& parameters) {
  if (parameters.block_bytes < 4096) return {{"block-size", "4096"}};
  if (parameters.variant != Variant::ext4) return {{"fs", "ext4"}};
  return {};
}

}  // namespace

Sizer::Sizer(const Contents& contents, const Options& options)
    : contents_(contents),
      parameters_(contents.parameters),
      options_(options),
      used_inodes_(contents.numbers.last().value()) {}

/// Those without which the volume would not be what was asked for, whatever its size.
std::uint64_t Sizer::inodes_asked() const noexcept {
  return std::max<std::uint64_t>(used_inodes_, options_.inodes.value_or(0));
}

std::uint64_t Sizer::inodes_for(std::uint64_t block_count, const Kept& kept) const noexcept {
  std::uint64_t wanted = inodes_asked();
  if (!options_.inodes && kept.inodes != Kept::Inodes::in_use) {
    wanted = std::max(wanted, used_inodes_ + used_inodes_ / 10 + kSpareInodes);
  }
  const std::uint64_t bytes =
      (block_count - parameters_.first_data_block()) * parameters_.block_bytes;
  if (options_.bytes_per_inode) {
    wanted = std::max(wanted, bytes / *options_.bytes_per_inode);
  } else if (kept.inodes == Kept::Inodes::by_size) {
    wanted = std::max(wanted, bytes / default_bytes_per_inode(bytes));
  }
  return std::min(wanted, kMostInodes);
}

/// Whole blocks of inode tables, and all groups together no more than there are numbers for: a few
/// less than wanted, if only the size wants them.
std::uint32_t Sizer::inodes_per_group_for(std::uint64_t block_count,
                                          const Kept& kept) const noexcept {
  const std::uint64_t step = GroupLayout::inode_step(parameters_);
  const std::uint64_t groups = GroupLayout::group_count_for(parameters_, block_count);
  const std::uint64_t wanted = round_up(ceil_div(inodes_for(block_count, kept), groups), step);
  const std::uint64_t most = round_down(kMostInodes / groups, step);
  const bool is_capped = wanted > most && most * groups >= inodes_asked();
  return static_cast<std::uint32_t>(
      std::min<std::uint64_t>(is_capped ? most : wanted, kMostInodes));
}

bool Sizer::wants_journal(const Kept& kept) const noexcept {
  return parameters_.has_journal && (kept.journal || !parameters_.journal_is_default);
}

/// Blocks of reserved descriptors.
std::uint32_t Sizer::reserved_for(std::uint64_t block_count, const Kept& kept) const {
  const bool wanted = parameters_.resize_inode &&
                      (kept.reserved_descriptors || !parameters_.resize_inode_is_default);
  return wanted ? GroupLayout::reserved_descriptor_blocks_for(parameters_, block_count) : 0;
}

std::optional<Volume::Size> Sizer::shape(std::uint64_t block_count, const Kept& kept,
                                         std::uint64_t& shortfall) const {
  while (true) {
    if (block_count <= parameters_.first_data_block()) return std::nullopt;
    const std::uint64_t groups = GroupLayout::group_count_for(parameters_, block_count);
    const std::uint32_t per_group = inodes_per_group_for(block_count, kept);
    const std::uint32_t reserved = reserved_for(block_count, kept);
    const std::uint64_t most_per_group = std::uint64_t{8} * parameters_.block_bytes;
    if (per_group > most_per_group) {
      const std::uint64_t needed = ceil_div(inodes_for(block_count, kept), most_per_group);
      shortfall = needed > groups ? (needed - groups) * parameters_.blocks_per_group() : 1;
      return std::nullopt;
    }
    if (per_group * groups > kMostInodes) return std::nullopt;
    const std::uint64_t usable =
        GroupLayout::usable_block_count(parameters_, block_count, per_group, reserved);
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
                                         reserved + 2 + per_group / parameters_.inodes_per_block();
    if (group_metadata >= parameters_.blocks_per_group()) return std::nullopt;
    Volume::Size size{block_count, per_group, 0, reserved};
    if (!wants_journal(kept)) return size;
    if (block_count >= kLeastBlocksOfAJournal) {
      size.journal_blocks = static_cast<std::uint32_t>(ext2fs_default_journal_size(block_count));
    } else if (!parameters_.journal_is_default) {
      shortfall = kLeastBlocksOfAJournal - block_count;
      return std::nullopt;
    }
    return size;
  }
}

std::unique_ptr<const Volume> Sizer::try_blocks(std::uint64_t block_count, const Kept& kept,
                                                std::uint64_t& shortfall) const {
  shortfall = 1;
  const std::optional<Volume::Size> size = shape(block_count, kept, shortfall);
  if (!size) return nullptr;
  auto volume = std::make_unique<const Volume>(contents_, *size);
  if (volume->fits()) return volume;
  shortfall = volume->shortfall();
  return nullptr;
}

/// `to` blocks, and as many as the inodes take that so large a volume has more than one of `from`.
std::uint64_t Sizer::grown(std::uint64_t from, std::uint64_t to, const Kept& kept) const noexcept {
  constexpr int kMostRounds = 8;  // each adds a sixty-fourth of what the one before did, or less
  const auto table_blocks = [&](std::uint64_t blocks) {
    return ceil_div<std::uint64_t>(inodes_for(blocks, kept), parameters_.inodes_per_block());
  };
  const std::uint64_t before = table_blocks(from);
  std::uint64_t blocks = to;
  for (int round = 0; round < kMostRounds; ++round) {
    const std::uint64_t now = table_blocks(blocks);
    const std::uint64_t next = to + (now > before ? now - before : 0);
    if (next == blocks) break;
    blocks = next;
  }
  return blocks;
}

/// The smallest volume found with `free_blocks(used)` left free.
template <class FreeBlocks>
Result<std::unique_ptr<const Volume>> Sizer::fit(const Kept& kept, FreeBlocks&& free_blocks,
                                                 std::uint64_t rounded_to) const {
  std::uint64_t blocks = least_blocks(kept);
  while (true) {
    if (blocks > most_blocks()) return too_big(blocks);
    std::uint64_t shortfall = 0;
    auto volume = try_blocks(blocks, kept, shortfall);
    if (volume) {
      const std::uint64_t used = volume->layout().block_count() - volume->free_blocks();
      const std::uint64_t wanted = free_blocks(used);
      if (volume->free_blocks() >= wanted) return volume;
      shortfall = wanted - volume->free_blocks();
    }
    blocks = round_up(grown(blocks, blocks + shortfall, kept), rounded_to);
  }
}

Result<std::unique_ptr<const Volume>> Sizer::with_free_space() const {
  const std::uint32_t block_bytes = parameters_.block_bytes;
  return fit(
      Kept{.inodes = most_inodes(options_.defaults)},
      [&](std::uint64_t used) { return free_units(options_.free, used, block_bytes); },
      kRoundSizeBytes / block_bytes);
}

/// The smallest block count that holds the contents and what was asked for, near enough to be named
/// in a message and to be true there.
Result<std::uint64_t> Sizer::smallest_block_count(const Kept& kept) const {
  auto found = fit(kept, [](std::uint64_t) { return std::uint64_t{0}; }, 1);
  if (!found) return propagate(found);
  return smallest_that_holds<std::uint64_t>(
      contents_.data_blocks, (*found)->layout().block_count(), [&](std::uint64_t blocks) {
        std::uint64_t shortfall = 0;
        return blocks > parameters_.first_data_block() && try_blocks(blocks, kept, shortfall);
      });
}

Result<std::unique_ptr<const Volume>> Sizer::smallest() const {
  constexpr Kept kNothing{
      .inodes = Kept::Inodes::in_use, .journal = false, .reserved_descriptors = false};
  const Result<std::uint64_t> blocks = smallest_block_count(kNothing);
  if (!blocks) return propagate(blocks);
  std::uint64_t shortfall = 0;
  return try_blocks(*blocks, kNothing, shortfall);
}

std::vector<Kept> Sizer::choices() const {
  const Kept::Inodes most = most_inodes(options_.defaults);
  const Kept::Inodes fewest = fewest_inodes(options_.defaults);
  std::vector<Kept> choices;
  for (const bool journal : {true, false}) {
    if (!journal && !parameters_.journal_is_default) continue;
    choices.push_back({.inodes = most, .journal = journal});
    if (parameters_.resize_inode_is_default) {
      choices.push_back({.inodes = most, .journal = journal, .reserved_descriptors = false});
    }
    if (most == Kept::Inodes::by_size) {
      choices.push_back(
          {.inodes = Kept::Inodes::spare, .journal = journal, .reserved_descriptors = false});
    }
  }
  if (fewest == Kept::Inodes::in_use) {
    choices.push_back({.inodes = fewest, .journal = false, .reserved_descriptors = false});
  }
  return choices;
}

std::string Sizer::gave_way(const Kept& kept, const Volume& volume) const {
  const Kept best = choices().front();
  const std::uint64_t blocks = volume.layout().block_count();
  std::vector<std::string_view> parts;
  if (reserved_for(blocks, best) > volume.layout().reserved_descriptor_blocks()) {
    parts.push_back("reserved descriptors");
  }
  if (inodes_per_group_for(blocks, kept) < inodes_per_group_for(blocks, best)) {
    parts.push_back("as many inodes as usual");
  }
  if (wants_journal(best) && !volume.has_journal() && blocks >= kLeastBlocksOfAJournal) {
    parts.push_back("a journal");
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

Result<Sizer::Sized> Sizer::exactly(std::uint64_t block_count) const {
  for (const Kept& kept : choices()) {
    std::uint64_t shortfall = 0;
    auto volume = try_blocks(block_count, kept, shortfall);
    if (!volume) continue;
    std::string gave = gave_way(kept, *volume);
    return Sized{std::move(volume), std::move(gave)};
  }
  const Result<std::uint64_t> least = smallest_block_count(choices().back());
  if (!least) return propagate(least);
  std::unexpected<Error> refused =
      size_too_small(*options_.size_bytes, *least * parameters_.block_bytes);
  std::uint64_t shortfall = 0;
  const auto volume = try_blocks(*least, choices().back(), shortfall);
  if (volume && options_.defaults == Defaults::current) {
    refused.error().what += could_be_left_out(*volume);
  }
  return refused;
}

std::string Sizer::could_be_left_out(const Volume& volume) const {
  const GroupLayout& layout = volume.layout();
  std::string text;
  const auto add = [&](std::string_view what, std::uint64_t blocks) {
    if (blocks == 0) return;
    text += fmt::format("{} {} {} bytes", text.empty() ? "; of what was asked for," : ",", what,
                        blocks * parameters_.block_bytes);
  };
  // Without its journal it would be no ext3.
  if (parameters_.variant == Variant::ext4 && volume.has_journal()) {
    const InodeBlocks journal = volume.blocks_of_journal();
    add("the journal takes", journal.mapping_blocks + journal.data_blocks());
  }
  if (options_.inodes || options_.bytes_per_inode) {
    const std::uint64_t blocks = std::uint64_t{layout.group_count()} * layout.inode_table_blocks();
    const std::uint64_t in_use =
        ceil_div<std::uint64_t>(used_inodes_, parameters_.inodes_per_block());
    add("inodes that are not in use take", blocks - in_use);
  }
  if (volume.has_resize_inode()) {
    const std::uint64_t copies = layout.superblock_groups().size();
    add("reserved descriptors take", copies * layout.reserved_descriptor_blocks() + 1);
  }
  return text;
}

std::uint64_t Sizer::most_blocks() const noexcept {
  // Block numbers have 32 bits without 64bit, else 48; and the descriptor table's copies must fit
  // in a group.
  const std::uint64_t by_number = std::uint64_t{1} << (parameters_.sixty_four_bit ? 48 : 32);
  const std::uint64_t descriptors_per_block =
      parameters_.block_bytes / parameters_.descriptor_bytes();
  const std::uint64_t half_a_group = parameters_.blocks_per_group() / 2;
  return std::min(by_number - 1,
                  half_a_group * descriptors_per_block * parameters_.blocks_per_group());
}

std::unexpected<Error> Sizer::too_big(std::uint64_t blocks) const {
  return fail(
      Errc::does_not_fit,
      fmt::format("the image needs {}; with {}-byte blocks and these features it ends at {}",
                  human_size(blocks * parameters_.block_bytes), parameters_.block_bytes,
                  human_size(most_blocks() * parameters_.block_bytes)),
      ways_to_larger_images(parameters_));
}

/// A bound from below: fewer blocks cannot hold the contents.
std::uint64_t Sizer::least_blocks(const Kept& kept) const noexcept {
  // Those that go by the size of no more than the first block are those that no size can spare.
  const std::uint64_t inodes = inodes_for(parameters_.first_data_block() + 1, kept);
  const std::uint64_t most_inodes_in_group = std::uint64_t{8} * parameters_.block_bytes;
  const std::uint64_t for_inodes =
      (ceil_div(inodes, most_inodes_in_group) - 1) * parameters_.blocks_per_group() + 1;
  const std::uint64_t for_data =
      contents_.data_blocks + ceil_div(inodes, std::uint64_t{parameters_.inodes_per_block()});
  std::uint64_t least = std::max(for_inodes, for_data) + parameters_.first_data_block() + 1;
  if (parameters_.has_journal && !parameters_.journal_is_default) {
    least = std::max(least, kLeastBlocksOfAJournal);
  }
  return least;
}

}  // namespace mkvirtfs::ext2
