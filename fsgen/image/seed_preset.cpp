// SPDX-License-Identifier: BSD-3-Clause
// The table says what each program looks for, as its own sources or manual do: cloud-init's
// ds-identify and NoCloud and ConfigDrive, Anaconda's "OEMDRV", Windows Setup's implicit answer
// files, proxmox-fetch-answer. A required file may be a symlink, as in the volumes that Kubernetes
// makes of a ConfigMap (user-data -> ..data/user-data, ..data -> ..2026_01_31): the way is walked
// as the program will walk it.
#include "fsgen/image/seed_preset.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

#include "fsgen/tree/symlink_way.h"
#include "fsgen/tree/tree_path.h"
#include "support/ascii_case.h"

namespace mkvirtfs {
namespace {

constexpr std::array<std::string_view, 2> kCidataLabels{"cidata", "CIDATA"};
constexpr std::array<std::string_view, 2> kCidataFiles{"user-data", "meta-data"};
constexpr std::array<std::string_view, 2> kCidataOptional{"vendor-data", "network-config"};
constexpr std::array<std::string_view, 2> kConfigDriveLabels{"config-2", "CONFIG-2"};
constexpr std::array<std::string_view, 1> kConfigDriveFiles{"openstack/latest/meta_data.json"};
constexpr std::array<std::string_view, 4> kConfigDriveOptional{
    "openstack/latest/user_data", "openstack/latest/vendor_data.json",
    "openstack/latest/vendor_data2.json", "openstack/latest/network_data.json"};
constexpr std::array<std::string_view, 1> kOemdrvLabels{"OEMDRV"};
constexpr std::array<std::string_view, 1> kOemdrvFiles{"ks.cfg"};
constexpr std::array<std::string_view, 1> kAutounattendFiles{"autounattend.xml"};
constexpr std::array<std::string_view, 2> kProxmoxLabels{"PROXMOX-AIS", "proxmox-ais"};
constexpr std::array<std::string_view, 1> kProxmoxFiles{"answer.toml"};

constexpr auto kPresets = std::to_array<SeedPreset>({
    {.name = "cidata",
     .reader = "cloud-init",
     .labels = kCidataLabels,
     .files = kCidataFiles,
     .optional_files = kCidataOptional,
     .note = " (an empty one will do)"},
    {.name = "config-drive",
     .reader = "cloud-init",
     .labels = kConfigDriveLabels,
     .files = kConfigDriveFiles,
     .optional_files = kConfigDriveOptional},
    {.name = "oemdrv", .reader = "Anaconda", .labels = kOemdrvLabels, .files = kOemdrvFiles},
    {.name = "autounattend",
     .reader = "Windows Setup",
     .files = kAutounattendFiles,
     .any_case = true,
     .is_windows = true},
    {.name = "proxmox",
     .reader = "the Proxmox installer",
     .labels = kProxmoxLabels,
     .files = kProxmoxFiles},
});
constexpr std::array<std::string_view, 5> kPresetWords{"cidata", "config-drive", "oemdrv",
                                                       "autounattend", "proxmox"};

/// Lower case, and one sign for what people confuse: "User_Data" is "user-data".
std::string plain(std::string_view name) {
  std::string text = ascii_lower(name);
  for (char& c : text) {
    if (c == '_' || c == ' ') c = '-';
  }
  return text;
}

std::string_view leaf_of(std::string_view path) { return path.substr(path.rfind('/') + 1); }
std::string_view stem_of(std::string_view name) {
  const std::size_t dot = name.rfind('.');
  return dot == 0 ? name : name.substr(0, dot);
}

/// The walk from the root to a path.
struct Way {
  const Node* node = nullptr;       ///< what it leads to, no symlink; null: nothing
  const Node* directory = nullptr;  ///< where the last name was looked for
  std::string link;                 ///< the last symlink's target; "" if there was none
};

const Entry* find_entry(const SourceTree& tree, const Directory& directory, std::string_view name,
                        bool any_case) {
  const Entry* const found = tree.find(directory, name);
  if (found != nullptr || !any_case) return found;
  const auto entries = tree.entries(directory);
  const auto same = std::ranges::find_if(entries, [&](const Entry& entry) {
    return ascii_upper(tree.name(directory, entry)) == ascii_upper(name);
  });
  return same == entries.end() ? nullptr : &*same;
}

Way walk(const SourceTree& tree, std::string_view path, SeedLinks links, bool any_case) {
  Way way;
  const std::vector<std::string_view> components = components_of(path);
  SymlinkWay rest(components);
  NodeNo at = kRootNode;
  while (!rest.at_end()) {
    const std::string_view name = rest.take();
    if (!tree.node(at).is_directory()) return way;
    if (name == "..") {
      // Above the root is the host's, and in FAT nothing.
      if (at == kRootNode) return way;
      at = tree.parent_of(at).node;
      continue;
    }
    way.directory = &tree.node(at);
    const Entry* const found =
        find_entry(tree, tree.directory(tree.directory_no(at)), name, any_case);
    if (found == nullptr) return way;
    if (!tree.node(found->node).is_symlink()) {
      at = found->node;
      continue;
    }
    way.link = tree.symlink_target(found->node);
    if (!rest.count_symlink()) return way;
    if (way.link.starts_with('/')) {
      if (links == SeedLinks::kept) return way;
      at = kRootNode;
    }
    rest.lead_on(components_of(tree.symlink_target(found->node)));
  }
  way.node = &tree.node(at);
  return way;
}

bool is_read(const SeedPreset& preset, std::string_view leaf) {
  const auto is_leaf = [&](std::string_view file) { return leaf_of(file) == leaf; };
  return std::ranges::any_of(preset.files, is_leaf) ||
         std::ranges::any_of(preset.optional_files, is_leaf);
}

/// The file of the directory that was likely meant to be `wanted`; "" if there is none.
std::string near_miss(const SeedPreset& preset, const SourceTree& tree, const Node& directory_node,
                      std::string_view wanted) {
  const Directory& directory = tree.directory(tree.directory_no(tree.number_of(directory_node)));
  const std::string name = plain(wanted);
  for (const Entry& entry : tree.entries(directory)) {
    const std::string_view found = tree.name(directory, entry);
    if (is_read(preset, found) || tree.node(entry.node).is_directory()) continue;
    const std::string other = plain(found);
    const bool has_more = other.starts_with(name) && (other == name || other[name.size()] == '.');
    const bool has_less = name.ends_with(other) && other.contains('.');
    if (has_more || has_less || stem_of(other) == stem_of(name)) return std::string(found);
  }
  return {};
}

std::string joined(std::span<const std::string_view> files) {
  return fmt::format("{}", fmt::join(files, " and "));
}

Error missing_file(const SeedPreset& preset, const SourceTree& tree, std::string_view file,
                   const Way& way) {
  std::string what = fmt::format("{} is not a file in the source", file);
  if (!way.link.empty()) {
    what = fmt::format("{} is a link to {}, which is not a file in the source", file, way.link);
  } else if (way.directory != nullptr) {
    const std::string_view leaf = leaf_of(file);
    std::string near = near_miss(preset, tree, *way.directory, leaf);
    const bool stands_in_root = leaf != file && tree.find_path(leaf) != nullptr;
    if (near.empty() && stands_in_root) near = leaf;
    if (!near.empty()) what += fmt::format(", {} is", near);
  }
  return {Errc::does_not_fit, 0,
          fmt::format("{}; {} needs {}{}", what, preset.reader, joined(preset.files), preset.note)};
}

}  // namespace

OptionRow preset_option() {
  return {
      .name = "preset",
      .kind = OptionKind::choice,
      .value_name = "WHAT",
      .help = "A seed: its label, and its files are there;\nimplies --fs=iso",
      .choices = kPresetWords,
      .manual =
          "A volume from which a program configures a machine: the label that the program looks "
          "for is set, and it is an error when a file that it needs is missing. `cidata`: "
          "_user-data_ and _meta-data_ for cloud-init's NoCloud. `config-drive`: "
          "_openstack/latest/meta_data.json_ for cloud-init, with the label config-2. "
          "`oemdrv`: _ks.cfg_ for Anaconda, with the label OEMDRV. `autounattend`: "
          "_autounattend.xml_ for Windows Setup, with any label. `proxmox`: _answer.toml_ for "
          "the installer of Proxmox, with the label PROXMOX-AIS. Such a file may be a symlink "
          "to one in the source. Implies `--fs=iso`; with `--fs=fat` symlinks are followed "
          "(`--symlinks=follow`).",
      .implies_format = "iso"};
}

const SeedPreset* read_preset(OptionReader& reader) {
  const std::string* text = reader.find("preset");
  if (text == nullptr) return nullptr;
  const auto* const found = std::ranges::find(kPresets, *text, &SeedPreset::name);
  if (found != kPresets.end()) return found;
  reader.refuse("preset", *text, fmt::format("none of {}", fmt::join(kPresetWords, ", ")));
  return nullptr;
}

Result<std::string> preset_label(const SeedPreset& preset, const std::string& given,
                                 LabelCase label_case) {
  if (preset.labels.empty()) return given;
  if (given.empty()) return std::string(preset.labels.front());
  const bool is_known = std::ranges::any_of(preset.labels, [&](std::string_view label) {
    return label_case == LabelCase::upper ? ascii_upper(given) == ascii_upper(label)
                                          : given == label;
  });
  if (is_known) return given;
  return fail_option({"label", given}, fmt::format("{} looks for the label {}", preset.reader,
                                                   preset.labels.front()));
}

Result<void> check_preset_files(const SeedPreset& preset, const SourceTree& tree, SeedLinks links) {
  for (const std::string_view file : preset.files) {
    const Way way = walk(tree, file, links, preset.any_case);
    if (way.node == nullptr || !way.node->is_regular()) {
      return std::unexpected(missing_file(preset, tree, file, way));
    }
    if (way.link.empty()) continue;
    if (links == SeedLinks::lost) {
      return fail(Errc::does_not_fit,
                  fmt::format("{} is a symlink, which the image leaves out", file),
                  {{"symlinks", "follow"}});
    }
    if (links == SeedLinks::kept && preset.is_windows) {
      return fail(Errc::does_not_fit,
                  fmt::format("{} is a symlink, which {} does not see", file, preset.reader),
                  {{"fs", "fat"}});
    }
  }
  return {};
}

std::vector<std::string> near_misses(const SeedPreset& preset, const SourceTree& tree,
                                     SeedLinks links) {
  std::vector<std::string> lines;
  for (const std::string_view file : preset.optional_files) {
    const Way way = walk(tree, file, links, preset.any_case);
    if (way.node != nullptr || way.directory == nullptr || !way.link.empty()) continue;
    const std::string near = near_miss(preset, tree, *way.directory, leaf_of(file));
    if (near.empty()) continue;
    lines.push_back(fmt::format("{} is not a file in the source, {} is; {} does not read that",
                                file, near, preset.reader));
  }
  return lines;
}

Result<void> check_seed(const SeedPreset& preset, const PlanRequest& request, SeedLinks links) {
  if (Result<void> good = check_preset_files(preset, *request.tree, links); !good) return good;
  if (!request.remark) return {};
  for (std::string& line : near_misses(preset, *request.tree, links)) {
    request.remark(std::move(line));
  }
  return {};
}

}  // namespace mkvirtfs
