// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cli/command.h"
#include "cli/overlay_base.h"
#include "exports/overlay_exports.h"
#include "exports/overlay_shelf.h"
#include "support/error.h"
#include "support/log.h"

namespace mkvirtfs::cli {

/// Whether and where serve keeps what clients write.
class OverlayOptions {
 public:
  void add_to(OptionSet& options, const char* group);
  /// In the place of a command line: as --overlay=`where`, or --rw where that is "".
  void set_writable(std::string where) {
    writable_ = true;
    where_ = std::move(where);
  }

  /// Errc::usage for what is malformed or contradictory; `exports` is how many there will be.
  Result<void> check(std::size_t exports) const;
  /// Exports are writable.
  bool wanted() const noexcept;
  /// The overlay is one file that outlives the server.
  bool is_file() const;
  /// What is written outlives the server, in a file or a directory.
  bool is_persistent() const noexcept;
  /// That file or directory.
  const std::string& where() const noexcept { return where_; }
  /// The exports of `below` with overlays; the values are those of check(), which succeeded.
  /// Clients and `log`, which lives longer, learn of overlays on the disk that cannot be opened.
  Result<std::shared_ptr<OverlayExports>> make_exports(std::shared_ptr<ExportTree> below,
                                                       LogSink& log) const;

 private:
  /// Each export has a file of its own in a directory.
  bool is_directory() const;
  /// `main_export` is the one that has the file of --overlay=FILE itself.
  DiskShelf disk_shelf(std::string main_export, LogSink& log) const;
  BaseGuard::Rules base_rules() const;

  bool writable_ = false;
  std::string where_;
  std::string most_bytes_;
  std::vector<std::string> clones_;
  std::string most_clones_;
  std::string base_check_;
  std::string other_base_;
  bool write_through_ = false;
};

}  // namespace mkvirtfs::cli
