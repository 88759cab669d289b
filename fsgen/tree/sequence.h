// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <vector>

#include "fsgen/tree/source_tree.h"

namespace mkvirtfs {

/// In which order things numbered from 0 on stand, and back. That they stand as they are numbered
/// costs nothing; any other order 8 bytes a thing. Immutable.
class Sequence {
 public:
  /// As they are numbered.
  Sequence() = default;
  /// At position p stands `order[p]`: each of 0 .. order.size() - 1 once.
  explicit Sequence(std::vector<std::uint32_t> order);

  std::uint32_t at(std::uint32_t position) const noexcept {
    return order_.empty() ? position : order_[position];
  }
  std::uint32_t position_of(std::uint32_t no) const noexcept {
    return positions_.empty() ? no : positions_[no];
  }

 private:
  std::vector<std::uint32_t> order_;
  std::vector<std::uint32_t> positions_;
};

/// All nodes, those with data in the order of SourceTree::data_order(). Where there is such an
/// order, all others stand before them.
Sequence data_sequence(const SourceTree& tree);

}  // namespace mkvirtfs
