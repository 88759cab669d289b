// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/archive/extracted_paths.h"

#include <algorithm>
#include <functional>
#include <memory>

#include "fsgen/tree/tree_path.h"
#include "support/arithmetic.h"

namespace mkvirtfs::archive {

ExtractedPath::ExtractedPath(std::string_view name, PathNo parent)
    : name_(std::to_address(name.begin())),
      parent_(parent),
      name_bytes_(narrow<std::uint8_t>(name.size())) {}

PathNo ExtractedPaths::find_or_add(PathNo parent, std::string_view name) {
  const std::size_t place = place_of(parent, name);
  if (table_[place] != kNoPath) return table_[place];
  const PathNo no{size()};
  table_[place] = no;
  paths_.emplace_back(name, parent);
  (*this)[parent].count_entry();
  if (paths_.size() > table_.size() / 2) grow();
  return no;
}

std::string ExtractedPaths::text(PathNo no) const {
  std::vector<std::string_view> names;
  for (; no != kRootPath; no = (*this)[no].parent()) names.push_back((*this)[no].name());
  std::ranges::reverse(names);
  return join_path(names);
}

/// Where the path's number is in the table, or would be.
std::size_t ExtractedPaths::place_of(PathNo parent, std::string_view name) const noexcept {
  const std::size_t mask = table_.size() - 1;
  std::size_t place =
      (std::hash<std::string_view>{}(name) ^ (parent * std::uint64_t{0x9e3779b97f4a7c15})) & mask;
  while (table_[place] != kNoPath) {
    const ExtractedPath& path = (*this)[table_[place]];
    if (path.parent() == parent && path.name() == name) break;
    place = (place + 1) & mask;
  }
  return place;
}

void ExtractedPaths::grow() {
  table_.assign(table_.size() * 2, kNoPath);
  for (std::uint32_t no = 1; no < size(); ++no) {
    table_[place_of(paths_[no].parent(), paths_[no].name())] = PathNo{no};
  }
}

}  // namespace mkvirtfs::archive
