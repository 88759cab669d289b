// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <filesystem>
#include <string>

#include "fsgen/ext2/plan.h"
#include "fsgen/tree/tree_builder.h"

namespace mkvirtfs::ext2::testing {

/// Opens the image with libext2fs, walks it, and compares every name, attribute, time, link, hole
/// and byte with the source. Returns the differences as text, a line each; empty when the image is
/// what it should be.
std::string differences(const std::filesystem::path& image, const BuiltTree& source);

}  // namespace mkvirtfs::ext2::testing
