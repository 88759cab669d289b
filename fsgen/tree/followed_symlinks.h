// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <vector>

#include "block/image.h"
#include "fsgen/tree/layer.h"
#include "support/error.h"

namespace mkvirtfs {

/// A tree without symlinks.
struct FollowedTree {
  Layer layer;
  /// What stands instead of each symlink, for Image::differences().
  std::vector<Difference> links{};
};

/// The same tree with what symlinks lead to in their place, and its contents: one more name of a
/// file, a copy of a directory with all that is below it, links included. "/" is the root of the
/// tree. Contents keep 8 bytes a node to find the source's. A tree without symlinks stays itself.
///
/// Errors: Errc::does_not_fit for a symlink that leads out of the tree, to nothing, or in a circle,
/// with its path; and for more than a million and sixteen times as many entries as the tree has.
Result<FollowedTree> follow_symlinks(const Layer& source);

}  // namespace mkvirtfs
