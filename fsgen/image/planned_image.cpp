// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/image/planned_image.h"

#include <algorithm>
#include <iterator>

namespace mkvirtfs {

std::optional<std::uint64_t> DataPlacement::find(std::uint64_t data_offset) const noexcept {
  const auto after = std::ranges::upper_bound(runs, data_offset, {}, &Run::data_offset);
  if (after == runs.begin()) return std::nullopt;
  const Run& run = *std::prev(after);
  const std::uint64_t at = data_offset - run.data_offset;
  return at < run.range.length ? std::optional(run.range.offset + at) : std::nullopt;
}

std::optional<NodeNo> find_node(const SourceTree& tree, std::string_view path) noexcept {
  const Node* const found = tree.find_path(path);
  if (found == nullptr) return std::nullopt;
  return tree.number_of(*found);
}

}  // namespace mkvirtfs
