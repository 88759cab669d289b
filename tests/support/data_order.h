// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>

#include "block/image.h"
#include "fsgen/tree/source_tree.h"

namespace mkvirtfs::testing {

/// What is wrong with the order in which an image of the tree shows the files' data: every file
/// that has some must be there, as the tree's data_order() says. Empty: nothing is.
std::string objections_to_data_order(const Image& image, const SourceTree& tree);

}  // namespace mkvirtfs::testing
