// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>
#include <string_view>

#include "block/image.h"
#include "fsgen/tree/source_tree.h"

// What no planner can show of a tree, for Image::remark() and Image::differences() of every format:
// chattr flags of the source, and extended attributes that no Linux file system has by name.

namespace mkvirtfs {

/// "1 symlink", "3 symlinks".
std::string counted(std::uint64_t count, std::string_view one, std::string_view many);

/// Two remarks on one line; either may be empty.
std::string joined_remarks(std::string first, std::string_view second);

/// How much that is, on one line; empty when it is nothing. The tree has counted it.
std::string source_remark(const SourceTree& tree);

/// All of it, in the order of the nodes; false when the sink wants no more.
bool list_source_differences(const SourceTree& tree, DifferenceSink& sink);

}  // namespace mkvirtfs
