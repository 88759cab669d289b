// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/server/name_walk.h"

#include <utility>

namespace mkvirtfs::nbd {
namespace {

constexpr std::size_t kPageEntries = 64;
/// Pages beyond two for each name, for directories that hold few.
constexpr std::size_t kSparePages = 1000;

}  // namespace

NameWalk::NameWalk(ExportTree& exports, std::size_t most_names) noexcept
    : exports_(exports), most_names_(most_names), pages_left_(2 * most_names + kSparePages) {}

bool NameWalk::enter_directory() {
  if (in_directory_) return true;
  if (directories_.empty()) return false;
  directory_ = std::move(directories_.back());
  directories_.pop_back();
  after_.reset();
  return in_directory_ = true;
}

bool NameWalk::visit_page(const Visit& visit) {
  if (!enter_directory()) return false;
  if (pages_left_ == 0) {
    was_cut_ = true;
    return false;
  }
  --pages_left_;
  const auto page = exports_.list(directory_, after_, kPageEntries);
  if (!page) {
    // An error reply would make clients drop the names that they have: visit what there is.
    in_directory_ = false;
    return true;
  }
  for (const ExportEntry& entry : *page) {
    if (entry.is_export && visited_ == most_names_) {
      was_cut_ = true;
      return false;
    }
    if (entry.is_directory) {
      // No more are kept than names may be visited.
      if (directories_.size() < most_names_) {
        directories_.push_back(entry.name);
      } else {
        was_cut_ = true;
      }
    }
    if (entry.is_export) {
      ++visited_;
      visit(entry);
    }
  }
  in_directory_ = page->size() == kPageEntries;
  if (in_directory_) after_ = page->back().name;
  return true;
}

}  // namespace mkvirtfs::nbd
