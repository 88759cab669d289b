// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <span>
#include <string>
#include <vector>

#include "compose/image_spec.h"
#include "support/error.h"

namespace mkvirtfs::cli {

/// A file that a server makes, or a directory in which it makes some.
struct KeptPlace {
  std::string option;  ///< that names it: "--overlay"
  std::string path;
  bool is_directory = false;
};

/// Whether all of them lie outside what `sources` show. Each start of the server
/// changes the time of the directory in which it makes a file; when the image shows that directory,
/// an overlay that stays would find another image at the next start. Errc::usage, with another
/// place to use.
Result<void> check_outside_source(std::span<const SourceSpec> sources,
                                  std::span<const KeptPlace> places);

}  // namespace mkvirtfs::cli
