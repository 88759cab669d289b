// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <limits>
#include <span>
#include <string_view>
#include <vector>

#include "support/error.h"

namespace mkvirtfs {

/// The components that a walk down a path still has to take. A symlink on the way puts those of its
/// target in front.
class SymlinkWay {
 public:
  /// As many symlinks on one way as the kernel follows (path_resolution(7)).
  static constexpr int kMostSymlinks = 40;

  /// What `components` point to outlives the way.
  explicit SymlinkWay(std::span<const std::string_view> components)
      : rest_(components.rbegin(), components.rend()) {}

  bool at_end() const noexcept { return rest_.empty(); }

  /// Takes the next component.
  std::string_view take() noexcept {
    const std::string_view name = rest_.back();
    rest_.pop_back();
    if (!is_in_target()) target_ends_ = kNoTarget;
    return name;
  }

  /// Whether the component that was taken last is a symlink's target's.
  bool is_in_target() const noexcept { return rest_.size() >= target_ends_; }

  /// One more symlink; false when that is more than are followed.
  bool count_symlink() noexcept { return ++symlinks_ <= kMostSymlinks; }

  /// The components of the symlink's target come next.
  void lead_on(std::span<const std::string_view> target) {
    if (rest_.size() < target_ends_) target_ends_ = rest_.size();
    rest_.insert(rest_.end(), target.rbegin(), target.rend());
  }

 private:
  static constexpr std::size_t kNoTarget = std::numeric_limits<std::size_t>::max();

  std::vector<std::string_view> rest_;  // the next one is the last
  // While this many components or more are left, the way is a symlink's target.
  std::size_t target_ends_ = kNoTarget;
  int symlinks_ = 0;
};

/// Why a way ends at a symlink, in words that follow a name which lies below it: the layers below
/// have it and LayerSymlinks::error refuses it; or too many follow each other.
std::unexpected<Error> refused_symlink(std::string_view link, std::string_view target);
std::unexpected<Error> endless_symlinks(std::string_view link);

}  // namespace mkvirtfs
