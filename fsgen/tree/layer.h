// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "block/content.h"
#include "fsgen/tree/source_tree.h"

namespace mkvirtfs {

/// What a layer says of attributes of a path that it does not bring itself: an mtree manifest
/// without types and contents. What is not set stays.
struct AttributeOverride {
  std::string path;
  std::optional<std::uint16_t> permissions;
  std::optional<std::uint32_t> uid;
  std::optional<std::uint32_t> gid;
  std::optional<Timestamp> mtime;
  std::uint16_t type = 0;    ///< as in st_mode: what there must be; 0: anything
  bool is_optional = false;  ///< that nothing is there is no error
};

/// A hard link to a path that the layer does not hold itself: what lies below must.
struct OutwardLink {
  std::string path;
  std::string target;
};

/// One source, read: a tree, the bytes of its files, and what it says of those that it is laid
/// over. Paths are raw bytes below the layer's root, without '/' at either end; "" is the root.
///
/// A host directory or an archive by itself is a layer over nothing: tree and contents are all
/// there is to it.
struct Layer {
  std::shared_ptr<const SourceTree> tree;
  std::shared_ptr<ContentStore> contents;  ///< of `tree`'s nodes

  /// Directories that the source does not name, made because something lies in them: they do not
  /// change those of the layers below. Sorted; may hold the root.
  std::vector<NodeNo> implied_directories;

  /// What the layers below must not show any more, with all below it; and the directories of this
  /// layer through which nothing of the layers below is seen. They act on the layers below,
  /// wherever in the source they stood.
  std::vector<std::string> whiteouts;
  std::vector<std::string> opaque_directories;
  std::vector<OutwardLink> outward_links;
  std::vector<AttributeOverride> overrides;
};

}  // namespace mkvirtfs
