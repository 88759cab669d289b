// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>
#include <vector>

#include "cli/image_options.h"
#include "cli/source_options.h"
#include "compose/image_spec.h"
#include "support/error.h"

namespace mkvirtfs::cli {

/// The image that a command line describes: of the sources `words` and of --file, or of what
/// --partition names. Errc::usage for what is malformed or contradictory, and for nothing at all.
Result<ImageSpec> command_image(const SourceOptions& source, const std::vector<PlacedSource>& words,
                                const ImageOptions& image);

}  // namespace mkvirtfs::cli
