// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "exports/export_tree.h"

namespace mkvirtfs::nbd {

/// Walks a tree of exports for the flat list that LIST wants: depth first through the directories,
/// a page at a time. The work is bounded by the names that may be visited, however many directories
/// have nothing in them. The tree lives longer. Belongs to one thread.
class NameWalk {
 public:
  using Visit = std::function<void(const ExportEntry&)>;

  NameWalk(ExportTree& exports, std::size_t most_names) noexcept;

  /// Visits the exports of one page. False when there are no more pages, or no more may be visited.
  bool visit_page(const Visit& visit);

  std::size_t visited() const noexcept { return visited_; }
  /// There are exports that were left out.
  bool was_cut() const noexcept { return was_cut_; }

 private:
  bool enter_directory();

  ExportTree& exports_;
  const std::size_t most_names_;
  std::size_t pages_left_;
  std::vector<std::string> directories_ = {""};  // that are still to be listed
  bool in_directory_ = false;
  std::string directory_;             // whose pages are listed
  std::optional<std::string> after_;  // the last name of the page before
  std::size_t visited_ = 0;
  bool was_cut_ = false;
};

}  // namespace mkvirtfs::nbd
