// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "cli/command.h"
#include "nbd/overlay_exports.h"
#include "support/error.h"

namespace mkvirtfs::cli {

/// Whether and where serve keeps what clients write.
class OverlayOptions {
 public:
  void add_to(CLI::App& app, const char* group);

  /// Errc::usage for what is malformed or contradictory; `exports` is how many there will be.
  Result<void> check(std::size_t exports) const;
  /// Exports are writable.
  bool wanted() const noexcept;
  /// The overlay is a file that outlives the server.
  bool is_persistent() const noexcept;
  /// The exports of `below` with overlays; the values are those of check(), which succeeded.
  std::shared_ptr<nbd::OverlayExports> make_exports(std::shared_ptr<nbd::ExportTree> below) const;

 private:
  bool writable_ = false;
  std::string where_;
  std::string most_bytes_;
  std::vector<std::string> clones_;
  std::string most_clones_;
};

}  // namespace mkvirtfs::cli
