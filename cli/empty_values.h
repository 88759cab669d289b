// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>
#include <vector>

#include "cli/command_line.h"
#include "support/error.h"

namespace mkvirtfs::cli {

/// The words of a command line, so that CLI11 reads an empty value as an empty value: to it,
/// "--label=" is "--label", and the next word the value. Here it becomes "--label" and an empty
/// word; the same goes for a list of nothing but commas. A source that is called "[a]" stays one,
/// too. `options` are the program's.
///
/// Errc::usage for an empty value of an option that need not have one ("--map=", "--json=").
Result<std::vector<std::string>> separate_empty_values(const OptionSet& options,
                                                       const std::vector<std::string>& words);

/// Has `options` and its subcommands refuse an empty value of every option to which it says
/// nothing: a user who writes --size="$SIZE" with no SIZE does not mean the default.
void refuse_empty_values(OptionSet& options);

}  // namespace mkvirtfs::cli
