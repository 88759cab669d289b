// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cli/image_options.h"
#include "cli/source_options.h"
#include "compose/exports.h"
#include "support/error.h"

namespace mkvirtfs::cli {

/// A word of serve's command line: "NAME=DIR,OPTION=VALUE,OPTION", or a directory and nothing else.
struct SourceWord {
  std::string word;  ///< as it was given
  std::string name;  ///< "" for a plain directory
  std::string directory;
  std::vector<std::string> options;  ///< "fs=ext2", "no-journal"
};

/// A word is NAME=DIR when what stands before its first '=' can be an export's name; anything else
/// is a directory, commas and all. Behind the '=', ",," is a comma and "," begins an option.
SourceWord parse_source_word(std::string_view word);

/// The exports that serve offers, the default one first, each source with its own options over
/// those that all share. Plain ones are laid over each other, and so are those with the same name.
///
/// Checks all there is to check without scanning. Plain DIRs are the default export, which is
/// called `default_name` and prepared at once; without one, the export of that name is the default,
/// or the first if `default_name` is "". With `keep_bases`, overlays over the images will outlive
/// the server.
Result<std::vector<ExportSpec>> parse_exports(const std::string& default_name,
                                              const SourceOptions& source,
                                              const ImageOptions& image, bool keep_bases);

}  // namespace mkvirtfs::cli
