// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <span>
#include <string_view>

namespace mkvirtfs::cli {

/// What the help of a subcommand shows first, so that it fits a screen or two.
struct HelpPage {
  std::string_view command;   ///< "serve"
  std::string_view examples;  ///< two lines, indented by two blanks, without a last line end
  /// The names of the options that it shows: "--fs". --help=all shows all of them. Empty: it always
  /// does.
  std::span<const std::string_view> common{};
};

/// One for each subcommand that the help names.
std::span<const HelpPage> help_pages();

}  // namespace mkvirtfs::cli
