// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/command_line.h"
#include "cli/row_options.h"
#include "compose/image_spec.h"
#include "fsgen/image/format_registry.h"
#include "support/error.h"

namespace mkvirtfs::cli {

/// The options that say what image is made: the same for every subcommand. They come from the
/// registry of formats.
class ImageOptions {
 public:
  /// `formats` must outlive this.
  explicit ImageOptions(const FormatRegistry& formats) : formats_(formats) {}
  ImageOptions(const ImageOptions&) = delete;
  ImageOptions& operator=(const ImageOptions&) = delete;

  void add_to(OptionSet& options);

  const FormatRegistry& formats() const noexcept { return formats_; }
  /// What --fs names, after parsing; "" when it was not given.
  std::string format() const;
  /// The formats' options that were given.
  OptionValues values() const { return rows_.values(); }

 private:
  std::string heading_of(const FormatRegistry::Option& option) const;

  const FormatRegistry& formats_;
  const CommandOption* format_option_ = nullptr;
  std::string format_;
  RowOptions rows_;
};

/// SOURCE_DATE_EPOCH, or nullopt; Errc::usage when it is no number of seconds.
Result<std::optional<std::int64_t>> source_date_epoch();

/// The image of `sources`, as the command line and SOURCE_DATE_EPOCH want it, without partitions.
/// Errc::usage when that is no number.
Result<ImageSpec> image_spec(std::vector<SourceSpec> sources, const ImageOptions& image);

}  // namespace mkvirtfs::cli
