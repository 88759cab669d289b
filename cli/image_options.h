// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "cli/command.h"
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
  /// What plans the image, after parsing; Errc::usage for what is malformed, or does not go with
  /// the format.
  Result<Planner> planner() const;
  /// "ext4", "fat32" and so on, as it was asked for.
  std::string_view format() const;
  /// What the format can show of a tree; what it cannot, nobody needs to read.
  const FormatHolds& holds() const;
  /// The options that were given, without --fs.
  OptionValues values() const;

 private:
  /// An option of the formats on the command line.
  struct Declared {
    const OptionRow* row = nullptr;
    const CommandOption* option = nullptr;
    // The parser wants a place for each; the values are read from `option`.
    bool flag = false;
    std::string value;
    std::vector<std::string> list;
  };
  void declare(OptionSet& options, const FormatRegistry::Option& option);

  const FormatRegistry& formats_;
  const CommandOption* format_option_ = nullptr;
  std::string format_;
  std::deque<Declared> declared_;  // the parser keeps addresses of its elements
};

}  // namespace mkvirtfs::cli
