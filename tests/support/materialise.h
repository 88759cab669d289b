// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <filesystem>

#include "fsgen/tree/tree_builder.h"

namespace mkvirtfs::testing {

/// Makes the built tree in an empty host directory, with all of its attributes; paths may be longer
/// than PATH_MAX. With `backwards` the entries are created in the opposite order, so that the host
/// numbers and lists them otherwise. Throws std::runtime_error when the host refuses: devices,
/// other owners and trusted attributes take a privileged user.
void materialise(const BuiltTree& built, const std::filesystem::path& directory,
                 bool backwards = false);

/// Whether this user can make the tree: for devices and trusted attributes it takes root, for files
/// of others the root of a user name space that has their ids. Where not, notes what is skipped
/// (tests/support/privileges.h).
bool may_materialise(const BuiltTree& built);

}  // namespace mkvirtfs::testing
