// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <vector>

#include "block/content.h"
#include "fsgen/tree/source_tree.h"
#include "support/error.h"

namespace mkvirtfs {

/// Of two nodes with the same bytes: `node` shares the place of `original`, which is less.
struct Duplicate {
  NodeNo node{};
  NodeNo original{};
};

/// The regular files of `tree` that have the same bytes as an earlier one, by SHA-256, sorted by
/// node. Reads all files that have a size in common, from `store`, whose content numbers are the
/// tree's nodes. Errors are the store's.
Result<std::vector<Duplicate>> find_duplicates(const SourceTree& tree, ContentStore& store);

}  // namespace mkvirtfs
