// SPDX-License-Identifier: BSD-3-Clause
//
// A symlink is followed inside the source alone, component by component, with an absolute target
// beginning at the source's root. Where a component is a symlink its target is put before the rest
// of the path; so many of them that no file system follows them are a loop.
#include "fsgen/tree/symlink_target.h"

#include <string_view>
#include <utility>
#include <vector>

#include "fsgen/tree/symlink_way.h"

namespace mkvirtfs {

std::string_view words_of(LeadsNowhere why) noexcept {
  switch (why) {
    case LeadsNowhere::dangling:
      return "is a symlink to what is not in the source";
    case LeadsNowhere::outside:
      return "is a symlink that leads out of the source";
    case LeadsNowhere::loop:
      return "is a symlink that leads in a circle";
  }
  std::unreachable();
}

std::expected<NodeNo, LeadsNowhere> follow_symlink(const SourceTree& tree, NodeNo directory,
                                                   NodeNo link) {
  // Paths that are still to be walked, the nearest last: a symlink on the way pushes its own.
  std::vector<std::string_view> paths;
  NodeNo at = directory;
  int links = 0;
  const auto enter = [&](NodeNo symlink) {
    const std::string_view target = tree.symlink_target(symlink);
    if (target.starts_with('/')) at = kRootNode;
    paths.push_back(target);
    return ++links <= SymlinkWay::kMostSymlinks && !target.empty();
  };
  if (!enter(link)) return std::unexpected(LeadsNowhere::dangling);
  while (!paths.empty()) {
    std::string_view& path = paths.back();
    const std::size_t slash = path.find('/');
    const std::string_view name = path.substr(0, slash);
    const bool is_last = slash == std::string_view::npos;
    path.remove_prefix(is_last ? path.size() : slash + 1);
    if (is_last) paths.pop_back();
    if (name.empty() || name == ".") continue;
    if (!tree.node(at).is_directory()) return std::unexpected(LeadsNowhere::dangling);
    if (name == "..") {
      if (at == kRootNode) return std::unexpected(LeadsNowhere::outside);
      at = tree.parent_of(at).node;
      continue;
    }
    const Entry* entry = tree.find(tree.directories()[tree.directory_no(at)], name);
    if (entry == nullptr) return std::unexpected(LeadsNowhere::dangling);
    if (!tree.node(entry->node).is_symlink()) {
      at = entry->node;
    } else if (!enter(entry->node)) {
      return std::unexpected(LeadsNowhere::loop);
    }
  }
  return at;
}

}  // namespace mkvirtfs
