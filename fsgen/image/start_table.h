// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace mkvirtfs {

/// Things that stand one behind the other without gaps, numbered as they stand: where each begins.
/// A thing may be empty. `Place` counts blocks or clusters; this is all that planners keep to know
/// which file stands in one.
template <class Place>
class StartTable {
 public:
  void reserve(std::size_t count) { starts_.reserve(count + 1); }
  /// The next thing begins here.
  void add(Place start) { starts_.push_back(start); }
  /// The last one ends here; must follow, once.
  void finish(Place end) { starts_.push_back(end); }

  Place begin_of(std::uint32_t thing) const noexcept { return starts_[thing]; }
  Place end_of(std::uint32_t thing) const noexcept { return starts_[thing + 1]; }
  bool is_empty(std::uint32_t thing) const noexcept { return begin_of(thing) == end_of(thing); }
  /// Of all things.
  Place begin() const noexcept { return starts_.front(); }
  Place end() const noexcept { return starts_.back(); }

  /// The thing that has this place, which is one of theirs: of those that begin there all but the
  /// last are empty.
  std::uint32_t thing_at(Place place) const noexcept {
    assert(place >= begin() && place < end());
    return static_cast<std::uint32_t>(std::ranges::upper_bound(starts_, place) - starts_.begin()) -
           1;
  }

 private:
  std::vector<Place> starts_;
};

}  // namespace mkvirtfs
