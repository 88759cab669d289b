// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <vector>

#include "block/image.h"
#include "cli/image_options.h"
#include "cli/source_loader.h"
#include "cli/source_options.h"
#include "fsgen/tree/source_tree.h"
#include "support/error.h"
#include "support/log.h"

namespace mkvirtfs::cli {

/// Sources that were read and merged, and the plan for them: everything the subcommands begin with.
struct PreparedImage {
  std::shared_ptr<const SourceTree> tree;
  ScanReport report;  ///< of all sources together
  std::vector<SourceFacts> sources;
  std::shared_ptr<const Image> image;
  /// Knows what it was made of where SourceOptions::keep_base asks for that: a PreparedDevice.
  std::shared_ptr<ImageDevice> device;
  double scan_seconds = 0;
  double plan_seconds = 0;
};

/// Has the process open as many files as it may: many make reading fast, and clients need some,
/// too.
void raise_open_file_limit() noexcept;

/// Reads the sources, each of `parts` with its own options, merges them in order (docs/layers.md),
/// plans the image, and makes the device that reads it. What a scan passed over goes to `log`.
/// Calls raise_open_file_limit(). `log` must live as long as the device, and so must `cancel`: see
/// load_source().
Result<PreparedImage> prepare_image(std::span<const SourceOptions* const> parts,
                                    const ImageOptions& image, LogSink& log,
                                    const std::atomic<bool>* cancel = nullptr);
Result<PreparedImage> prepare_image(const SourceOptions& source, const ImageOptions& image,
                                    LogSink& log, const std::atomic<bool>* cancel = nullptr);

}  // namespace mkvirtfs::cli
