// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <expected>

#include "fsgen/fat32/contents.h"
#include "fsgen/tree/source_tree.h"

namespace mkvirtfs::fat32 {

/// The node that a symlink of `directory` (a directory's node) leads to, over other symlinks if
/// need be; it is none itself. "/" is the root of the tree, and ".." does not lead out of it.
/// Errors: why it leads nowhere.
std::expected<NodeNo, Reason> follow_symlink(const SourceTree& tree, NodeNo directory, NodeNo link);

}  // namespace mkvirtfs::fat32
