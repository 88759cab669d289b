// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cli/command_line.h"
#include "cli/row_options.h"
#include "compose/source_options.h"
#include "compose/source_spec.h"
#include "fsgen/image/format_registry.h"
#include "support/error.h"

namespace mkvirtfs::cli {

/// A source as the command line names it, and where in the whole its root stands; "" is the root.
struct PlacedSource {
  std::string source;
  std::string at;

  friend bool operator==(const PlacedSource&, const PlacedSource&) = default;
};
/// For people: "base + etc-extra at /etc".
std::string to_string(const std::vector<SourceSpec>& sources);

/// The options that say what is read and as whose: the same for every subcommand. They come from
/// the table of compose/source_options.h.
class SourceOptions {
 public:
  /// The options, and SOURCE... itself.
  void add_to(OptionSet& options);
  void add_options_to(OptionSet& options);
  /// Those for one source that stands nowhere, for commands that look inside.
  void add_reading_options_to(OptionSet& options);

  /// The words of the command line that are sources, in their order, each with the --at that stood
  /// before it. Errc::usage for an --at that no source follows.
  Result<std::vector<PlacedSource>> words() const;
  /// The options that were given, without --at.
  OptionValues values() const;
  /// What is said where there is neither a source nor a --file.
  Error missing() const;

  /// All of words() and of --file with the options. Errc::usage for what is malformed or
  /// contradictory, and for nothing at all.
  Result<std::vector<SourceSpec>> specs() const;

 private:
  const OptionSet* command_line_ = nullptr;
  const CommandOption* place_option_ = nullptr;
  std::vector<std::string> words_;
  RowOptions rows_;
};

/// The specs of `placed`, and of the files that `values` has, with the options `values` for all of
/// them.
Result<std::vector<SourceSpec>> specs_of(const std::vector<PlacedSource>& placed,
                                         const OptionValues& values);

/// The options that say what image it is, as "--name=value", in the order of the help: for people
/// to compare. `format` is what --fs names, "" if nothing.
std::vector<std::string> given_options(const OptionValues& source, std::string_view format,
                                       const OptionValues& image, const FormatRegistry& formats);

}  // namespace mkvirtfs::cli
