// SPDX-License-Identifier: BSD-3-Clause
//
// Parameters are what the options say, and else what mke2fs would choose. What would differ from
// run to run follows from the source and the options instead: the UUID, the hash seed and the
// times.
#include "fsgen/ext2/parameters.h"

#include <ext2fs/ext2_fs.h>
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

#include "fsgen/image/crc32c.h"
#include "fsgen/image/size_search.h"
#include "support/byte_order.h"
#include "support/sha256.h"

namespace mkvirtfs::ext2 {
namespace {

constexpr std::uint64_t kSmallImageBytes = 8u << 20;  // below this, 1 KiB blocks waste less
constexpr std::size_t kLabelBytes = EXT2_LABEL_LEN;

std::string_view name_of(Variant variant) noexcept {
  switch (variant) {
    case Variant::ext2:
      return "ext2";
    case Variant::ext3:
      return "ext3";
    case Variant::ext4:
      return "ext4";
  }
  std::unreachable();
}

/// A feature that can be switched, and the variants in which it may be on.
struct Switch {
  std::string_view word;
  bool Parameters::* field;
  bool in_ext2;
  bool in_ext3;
};
constexpr Switch kSwitches[] = {
    {"dir_index", &Parameters::dir_index, true, true},
    {"sparse_super", &Parameters::sparse_super, true, true},
    {"metadata_csum", &Parameters::metadata_csum, false, false},
    {"metadata_csum_seed", &Parameters::metadata_csum_seed, false, false},
    {"64bit", &Parameters::sixty_four_bit, false, false},
    {"extent", &Parameters::extents, false, false},
    {"flex_bg", &Parameters::flex_bg, false, false},
    {"large_dir", &Parameters::large_dir, false, false},
    {"ea_inode", &Parameters::ea_inode, false, false},
    {"orphan_file", &Parameters::orphan_file, false, false},
    {"quota", &Parameters::quota, false, false},
    {"project", &Parameters::project, false, false},
    {"has_journal", &Parameters::has_journal, false, true},
    {"resize_inode", &Parameters::resize_inode, true, true},
};

/// What a variant always has.
struct Fixed {
  std::string_view word;
  bool Parameters::* field;  // nullptr: every variant has it
};
constexpr Fixed kFixed[] = {
    {"ext_attr", nullptr},
    {"filetype", nullptr},
    {"large_file", nullptr},
    {"huge_file", &Parameters::huge_file},
    {"dir_nlink", &Parameters::dir_nlink},
    {"extra_isize", &Parameters::extra_isize},
};

/// What no image has. It can be taken away, as words for mke2fs do.
constexpr std::string_view kNeverOn[] = {
    "bigalloc", "casefold", "encrypt",       "fast_commit", "inline_data",   "journal_dev",
    "meta_bg",  "mmp",      "sparse_super2", "uninit_bg",   "stable_inodes", "verity",
};

/// Whether a word that is no switch says what is so anyway.
Result<void> check_fixed(const Options& options, const Parameters& parameters,
                         std::string_view word, bool on) {
  const auto* fixed = std::ranges::find(kFixed, word, &Fixed::word);
  if (fixed == std::end(kFixed)) {
    if (!on && std::ranges::find(kNeverOn, word) != std::end(kNeverOn)) return {};
    std::string known;
    for (const Switch& each : kSwitches)
      known += fmt::format("{}{}", known.empty() ? "" : ", ", each.word);
    return fail_option({"features", std::string(word)},
                       fmt::format("not a feature that can be chosen (those are {})", known));
  }
  const bool is_on = fixed->field == nullptr || parameters.*(fixed->field);
  if (on == is_on) return {};
  if (!on) {
    return fail_option({"features", fmt::format("^{}", word)},
                       fmt::format("{} always has it", name_of(options.variant)));
  }
  if (options.variant != Variant::ext4) {
    return fail_option({"features", std::string(word)},
                       fmt::format("{} does not have it", name_of(options.variant)),
                       {{"fs", "ext4"}});
  }
  return fail_option({"features", std::string(word)}, "inodes of 128 bytes have no room for it",
                     {{"inode-size", "256"}});
}

Result<void> apply_switches(const Options& options, Parameters& parameters) {
  for (std::string_view word : options.features) {
    const bool on = !word.starts_with('^');
    if (!on) word.remove_prefix(1);
    if (word == "extents") word = "extent";  // mke2fs takes both
    const auto* found = std::ranges::find(kSwitches, word, &Switch::word);
    if (found == std::end(kSwitches)) {
      if (Result<void> good = check_fixed(options, parameters, word, on); !good) return good;
      continue;
    }
    const bool allowed = options.variant == Variant::ext4 ||
                         (options.variant == Variant::ext3 && found->in_ext3) ||
                         (options.variant == Variant::ext2 && found->in_ext2);
    if (on && !allowed) {
      return fail_option({"features", std::string(word)},
                         fmt::format("{} does not have it", name_of(options.variant)),
                         {{"fs", "ext4"}});
    }
    if (found->word == "has_journal" && options.journal.has_value() && *options.journal != on) {
      return fail_option({"features", fmt::format("{}{}", on ? "" : "^", word)},
                         *options.journal ? "a journal was asked for" : "no journal was asked for");
    }
    parameters.*(found->field) = on;
  }
  return {};
}

/// Features that need others.
Result<void> check_features(const Parameters& parameters) {
  if (parameters.sixty_four_bit && !parameters.extents) {
    return fail_option({"features", "^extent"}, "64bit needs extent",
                       {{"features", "^extent,^64bit"}});
  }
  if (parameters.metadata_csum_seed && !parameters.metadata_csum) {
    return fail_option({"features", "metadata_csum_seed"}, "it needs metadata_csum");
  }
  if (parameters.orphan_file && !parameters.has_journal) {
    return fail_option({"features", "orphan_file"}, "it needs has_journal");
  }
  if (parameters.project && parameters.inode_bytes == EXT2_GOOD_OLD_INODE_SIZE) {
    return fail_option({"features", "project"}, "inodes of 128 bytes have no room for it",
                       {{"inode-size", "256"}});
  }
  return {};
}

/// Whether an image that holds no more than this is better off with small blocks.
bool is_small_tree(const SourceTree& tree) noexcept {
  std::uint64_t bytes = 0;
  for (const Node& node : tree.nodes()) {
    bytes += node.size_bytes + EXT2_GOOD_OLD_INODE_SIZE;
    if (bytes >= kSmallImageBytes) return false;
  }
  return true;
}

bool is_asked(const Options& options, std::string_view feature) {
  return std::ranges::find(options.features, feature) != options.features.end();
}

/// Identifiers derive from the source and the options alone (law 1).
void derive_ids(const Options& options, const SourceTree& tree, Parameters& parameters) {
  Sha256 digest;
  const TreeId tree_id = tree.id();
  std::string what = fmt::format(
      "mkvirtfs ext 1\n{}\n{}\n{} {} {} {} {}\n{}\n{}\n{}\n", name_of(parameters.variant),
      parameters.label, parameters.block_bytes, parameters.inode_bytes, parameters.feature_compat(),
      parameters.feature_incompat(), parameters.feature_ro_compat(), options.size_bytes.value_or(0),
      options.inodes.value_or(0), parameters.reserved_percent);
  if (options.defaults == Defaults::current) {
    what += fmt::format("defaults 2\n{}\n", options.bytes_per_inode.value_or(0));
  }
  if (options.smallest) what += "smallest\n";
  if (!options.lost_found) what += "no lost+found\n";
  if (options.on_errors != OnErrors::go_on || options.stride_blocks != 0 ||
      options.stripe_width_blocks != 0) {
    what += fmt::format("extended {} {} {}\n", std::to_underlying(options.on_errors),
                        options.stride_blocks, options.stripe_width_blocks);
  }
  digest.update(std::as_bytes(std::span(what)));
  digest.update(tree_id);
  const auto bytes = digest.finish();
  parameters.uuid = derived_uuid(std::span(bytes).first<16>());
  for (std::size_t i = 0; i < 4; ++i) {
    parameters.hash_seed[i] = options.hash_seed ? load_le<std::uint32_t>(*options.hash_seed, 4 * i)
                                                : load_le<std::uint32_t>(bytes, 16 + 4 * i);
  }
  if (options.uuid) parameters.uuid = *options.uuid;
}

/// Options that cannot be or do not go together, features aside.
Result<void> check_options(const Options& options, const Parameters& parameters) {
  if (options.label.size() > kLabelBytes || options.label.find('\0') != std::string::npos) {
    return fail_option({"label", options.label},
                       fmt::format("ext labels are up to {} bytes, this one is {}", kLabelBytes,
                                   options.label.size()));
  }
  if (options.bytes_per_inode && *options.bytes_per_inode < parameters.block_bytes) {
    return fail_option({"bytes-per-inode", std::to_string(*options.bytes_per_inode)},
                       fmt::format("a group has one inode for each of its blocks at most, and "
                                   "blocks are {} bytes",
                                   parameters.block_bytes));
  }
  if (options.reserved_percent > 50) {
    return fail_option({"reserved", std::to_string(options.reserved_percent)},
                       "at most 50 percent can be reserved");
  }
  if (options.variant == Variant::ext2 && options.journal.value_or(false)) {
    return fail_option({"journal"}, "ext2 has no journal", {{"fs", "ext3"}, {"fs", "ext4"}});
  }
  if (options.variant == Variant::ext3 && !options.journal.value_or(true)) {
    return fail_option({"no-journal"}, "ext3 has a journal", {{"fs", "ext2"}, {"fs", "ext4"}});
  }
  if ((options.size_bytes || options.smallest) && options.free) {
    return fail_option({"free"}, kFreeOfGivenSize);
  }
  if (options.made_at_s && *options.made_at_s < 0) {
    return fail(Errc::usage, "SOURCE_DATE_EPOCH is negative; ext superblocks begin in 1970");
  }
  return {};
}

/// What is there by default, then what the options switch, then what follows from both.
Result<void> choose_features(const Options& options, Parameters& parameters) {
  const bool ext3 = options.variant == Variant::ext3;
  const bool ext4 = options.variant == Variant::ext4;
  parameters.dir_index = ext3 || ext4;
  parameters.extents = ext4;
  parameters.flex_bg = ext4;
  parameters.sixty_four_bit = ext4;
  parameters.metadata_csum = ext4;
  parameters.huge_file = ext4;
  parameters.dir_nlink = ext4;
  parameters.extra_isize = ext4 && parameters.inode_bytes > EXT2_GOOD_OLD_INODE_SIZE;
  const bool has_journal_by_default = ext3 || (ext4 && options.defaults == Defaults::current);
  parameters.has_journal = options.journal.value_or(has_journal_by_default);
  parameters.resize_inode = options.defaults == Defaults::current;
  if (Result<void> applied = apply_switches(options, parameters); !applied) return applied;
  if (ext3 && !parameters.has_journal) {
    return fail_option({"features", "^has_journal"}, "ext3 has a journal", {{"fs", "ext2"}});
  }
  if (Result<void> good = check_features(parameters); !good) return good;
  const bool asks_resize_inode = is_asked(options, "resize_inode");
  if (!parameters.sparse_super) {
    if (asks_resize_inode) {
      return fail_option({"features", "resize_inode"}, "it needs sparse_super");
    }
    parameters.resize_inode = false;
  }
  parameters.resize_inode_is_default = parameters.resize_inode && !asks_resize_inode;
  parameters.journal_is_default = ext4 && parameters.has_journal && !options.journal &&
                                  !is_asked(options, "has_journal") && !parameters.orphan_file;
  parameters.ea_inode_is_asked = parameters.ea_inode;
  parameters.may_have_ea_inode =
      parameters.ea_inode ||
      (ext4 && options.defaults == Defaults::current && !is_asked(options, "^ea_inode"));
  return {};
}

}  // namespace

Result<Parameters> resolve(const Options& options, const SourceTree& tree) {
  Parameters parameters;
  parameters.variant = options.variant;
  parameters.block_bytes = options.block_bytes;
  if (parameters.block_bytes == 0) {
    const bool is_small = options.size_bytes ? *options.size_bytes < kSmallImageBytes
                                             : options.smallest && is_small_tree(tree);
    parameters.block_bytes = is_small ? 1024 : 4096;
  }
  if (parameters.block_bytes != 1024 && parameters.block_bytes != 2048 &&
      parameters.block_bytes != 4096) {
    return fail_option({"block-size", std::to_string(parameters.block_bytes)},
                       "ext blocks are 1024, 2048 or 4096 bytes");
  }
  parameters.inode_bytes = options.inode_bytes == 0 ? 256 : options.inode_bytes;
  if (parameters.inode_bytes != 128 && parameters.inode_bytes != 256) {
    return fail_option({"inode-size", std::to_string(parameters.inode_bytes)},
                       "ext inodes are 128 or 256 bytes");
  }
  if (const auto good = check_options(options, parameters); !good) return propagate(good);
  parameters.lost_found = options.lost_found;
  parameters.stride_blocks = options.stride_blocks;
  parameters.stripe_width_blocks = options.stripe_width_blocks;
  parameters.on_errors = options.on_errors;
  parameters.label = options.label;
  parameters.reserved_percent = options.reserved_percent;
  if (const auto good = choose_features(options, parameters); !good) return propagate(good);

  // A time beyond what the superblock's 40 bits hold comes only from a strange source; the field
  // then holds its most.
  constexpr std::int64_t kNewest = (std::int64_t{1} << 40) - 1;
  parameters.made_at_given = options.made_at_s.has_value();
  parameters.made_at_s = static_cast<std::uint64_t>(std::clamp<std::int64_t>(
      options.made_at_s.value_or(tree.newest_mtime().seconds), 0, kNewest));
  derive_ids(options, tree, parameters);
  parameters.checksum_seed = crc32c(~0u, parameters.uuid);
  return parameters;
}

std::uint32_t Parameters::inode_xattr_bytes() const noexcept {
  if (variant == Variant::ext2 || inode_bytes == EXT2_GOOD_OLD_INODE_SIZE) return 0;
  return inode_bytes - EXT2_GOOD_OLD_INODE_SIZE - kExtraInodeBytes;
}

std::uint32_t Parameters::feature_compat() const noexcept {
  return (has_journal ? EXT3_FEATURE_COMPAT_HAS_JOURNAL : 0u) | EXT2_FEATURE_COMPAT_EXT_ATTR |
         (orphan_file ? EXT4_FEATURE_COMPAT_ORPHAN_FILE : 0u) |
         (resize_inode ? EXT2_FEATURE_COMPAT_RESIZE_INODE : 0u) |
         (dir_index ? EXT2_FEATURE_COMPAT_DIR_INDEX : 0u);
}

std::uint32_t Parameters::feature_incompat() const noexcept {
  return EXT2_FEATURE_INCOMPAT_FILETYPE | (extents ? EXT3_FEATURE_INCOMPAT_EXTENTS : 0u) |
         (sixty_four_bit ? EXT4_FEATURE_INCOMPAT_64BIT : 0u) |
         (flex_bg ? EXT4_FEATURE_INCOMPAT_FLEX_BG : 0u) |
         (metadata_csum_seed ? EXT4_FEATURE_INCOMPAT_CSUM_SEED : 0u) |
         (ea_inode ? EXT4_FEATURE_INCOMPAT_EA_INODE : 0u) |
         (large_dir ? EXT4_FEATURE_INCOMPAT_LARGEDIR : 0u);
}

std::uint32_t Parameters::feature_ro_compat() const noexcept {
  return (sparse_super ? EXT2_FEATURE_RO_COMPAT_SPARSE_SUPER : 0u) |
         EXT2_FEATURE_RO_COMPAT_LARGE_FILE | (huge_file ? EXT4_FEATURE_RO_COMPAT_HUGE_FILE : 0u) |
         (dir_nlink ? EXT4_FEATURE_RO_COMPAT_DIR_NLINK : 0u) |
         (extra_isize ? EXT4_FEATURE_RO_COMPAT_EXTRA_ISIZE : 0u) |
         (quota ? EXT4_FEATURE_RO_COMPAT_QUOTA : 0u) |
         (project ? EXT4_FEATURE_RO_COMPAT_PROJECT : 0u) |
         (metadata_csum ? EXT4_FEATURE_RO_COMPAT_METADATA_CSUM : 0u);
}

std::string Parameters::feature_words() const {
  std::string words;
  const auto add = [&](bool on, std::string_view word) {
    if (on) words += fmt::format("{}{}", words.empty() ? "" : " ", word);
  };
  add(has_journal, "has_journal");
  add(true, "ext_attr");
  add(resize_inode, "resize_inode");
  add(dir_index, "dir_index");
  add(orphan_file, "orphan_file");
  add(true, "filetype");
  add(extents, "extent");
  add(sixty_four_bit, "64bit");
  add(flex_bg, "flex_bg");
  add(ea_inode, "ea_inode");
  add(metadata_csum_seed, "metadata_csum_seed");
  add(large_dir, "large_dir");
  add(sparse_super, "sparse_super");
  add(true, "large_file");
  add(huge_file, "huge_file");
  add(dir_nlink, "dir_nlink");
  add(extra_isize, "extra_isize");
  add(quota, "quota");
  add(metadata_csum, "metadata_csum");
  add(project, "project");
  return words;
}

}  // namespace mkvirtfs::ext2
