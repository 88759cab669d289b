// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/iso9660/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <limits>
#include <string>
#include <utility>

#include "fsgen/iso9660/iso_image.h"
#include "fsgen/iso9660/iso_time.h"
#include "fsgen/iso9660/volume.h"
#include "support/arithmetic.h"
#include "support/text.h"

namespace mkvirtfs::iso9660 {
namespace {

constexpr std::size_t kLabelBytes = 32;
constexpr std::uint32_t kPadBlocks = 16;  // 32 KiB
// libarchive looks for descriptors in the first 48 KiB, and passes over an image that ends before.
constexpr std::uint64_t kFewestBlocks = 24;
constexpr std::uint64_t kMostSectionBytes = 0xFFFFFFFF;

struct FieldRule {
  Field field;
  std::string_view name;
  std::size_t most_bytes;
  bool names_file;
};
constexpr std::array<FieldRule, kFields> kFieldRules = {{
    {Field::system, "system", 32, false},
    {Field::volume_set, "volume-set", 128, false},
    {Field::publisher, "publisher", 128, false},
    {Field::preparer, "preparer", 128, false},
    {Field::application, "application", 128, false},
    {Field::copyright, "copyright", 37, true},
    {Field::abstract, "abstract", 37, true},
    {Field::bibliographic, "bibliographic", 37, true},
}};

const FieldRule& rule_of(Field field) { return kFieldRules[std::to_underlying(field)]; }

bool is_text(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return c >= 0x20 && c < 0x7F; });
}

Result<void> check(const Options& options) {
  if (options.level < 1 || options.level > 3) {
    return fail_option({"iso-level", std::to_string(options.level)},
                       "ISO 9660 has the levels 1, 2 and 3");
  }
  if (!is_text(options.label) || options.label.size() > kLabelBytes) {
    return fail_option(
        {"label", options.label},
        fmt::format("ISO 9660 labels are up to {} characters of ASCII", kLabelBytes));
  }
  for (const Options::FieldText& given : options.fields) {
    const FieldRule& rule = rule_of(given.field);
    // The names of files are measured by what they become.
    const std::size_t most = rule.names_file ? 255 : rule.most_bytes;
    if ((rule.names_file || is_text(given.text)) && given.text.size() <= most) continue;
    return fail_option({"volume-field", fmt::format("{}={}", rule.name, given.text)},
                       fmt::format("up to {} characters of ASCII", rule.most_bytes));
  }
  if (options.volume_time && !is_volume_time(*options.volume_time)) {
    return fail(Errc::usage,
                fmt::format("{} is no date of a volume (YYYYMMDDHHMMSScc)", *options.volume_time));
  }
  return {};
}

/// Levels 1 and 2 have files of one section.
Result<void> check_files(const SourceTree& tree, unsigned level) {
  if (level == 3) return {};
  for (NodeNo no; no < tree.node_count(); ++no) {
    const Node& node = tree.node(no);
    if (!node.is_regular() || node.size_bytes <= kMostSectionBytes) continue;
    return fail(Errc::does_not_fit,
                fmt::format("{} is {} bytes; files of ISO 9660 level {} end at {}", tree.path(no),
                            node.size_bytes, level, kMostSectionBytes),
                {{"iso-level", "3"}});
  }
  return {};
}

Result<void> fill_fields(Volume& volume) {
  for (const Options::FieldText& given : volume.options.fields) {
    const FieldRule& rule = rule_of(given.field);
    const auto at = static_cast<std::size_t>(std::to_underlying(given.field));
    if (!rule.names_file) {
      volume.fields[at] = volume.joliet_fields[at] = given.text;
      continue;
    }
    volume.fields[at] = volume.primary->identifier_in_root(given.text);
    if (volume.fields[at].empty()) {
      return std::unexpected(Error{Errc::does_not_fit,
                                   0,
                                   "it must name a file in the source's root",
                                   {"volume-field", fmt::format("{}={}", rule.name, given.text)}});
    }
    // Joliet has 18 characters here; a longer name is not said.
    if (is_text(given.text) && given.text.size() + 2 <= rule.most_bytes / 2) {
      volume.joliet_fields[at] = given.text + ";1";
    }
  }
  return {};
}

Result<std::vector<NodeNo>> boot_nodes(const SourceTree& tree, const Boot& boot) {
  std::vector<NodeNo> nodes;
  for (const Boot::File& file : boot.files) {
    const std::optional<NodeNo> no = find_node(tree, file.path);
    if (!no || !tree.node(*no).is_regular() || tree.node(*no).size_bytes == 0) {
      return fail(Errc::does_not_fit,
                  fmt::format("{} is not a file with bytes in the source, and cannot be booted",
                              file.path));
    }
    if (std::ranges::find(nodes, *no) != nodes.end()) {
      return fail(Errc::usage, fmt::format("{} is a boot file twice", file.path));
    }
    nodes.push_back(*no);
  }
  return nodes;
}

std::unexpected<Error> full() {
  return fail(Errc::does_not_fit, "the volume is full: there is no room for padding or a tail");
}

/// Everything before the files.
Result<BlockNo> place_metadata(Volume& volume, Hierarchy& primary, Hierarchy* joliet) {
  BlockNo at = kPrimaryDescriptor + 1;
  const auto next = [&] { return std::exchange(at, at + 1); };
  if (volume.options.boot.catalog) volume.boot_record = next();
  if (joliet != nullptr) volume.joliet_descriptor = next();
  volume.terminator = next();
  for (std::size_t table = 0; table < (joliet != nullptr ? 4u : 2u); ++table) {
    volume.path_tables[table] = at;
    const Hierarchy& hierarchy = table < 2 ? primary : *joliet;
    at += static_cast<std::uint32_t>(blocks_for(hierarchy.path_table_bytes()));
  }
  volume.path_tables_end = at;
  Result<BlockNo> end = primary.place(at);
  if (end && joliet != nullptr) end = joliet->place(*end);
  if (!end || !volume.options.boot.catalog) return end;
  if (end->value() == std::numeric_limits<std::uint32_t>::max()) return full();
  volume.catalog = *end;
  return *end + 1;
}

/// Everything before the files, then those, then the end.
Result<void> place(Volume& volume, Hierarchy& primary, Hierarchy* joliet) {
  const Result<BlockNo> first = place_metadata(volume, primary, joliet);
  if (!first) return propagate(first);
  const Boot& boot = volume.options.boot;
  const Result<std::vector<NodeNo>> nodes = boot_nodes(*volume.tree, boot);
  if (!nodes) return propagate(nodes);
  Result<FileArea> files =
      FileArea::make(*volume.tree, *first, volume.options.duplicates, *nodes, boot.files);
  if (!files) return propagate(files);
  volume.files = std::move(*files);

  std::uint64_t blocks = std::max<std::uint64_t>(volume.files.end_block().value(), kFewestBlocks);
  if (volume.options.pad) blocks = round_up<std::uint64_t>(blocks, kPadBlocks);
  if (blocks > std::numeric_limits<std::uint32_t>::max() || boot.tail_bytes > std::uint64_t{1}
                                                                                  << 62) {
    return full();
  }
  volume.end = block_no(blocks);
  assert(boot.align_bytes != 0 && boot.align_bytes % kBlockBytes == 0);
  volume.image_bytes =
      round_up<std::uint64_t>(blocks * kBlockBytes + boot.tail_bytes, boot.align_bytes);
  return {};
}

}  // namespace

std::string_view name_of(Field field) noexcept { return rule_of(field).name; }

std::optional<Field> parse_field(std::string_view name) noexcept {
  const auto rule = std::ranges::find(kFieldRules, name, &FieldRule::name);
  return rule == kFieldRules.end() ? std::nullopt : std::optional(rule->field);
}

std::optional<std::string> parse_volume_time(std::string_view text) {
  std::string digits(text);
  if (text.size() == 22) {
    for (const std::size_t dash : {4u, 7u, 10u, 13u, 16u, 19u}) {
      if (text[dash] != '-') return std::nullopt;
    }
    std::erase(digits, '-');
  }
  return is_volume_time(digits) ? std::optional(std::move(digits)) : std::nullopt;
}

Result<std::shared_ptr<const PlannedImage>> plan(std::shared_ptr<const SourceTree> tree,
                                                 const Options& options) {
  if (Result<void> good = check(options); !good) return propagate(good);
  Volume volume;
  volume.tree = std::move(tree);
  volume.options = options;
  volume.label = options.label;
  volume.time_digits = options.volume_time ? *options.volume_time
                       : options.made_at_s ? volume_time_digits({*options.made_at_s, 0})
                                           : volume_time_digits(volume.tree->newest_mtime());
  if (Result<void> good = check_files(*volume.tree, options.level); !good) {
    return propagate(good);
  }

  Result<std::unique_ptr<Hierarchy>> primary =
      Hierarchy::make_primary(*volume.tree, options.level, options.deep);
  if (!primary) return propagate(primary);
  std::unique_ptr<Hierarchy> joliet;
  if (options.joliet != Joliet::none) {
    constexpr std::size_t kStandardUnits = 64;
    constexpr std::size_t kLongerUnits = 103;
    Result<std::unique_ptr<Hierarchy>> made = Hierarchy::make_joliet(
        *volume.tree, options.joliet == Joliet::longer ? kLongerUnits : kStandardUnits,
        options.joliet_characters);
    if (!made) return propagate(made);
    joliet = std::move(*made);
  }
  if (Result<void> good = place(volume, **primary, joliet.get()); !good) {
    return propagate(good);
  }
  volume.primary = std::move(*primary);
  volume.joliet = std::move(joliet);
  if (Result<void> good = fill_fields(volume); !good) {
    return propagate(good);
  }
  return std::make_shared<IsoImage>(std::move(volume));
}

}  // namespace mkvirtfs::iso9660
