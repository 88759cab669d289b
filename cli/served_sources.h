// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/image_options.h"
#include "cli/kept_places.h"
#include "cli/source_options.h"
#include "exports/export_tree.h"
#include "support/error.h"
#include "support/log.h"

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

/// The sources that serve offers, each with its own options over those that all share. Plain ones
/// are laid over each other, and so are those with the same name.
class ServedSources {
 public:
  /// Checks all there is to check without scanning. Plain DIRs are the default export and are
  /// called `default_name`; without one, the source of that name is, or the first if it is "".
  /// `shared` is serve's own command line, after parsing; `source` and `image` are its values, are
  /// given the plain directories, and outlive the sources.
  static Result<ServedSources> parse(const std::string& default_name, const OptionSet& shared,
                                     SourceOptions& source, const ImageOptions& image);
  ServedSources(ServedSources&&) noexcept;
  ServedSources& operator=(ServedSources&&) noexcept = delete;
  ~ServedSources();

  /// The names of the exports, the default one's first.
  const std::vector<std::string>& names() const noexcept { return names_; }

  /// Overlays over the images will outlive the server: see SourceOptions::keep_base.
  void keep_bases();
  /// check_outside_source() for all that is read.
  Result<void> check_outside(std::span<const KeptPlace> places) const;

  /// What is plain is scanned and planned now, and stays so; the others are when a client needs
  /// them, and are no more than their words before. What a build has to say goes to `log`, which
  /// outlives the tree, as does `cancel`, which ends the wait for a source that is a pipe.
  Result<std::shared_ptr<ExportTree>> make_exports(LogSink& log,
                                                   const std::atomic<bool>* cancel = nullptr) const;

 private:
  struct Named;
  ServedSources();

  std::vector<std::string> names_;
  std::vector<std::shared_ptr<Named>> named_;  // in the order of names_, behind the plain one
  SourceOptions* plain_ = nullptr;
  const ImageOptions* plain_image_ = nullptr;
};

}  // namespace mkvirtfs::cli
