// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/tree/sequence.h"

#include <cassert>

namespace mkvirtfs {

Sequence::Sequence(std::vector<std::uint32_t> order) : order_(std::move(order)) {
  positions_.resize(order_.size());
  for (std::uint32_t position = 0; position < order_.size(); ++position) {
    assert(order_[position] < order_.size());
    positions_[order_[position]] = position;
  }
}

Sequence data_sequence(const SourceTree& tree) {
  const auto wanted = tree.data_order();
  if (wanted.empty()) return {};
  std::vector<bool> has_data(tree.node_count());
  for (const NodeNo no : wanted) has_data[no] = true;
  std::vector<std::uint32_t> order;
  order.reserve(tree.node_count());
  for (NodeNo no; no < tree.node_count(); ++no) {
    if (!has_data[no]) order.push_back(no);
  }
  order.insert(order.end(), wanted.begin(), wanted.end());
  return Sequence(std::move(order));
}

}  // namespace mkvirtfs
