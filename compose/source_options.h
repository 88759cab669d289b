// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "compose/source_spec.h"
#include "fsgen/image/option_row.h"
#include "fsgen/tree/layer.h"
#include "support/error.h"

namespace mkvirtfs {

/// What an option of a source is about.
enum class SourceOptionGroup : std::uint8_t { source, container_image, archive };

/// One option of a source. The command line, NAME=DIR,key=value, completion and the manual are made
/// from these rows, as those of formats are.
struct SourceOption {
  OptionRow row;
  SourceOptionGroup group = SourceOptionGroup::source;
  /// The image depends on it. Else it says how a source is read, or what that may cost.
  bool makes_image = true;
  /// Where several sources share options: a source's own values come before the shared ones,
  /// instead of replacing them.
  bool comes_before_shared = false;
};

/// Every option that a source has, in the order of --help and of the manual.
std::span<const SourceOption> source_options();
/// nullptr when there is none of that name.
const SourceOption* find_source_option(std::string_view name);

/// The spec of a source that these values, each of which has a row, describe; its path is for the
/// caller to set. Looks up users and groups of this host, and no file. Errc::usage for what is
/// malformed or contradicts itself.
Result<SourceSpec> read_source_options(const OptionValues& values);

/// The files that the values of "file" (PATH=HOSTFILE) put into an image, in their order, as
/// sources that have all else of `common`. Errc::usage for what is malformed.
Result<std::vector<SourceSpec>> read_files(const OptionValues& values, const SourceSpec& common);

/// What the options "root-owner" and "root-mode" of a format make of the root; nullopt: nothing.
/// Looks up users and groups of this host. Errc::usage for what is malformed.
Result<std::optional<AttributeOverride>> read_root(const OptionValues& format_options);

/// Errc::usage for what SourceSpec::at cannot be.
Result<void> check_place(const std::string& place);

}  // namespace mkvirtfs
