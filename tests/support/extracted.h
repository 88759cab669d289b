// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "fsgen/tree/tree_builder.h"

namespace mkvirtfs::testing {

/// What a node of the source and the one that was extracted in its place differ in, beside their
/// bytes and their links; empty: nothing.
using NodeDifference = std::function<std::string(const SourceTree& tree, NodeNo want,
                                                 const SourceTree& found, NodeNo is)>;

enum class HardLinks : bool { compare, ignore };

/// Scans a directory into which a foreign tool has extracted an image, without extended attributes,
/// and compares it with the source: names, bytes, hard links of files with bytes, and what
/// `difference` says. A line for each difference. The directory itself is none of the image.
std::string extracted_differences(const BuiltTree& source, const std::filesystem::path& directory,
                                  HardLinks links, const NodeDifference& difference);

}  // namespace mkvirtfs::testing
