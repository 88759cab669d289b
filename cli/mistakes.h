// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>

#include "cli/command_line.h"

namespace mkvirtfs::cli {

/// What is said of a word that stands where a subcommand should: what may have been meant.
/// `program` has all subcommands.
std::string unknown_subcommand_text(const OptionSet& program, const std::string& word);

/// What is said of a word that `command`, a subcommand or the program itself, does not take.
/// `program` has all subcommands.
std::string unknown_word_text(const OptionSet& program, const OptionSet& command,
                              const std::string& word);

}  // namespace mkvirtfs::cli
