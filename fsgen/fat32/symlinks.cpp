// SPDX-License-Identifier: BSD-3-Clause
//
// A symlink is followed inside the source alone, component by component, with an absolute target
// beginning at the source's root. Where a component is a symlink its target is put before the rest
// of the path; so many of them that no file system follows them are a loop.
#include "fsgen/fat32/symlinks.h"

#include <string>
#include <string_view>
#include <vector>

namespace mkvirtfs::fat32 {
namespace {

constexpr int kMostLinks = 40;  // as the kernel's path lookup

}  // namespace

std::expected<NodeNo, Reason> follow_symlink(const SourceTree& tree, NodeNo directory,
                                             NodeNo link) {
  // Paths that are still to be walked, the nearest last: a symlink on the way pushes its own.
  std::vector<std::string_view> paths;
  NodeNo at = directory;
  int links = 0;
  const auto enter = [&](NodeNo symlink) {
    const std::string_view target = tree.symlink_target(symlink);
    if (target.starts_with('/')) at = kRootNode;
    paths.push_back(target);
    return ++links <= kMostLinks && !target.empty();
  };
  if (!enter(link)) return std::unexpected(Reason::symlink_dangling);
  while (!paths.empty()) {
    std::string_view& path = paths.back();
    const std::size_t slash = path.find('/');
    const std::string_view name = path.substr(0, slash);
    const bool is_last = slash == std::string_view::npos;
    path.remove_prefix(is_last ? path.size() : slash + 1);
    if (is_last) paths.pop_back();
    if (name.empty() || name == ".") continue;
    if (!tree.node(at).is_directory()) return std::unexpected(Reason::symlink_dangling);
    if (name == "..") {
      if (at == kRootNode) return std::unexpected(Reason::symlink_outside);
      at = tree.parent_of(at).node;
      continue;
    }
    const Entry* entry = tree.find(tree.directories()[tree.directory_no(at)], name);
    if (entry == nullptr) return std::unexpected(Reason::symlink_dangling);
    if (!tree.node(entry->node).is_symlink()) {
      at = entry->node;
    } else if (!enter(entry->node)) {
      return std::unexpected(Reason::symlink_loop);
    }
  }
  return at;
}

}  // namespace mkvirtfs::fat32
