// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <expected>
#include <string_view>

#include "fsgen/tree/source_tree.h"

namespace mkvirtfs {

/// Why a symlink leads to nothing in the tree.
enum class LeadsNowhere : std::uint8_t { dangling, outside, loop };
/// In words that follow the path: "is a symlink that leads out of the source".
std::string_view words_of(LeadsNowhere why) noexcept;

/// The node that a symlink of `directory` (a directory's node) leads to, over other symlinks if
/// need be; it is none itself. "/" is the root of the tree, and ".." does not lead out of it.
std::expected<NodeNo, LeadsNowhere> follow_symlink(const SourceTree& tree, NodeNo directory,
                                                   NodeNo link);

}  // namespace mkvirtfs
