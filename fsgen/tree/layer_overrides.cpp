// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/tree/layer_overrides.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <string>
#include <string_view>
#include <utility>

namespace mkvirtfs {
namespace {

std::string_view type_in_words(std::uint16_t type) {
  switch (type) {
    case S_IFDIR:
      return "a directory";
    case S_IFREG:
      return "a file";
    case S_IFLNK:
      return "a symlink";
    case S_IFCHR:
    case S_IFBLK:
      return "a device";
    case S_IFIFO:
      return "a fifo";
    case S_IFSOCK:
      return "a socket";
    default:
      return "something else";
  }
}

}  // namespace

Result<void> LayerOverrides::add(const StackView& view, LayerNo layer) {
  for (const AttributeOverride& change : view.layer(layer).overrides) {
    const std::string path = view.placed_path(layer, change.path);
    const Result<StackEntry> found = view.find(path, view.end());
    if (!found) return propagate(found);
    if (!found->exists()) {
      if (change.is_optional) continue;
      return view.wrong(layer,
                        fmt::format("{} is given attributes, but there is no such entry", path));
    }
    const auto type = static_cast<std::uint16_t>(
        found->leaf ? view.node_of(*found->leaf).mode & S_IFMT : S_IFDIR);
    if (change.type != 0 && change.type != type) {
      return view.wrong(layer, fmt::format("{} is given attributes as {}, but is {}", path,
                                           type_in_words(change.type), type_in_words(type)));
    }
    set(found->leaf ? *found->leaf : view.attributes_of(found->shares), change);
  }
  return {};
}

void LayerOverrides::set(const Origin& origin, const AttributeOverride& change) {
  AttributeOverride& known = changes_[origin];
  if (change.permissions) known.permissions = change.permissions;
  if (change.uid) known.uid = change.uid;
  if (change.gid) known.gid = change.gid;
  if (change.mtime) known.mtime = change.mtime;
}

void LayerOverrides::apply(const Origin& origin, NewNode& node) const {
  const auto found = changes_.find(origin);
  if (found == changes_.end()) return;
  const AttributeOverride& change = found->second;
  // Symlinks have no permissions.
  if (change.permissions && !S_ISLNK(node.mode)) {
    node.mode = static_cast<std::uint16_t>((node.mode & S_IFMT) | (*change.permissions & 07777));
  }
  node.uid = change.uid.value_or(node.uid);
  node.gid = change.gid.value_or(node.gid);
  node.mtime = change.mtime.value_or(node.mtime);
}

}  // namespace mkvirtfs
