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

/// Attributes of a path that the layer does not bring itself, as from an mtree manifest without
/// types and contents. Those that are not set stay.
struct AttributeOverride {
  std::string path;
  std::optional<std::uint16_t> permissions;
  std::optional<std::uint32_t> uid;
  std::optional<std::uint32_t> gid;
  std::optional<Timestamp> mtime;
  std::uint16_t type = 0;    ///< as in st_mode: what there must be; 0: anything
  bool is_optional = false;  ///< nothing need be there
};

/// A hard link to a path that the layer does not hold itself. The layers below must hold it.
struct OutwardLink {
  std::string path;
  std::string target;
};

/// One source, read: a tree, the bytes of its files, and its changes to the layers below. Paths are
/// raw bytes below the layer's root, without '/' at either end; "" is the root.
///
/// A host directory or an archive by itself is a layer over nothing: it has a tree and contents
/// only.
struct Layer {
  std::shared_ptr<const SourceTree> tree;
  std::shared_ptr<ContentStore> contents;  ///< of `tree`'s nodes

  /// Directories that the source does not name, made because something lies in them: they do not
  /// change those of the layers below. Sorted; may hold the root.
  std::vector<NodeNo> implied_directories;

  /// Paths of the layers below that are hidden, with everything below them; and directories of this
  /// layer through which nothing of the layers below is seen. They act on the layers below,
  /// wherever in the source they stood.
  std::vector<std::string> whiteouts;
  std::vector<std::string> opaque_directories;
  std::vector<OutwardLink> outward_links;
  std::vector<AttributeOverride> overrides;
};

}  // namespace mkvirtfs
