// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fsgen/image/format.h"
#include "fsgen/image/option_reader.h"
#include "fsgen/image/option_row.h"
#include "fsgen/tree/source_tree.h"
#include "support/error.h"

namespace mkvirtfs {

/// A small volume from which a program configures a machine: how the program finds it.
struct SeedPreset {
  std::string_view name{};
  std::string_view reader{};                   ///< the program: "cloud-init"
  std::span<const std::string_view> labels{};  ///< one of these, the first by default; none: any
  std::span<const std::string_view> files{};   ///< paths that must be there
  /// Paths that the program reads where they are there.
  std::span<const std::string_view> optional_files{};
  bool any_case = false;    ///< names may be in upper and lower case
  bool is_windows = false;  ///< the program knows no symlinks
  std::string_view note{};  ///< for the message that a file is missing
};

/// The row "preset", for formats that can be such volumes.
OptionRow preset_option();
/// What "preset" names; nullptr where it was not given or is refused.
const SeedPreset* read_preset(OptionReader& reader);

/// Whether labels of the format have lower case.
enum class LabelCase : std::uint8_t { kept, upper };
/// The label of the volume where `given` is what the user wants, "" for nothing. Errc::usage for
/// one that the program does not look for.
Result<std::string> preset_label(const SeedPreset& preset, const std::string& given,
                                 LabelCase label_case);

/// What the format makes of a symlink.
enum class SeedLinks : std::uint8_t {
  kept,      ///< a symlink, which is followed below the place where the volume is mounted
  followed,  ///< what it leads to; "/" is the root of the tree
  lost,      ///< nothing
};
/// Errc::does_not_fit where a file is missing, with the name that was likely meant for it; or where
/// the program would not see it.
Result<void> check_preset_files(const SeedPreset& preset, const SourceTree& tree, SeedLinks links);

/// One line for each optional file that is missing beside a file that was likely meant for it.
std::vector<std::string> near_misses(const SeedPreset& preset, const SourceTree& tree,
                                     SeedLinks links);

/// Both, for a planner: a missing file is an error, and each near miss a remark.
Result<void> check_seed(const SeedPreset& preset, const PlanRequest& request, SeedLinks links);

}  // namespace mkvirtfs
