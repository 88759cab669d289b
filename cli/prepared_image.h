// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>

#include "block/image.h"
#include "cli/image_options.h"
#include "cli/source_loader.h"
#include "cli/source_options.h"
#include "support/error.h"
#include "support/log.h"

namespace mkvirtfs::cli {

/// A source that was read and planned: everything the subcommands begin with.
struct PreparedImage {
  LoadedSource source;
  std::shared_ptr<const Image> image;
  std::shared_ptr<ImageDevice> device;
  double scan_seconds = 0;
  double plan_seconds = 0;
};

/// Reads the source, plans the image, and makes the device that reads it. What was passed over
/// goes to `log`. Raises the limit of open files as far as it may, because many make reading fast.
/// `log` must live as long as the device.
Result<PreparedImage> prepare_image(const SourceOptions& source, const ImageOptions& image,
                                    LogSink& log);

}  // namespace mkvirtfs::cli
