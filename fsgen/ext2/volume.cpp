// SPDX-License-Identifier: BSD-3-Clause
//
// Placing is one pass with one cursor through space: directories, attribute blocks, the journal,
// then the nodes in data order, each with its mapping blocks before its data. Only where each thing
// begins is kept, and where the next one begins is where it ends: which thing has a block is a
// binary search. A volume too small for its contents is placed all the same, to learn how many
// blocks it lacks.
#include "fsgen/ext2/volume.h"

#include <ext2fs/ext2_fs.h>
#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fsgen/ext2/quota_file.h"
#include "support/arithmetic.h"

namespace mkvirtfs::ext2 {
namespace {

constexpr std::uint32_t kMostLinks = 65000;  // EXT2_LINK_MAX of e2fsprogs and EXT4_LINK_MAX
constexpr std::uint32_t kMostLinksOfDirectory = 32000;  // what every ext2 and ext3 reader takes
constexpr std::size_t kFastSymlinkBytes = 60;           // i_block holds targets shorter than this
constexpr std::uint64_t kMostDirectoryBytes = std::uint64_t{1}
                                              << 31;  // i_size is 32 bits, signed in some readers

/// What helps a file of this size, which these parameters cannot hold; empty when nothing does.
std::vector<Setting> ways_to_larger_files(Parameters parameters, std::uint64_t size_bytes) {
  const auto holds = [&] {
    return ceil_div<std::uint64_t>(size_bytes, parameters.block_bytes) <=
           BlockMapper::logical_limit(parameters);
  };
  parameters.block_bytes = 4096;
  if (holds()) return {{"block-size", "4096"}};
  if (parameters.variant == Variant::ext4) return {};
  parameters.extents = true;
  parameters.huge_file = true;
  if (!holds()) return {};
  return {{"fs", "ext4"}};
}

Parameters parameters_of(Parameters parameters, const Volume::Size& size) {
  parameters.has_journal = size.journal_blocks != 0;
  parameters.resize_inode = size.reserved_descriptor_blocks != 0;
  return parameters;
}

}  // namespace

Result<std::unique_ptr<const Contents>> Contents::make(std::shared_ptr<const SourceTree> tree,
                                                       const Parameters& parameters,
                                                       unsigned threads) {
  auto contents = std::make_unique<Contents>(std::move(tree), parameters);
  if (Result<void> planned = contents->directories.plan(threads); !planned) {
    return propagate(planned);
  }
  contents->collect_sparse_files();
  if (const auto checked = contents->check_limits(); !checked) return propagate(checked);
  if (contents->directories.needs_large_dir()) contents->parameters.large_dir = true;
  Result<Xattrs> xattrs = Xattrs::make(*contents->tree, parameters, contents->numbers);
  if (!xattrs) return propagate(xattrs);
  contents->xattrs = std::move(*xattrs);
  if (!contents->xattrs.values().empty()) contents->parameters.ea_inode = true;
  if (const auto checked = contents->check_inode_count(); !checked) return propagate(checked);
  contents->collect_owners();
  contents->collect_own_files();
  for (NodeNo no; no < contents->tree->node_count(); ++no) {
    contents->data_blocks += contents->blocks_of(no).data_blocks();
  }
  for (std::uint32_t d = 0; d < contents->directories.count(); ++d) {
    contents->data_blocks += contents->directories.block_count(DirectoryNo{d});
  }
  return contents;
}

std::uint64_t Contents::blocks_for(std::uint64_t bytes) const noexcept {
  return ceil_div<std::uint64_t>(bytes, parameters.block_bytes);
}

bool Contents::is_slow_symlink(const Node& node) const noexcept {
  return node.is_symlink() && node.size_bytes >= kFastSymlinkBytes;
}

Result<void> Contents::check_limits() const {
  const auto name = [&](NodeNo no) {
    return no == kRootNode ? std::string("the source's root") : tree->path(no);
  };
  if (const Entry* found = tree->find(tree->directories()[0], kLostFoundName);
      found != nullptr && !tree->node(found->node).is_directory()) {
    return fail(Errc::does_not_fit, "lost+found is not a directory; ext needs it to be one",
                {{"exclude", "/lost+found"}});
  }
  const std::uint64_t logical_limit = BlockMapper::logical_limit(parameters);
  for (NodeNo no; no < tree->node_count(); ++no) {
    const Node& node = tree->node(no);
    if (node.is_regular() && blocks_for(node.size_bytes) > logical_limit) {
      return fail(Errc::does_not_fit,
                  fmt::format("{} is {} bytes; with {}-byte blocks files of this variant end at {}",
                              name(no), node.size_bytes, parameters.block_bytes,
                              logical_limit * parameters.block_bytes),
                  ways_to_larger_files(parameters, node.size_bytes));
    }
    if (node.is_symlink() && node.size_bytes >= parameters.block_bytes) {
      return fail(Errc::does_not_fit,
                  fmt::format("{} is a symlink to {} bytes; with {}-byte blocks targets end at {}",
                              name(no), node.size_bytes, parameters.block_bytes,
                              parameters.block_bytes - 1),
                  {{"block-size", "4096"}});
    }
    if (node.link_count > kMostLinks) {
      return fail(Errc::does_not_fit,
                  fmt::format("{} has {} hard links; ext files end at {}", name(no),
                              node.link_count, kMostLinks),
                  {{"exclude"}});
    }
  }
  for (std::uint32_t d = 0; d < tree->directories().size(); ++d) {
    const DirectoryNo directory{d};
    const NodeNo no = tree->directories()[d].node;
    // The root may hold a lost+found that is ours: it counts, but the message is about the source.
    const std::uint32_t ours = d == 0 && numbers.adds_lost_found() ? 1 : 0;
    const std::uint32_t most = kMostLinksOfDirectory - 2 - ours;
    const std::uint32_t subdirectories = directories.subdirectory_count(directory) - ours;
    if (!parameters.dir_nlink && subdirectories > most) {
      return fail(Errc::does_not_fit,
                  fmt::format("{} has {} subdirectories; ext2 and ext3 end at {}", name(no),
                              subdirectories, most),
                  {{"fs", "ext4"}});
    }
    if (static_cast<std::uint64_t>(directories.block_count(directory)) * parameters.block_bytes >=
        kMostDirectoryBytes) {
      return fail(Errc::does_not_fit,
                  fmt::format("{} has {} names, which need more than the 2 GiB of an ext directory",
                              name(no), tree->directories()[d].entry_count));
    }
  }
  return {};
}

Result<void> Contents::check_inode_count() const {
  const std::uint64_t most = ~std::uint32_t{0} - 2 * kFirstInode.value();
  if (tree->node_count() + xattrs.values().size() <= most) return {};
  return fail(Errc::does_not_fit,
              fmt::format("the source has {} files and directories; ext ends at 4294967295 inodes",
                          tree->node_count()));
}

void Contents::collect_owners() {
  if (!parameters.quota) return;
  for (const Node& node : tree->nodes()) {
    users.push_back(node.uid);
    groups.push_back(node.gid);
  }
  if (numbers.adds_lost_found()) {
    users.push_back(0);
    groups.push_back(0);
  }
  for (std::vector<std::uint32_t>* ids : {&users, &groups}) {
    std::ranges::sort(*ids);
    ids->erase(std::ranges::unique(*ids).begin(), ids->end());
    ids->shrink_to_fit();
  }
}

void Contents::collect_own_files() {
  using enum OwnFile::What;
  if (parameters.quota) {
    own_files.push_back({user_quota, kUserQuotaInode, quota_file_bytes(users), 0});
    own_files.push_back({group_quota, kGroupQuotaInode, quota_file_bytes(groups), 0});
    constexpr std::uint32_t kOnlyProject[] = {0};
    if (parameters.project) {
      own_files.push_back(
          {project_quota, numbers.project_quota(), quota_file_bytes(kOnlyProject), 0});
    }
  }
  if (parameters.orphan_file) own_files.push_back({orphans, numbers.orphan_file(), 0, 0});
  const std::span<const Xattrs::Value> values = xattrs.values();
  for (std::uint32_t i = 0; i < values.size(); ++i) {
    own_files.push_back({xattr_value, numbers.of_value(i), values[i].bytes.size(), i});
  }
  numbers.set_value_count(narrow<std::uint32_t>(values.size()));
  for (const OwnFile& file : own_files) data_blocks += blocks_for(file.size_bytes);
}

void Contents::collect_sparse_files() {
  for (NodeNo no; no < tree->node_count(); ++no) {
    if (!tree->is_sparse(no)) continue;
    Range dense;
    const auto first = narrow<std::uint32_t>(sparse_runs_.size());
    for (const Range& run : tree->data_runs(no, dense)) {
      const std::uint64_t start = run.offset / parameters.block_bytes;
      const std::uint64_t end = blocks_for(run.end());
      if (sparse_runs_.size() > first && start <= sparse_runs_.back().end()) {
        // Two runs of the source within one block, or touching blocks: one run of ours.
        BlockRun& before = sparse_runs_.back();
        before.count = std::max(before.end(), end) - before.logical;
      } else {
        const std::uint64_t rank =
            sparse_runs_.size() > first ? sparse_runs_.back().rank + sparse_runs_.back().count : 0;
        sparse_runs_.push_back({start, end - start, rank});
      }
    }
    sparse_files_.push_back({no, first, narrow<std::uint32_t>(sparse_runs_.size()) - first});
  }
}

InodeBlocks Contents::blocks_of(NodeNo no) const noexcept {
  InodeBlocks blocks;
  const Node& node = tree->node(no);
  if (tree->is_sparse(no)) {
    const SparseFile& file = *std::ranges::lower_bound(sparse_files_, no, {}, &SparseFile::node);
    blocks.sparse = std::span(sparse_runs_).subspan(file.first_run, file.run_count);
  } else if (node.is_regular() || is_slow_symlink(node)) {
    blocks.dense.count = blocks_for(node.size_bytes);
  }
  return blocks;
}

Volume::Volume(const Contents& contents, const Size& size)
    : contents_(contents),
      parameters_(parameters_of(contents.parameters, size)),
      layout_(parameters_, size.block_count, size.inodes_per_group,
              size.reserved_descriptor_blocks),
      mapper_(parameters_, layout_),
      journal_blocks_(size.journal_blocks) {
  place();
  if (!fits()) return;
  count_directories();
  if (parameters_.quota) make_quota_files();
  // Without checksummed descriptors there is no flag to say so; without flex_bg each group has its
  // own tables.
  const bool can_be_blank = parameters().metadata_csum && parameters().flex_bg;
  const bool full = used_end_ == layout_.space_end();
  first_blank_group_ = can_be_blank && !full ? layout_.group_of(layout_.block_at(used_end_)) + 1
                                             : GroupNo{layout_.group_count()};
}

SpaceNo Volume::place_blocks(std::span<const BlockRun> runs, SpaceNo start) const {
  if (runs.empty()) return start;
  return start + (mapper_.mapping_blocks_for(runs, start) + runs.back().rank + runs.back().count);
}

void Volume::place() {
  SpaceNo at = layout_.packed_end();
  directory_starts_.reserve(contents_.directories.count());
  for (std::uint32_t d = 0; d < contents_.directories.count(); ++d) {
    directory_starts_.add(at);
    const BlockRun run{0, contents_.directories.block_count(DirectoryNo{d}), 0};
    at = place_blocks(std::span(&run, 1), at);
  }
  directory_starts_.finish(at);
  xattrs_start_ = at;
  at += contents_.xattrs.block_count();
  resize_map_ = at;
  if (has_resize_inode()) at += 1;
  own_files_start_ = at;
  for (std::uint32_t own = 0; own < contents_.own_files.size(); ++own) {
    own_starts_.add(at);
    const BlockRun run{0, contents_.blocks_for(size_of_own(own)), 0};
    at = place_blocks(std::span(&run, 1), at);
  }
  own_starts_.finish(at);
  journal_start_ = at;
  if (has_journal()) {
    const BlockRun run{0, journal_blocks_, 0};
    at = place_blocks(std::span(&run, 1), at);
  }
  files_start_ = at;
  const std::uint32_t node_count = contents_.tree->node_count();
  node_starts_.reserve(node_count);
  for (std::uint32_t position = 0; position < node_count; ++position) {
    node_starts_.add(at);
    const InodeBlocks blocks = contents_.blocks_of(NodeNo{contents_.sequence.at(position)});
    at = place_blocks(blocks.runs(), at);
  }
  node_starts_.finish(at);
  used_end_ = at;
}

void Volume::count_directories() {
  const std::uint32_t per_group = layout_.inodes_per_group();
  const InodeNumbers& numbers = contents_.numbers;
  directories_in_group_.assign(ceil_div(numbers.last().value(), per_group), 0);
  const auto count = [&](InodeNo inode) {
    ++directories_in_group_[(inode.value() - 1) / per_group];
  };
  for (const Directory& directory : contents_.tree->directories()) {
    count(numbers.of(directory.node));
  }
  if (numbers.adds_lost_found()) count(kFirstInode);
}

std::uint64_t Volume::free_blocks() const noexcept {
  std::uint64_t free = layout_.space_end() - used_end_;
  for (const GroupLayout::Gap& gap : layout_.gaps()) free += gap.count;
  return free;
}

Volume::Area Volume::area_of(SpaceNo space) const noexcept {
  if (space >= used_end_) return Area::free;
  if (space >= files_start_) return Area::files;
  if (space >= journal_start_) return Area::journal;
  if (space >= own_files_start_) return Area::own_files;
  if (space >= resize_map_) return Area::resize_map;
  if (space >= xattrs_start_) return Area::xattrs;
  if (space >= layout_.packed_end()) return Area::directories;
  return Area::packed_metadata;
}

SpaceNo Volume::area_end(Area area) const noexcept {
  switch (area) {
    case Area::packed_metadata:
      return layout_.packed_end();
    case Area::directories:
      return xattrs_start_;
    case Area::xattrs:
      return resize_map_;
    case Area::resize_map:
      return own_files_start_;
    case Area::own_files:
      return journal_start_;
    case Area::journal:
      return files_start_;
    case Area::files:
      return used_end_;
    case Area::free:
      return layout_.space_end();
  }
  std::unreachable();
}

InodeBlocks Volume::blocks_of_directory(DirectoryNo directory) const noexcept {
  InodeBlocks blocks;
  blocks.dense.count = contents_.directories.block_count(directory);
  blocks.start = directory_starts_.begin_of(directory.value());
  const SpaceNo end = directory_starts_.end_of(directory.value());
  blocks.mapping_blocks = end - blocks.start - blocks.dense.count;
  return blocks;
}

InodeBlocks Volume::blocks_of_node(NodeNo no) const noexcept {
  InodeBlocks blocks = contents_.blocks_of(no);
  const std::uint32_t position = contents_.sequence.position_of(no);
  blocks.start = node_starts_.begin_of(position);
  blocks.mapping_blocks = node_starts_.end_of(position) - blocks.start - blocks.data_blocks();
  return blocks;
}

InodeBlocks Volume::blocks_of_journal() const noexcept {
  InodeBlocks blocks;
  blocks.dense.count = journal_blocks_;
  blocks.start = journal_start_;
  blocks.mapping_blocks = files_start_ - journal_start_ - journal_blocks_;
  return blocks;
}

std::uint64_t Volume::size_of_own(std::uint32_t own) const noexcept {
  const OwnFile& file = contents_.own_files[own];
  if (file.what != OwnFile::What::orphans) return file.size_bytes;
  // As mke2fs: a 4096th of the file system, between 32 and 512 blocks.
  const std::uint64_t blocks = std::clamp<std::uint64_t>(layout_.block_count() / 4096, 32, 512);
  return blocks * parameters_.block_bytes;
}

InodeBlocks Volume::blocks_of_own(std::uint32_t own) const noexcept {
  InodeBlocks blocks;
  blocks.dense.count = contents_.blocks_for(size_of_own(own));
  blocks.start = own_starts_.begin_of(own);
  blocks.mapping_blocks = own_starts_.end_of(own) - blocks.start - blocks.dense.count;
  return blocks;
}

std::span<const std::byte> Volume::quota_file(OwnFile::What what) const noexcept {
  return quota_files_[std::to_underlying(what)];
}

std::uint64_t Volume::blocks_held_by(NodeNo no) const noexcept {
  const SourceTree& tree = *contents_.tree;
  const Node& node = tree.node(no);
  const InodeBlocks own =
      node.is_directory() ? blocks_of_directory(tree.directory_no(no)) : blocks_of_node(no);
  return own.mapping_blocks + own.data_blocks() +
         (contents_.xattrs.has_block(node.xattrs) ? 1 : 0) +
         contents_.xattrs.value_blocks(node.xattrs);
}

/// As e2fsck counts: inodes that a directory names, and values of attributes as those of each node
/// that has them.
void Volume::make_quota_files() {
  using enum OwnFile::What;
  std::vector<QuotaUsage> usages[3];
  for (const std::uint32_t id : contents_.users) usages[0].push_back({id, 0, 0});
  for (const std::uint32_t id : contents_.groups) usages[1].push_back({id, 0, 0});
  usages[2].push_back({0, 0, 0});
  const auto add = [&](std::span<QuotaUsage> of, std::uint32_t id, std::uint64_t blocks,
                       std::uint64_t inodes) {
    QuotaUsage& usage = *std::ranges::lower_bound(of, id, {}, &QuotaUsage::id);
    usage.bytes += blocks * parameters_.block_bytes;
    usage.inodes += inodes;
  };
  const auto count = [&](std::uint32_t uid, std::uint32_t gid, std::uint64_t blocks,
                         std::uint64_t inodes) {
    add(usages[0], uid, blocks, inodes);
    add(usages[1], gid, blocks, inodes);
    add(usages[2], 0, blocks, inodes);
  };
  for (NodeNo no; no < contents_.tree->node_count(); ++no) {
    const Node& node = contents_.tree->node(no);
    count(node.uid, node.gid, blocks_held_by(no), 1 + contents_.xattrs.value_count(node.xattrs));
  }
  if (contents_.numbers.adds_lost_found()) {
    const InodeBlocks blocks = blocks_of_directory(contents_.directories.lost_found());
    count(0, 0, blocks.mapping_blocks + blocks.data_blocks(), 1);
  }
  for (const OwnFile::What what : {user_quota, group_quota, project_quota}) {
    quota_files_[std::to_underlying(what)] =
        make_quota_file(what, usages[std::to_underlying(what)]);
  }
}

DirectoryNo Volume::directory_at(SpaceNo space) const noexcept {
  return DirectoryNo{directory_starts_.thing_at(space)};
}

NodeNo Volume::node_at(SpaceNo space) const noexcept {
  return NodeNo{contents_.sequence.at(node_starts_.thing_at(space))};
}

std::uint32_t Volume::used_inodes(GroupNo group) const noexcept {
  const std::uint64_t before = std::uint64_t{group.value()} * layout_.inodes_per_group();
  const std::uint64_t last = contents_.numbers.last().value();
  return last <= before ? 0
                        : static_cast<std::uint32_t>(
                              std::min<std::uint64_t>(last - before, layout_.inodes_per_group()));
}

GroupNo Volume::first_unused_inode_group() const noexcept {
  if (!parameters().metadata_csum) return GroupNo{layout_.group_count()};
  return GroupNo{ceil_div(contents_.numbers.last().value(), layout_.inodes_per_group())};
}

std::uint32_t Volume::used_table_blocks(GroupNo group) const noexcept {
  return ceil_div(used_inodes(group), parameters().inodes_per_block());
}

std::uint32_t Volume::free_blocks(GroupNo group) const noexcept {
  const BlockNo start = layout_.group_start(group);
  const SpaceNo first = layout_.space_below(start);
  const SpaceNo last = layout_.space_below(start + layout_.group_blocks(group));
  std::uint64_t free = last - std::clamp(used_end_, first, last);
  for (const GroupLayout::Gap& gap : layout_.gaps()) {
    const SpaceNo from = std::max(first, gap.start);
    const SpaceNo to = std::min(last, gap.start + gap.count);
    if (from < to) free += to - from;
  }
  return static_cast<std::uint32_t>(free);
}

}  // namespace mkvirtfs::ext2
