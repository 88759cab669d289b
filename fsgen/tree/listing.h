// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>

#include "fsgen/tree/source_tree.h"

namespace mkvirtfs {

/// The tree as text, one entry a line in numbering order: everything an image can show of it but
/// the files' bytes. Equal trees give equal listings, and TreeBuilder::parse() makes the same tree
/// of it again. The format is described in tests/images/README.md.
std::string to_listing(const SourceTree& tree);

}  // namespace mkvirtfs
