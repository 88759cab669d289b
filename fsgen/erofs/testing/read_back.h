// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>

#include "block/device.h"
#include "fsgen/tree/tree_builder.h"

namespace mkvirtfs::erofs::testing {

/// Whether each inode has the mtime of its node, or all have that of the volume.
enum class TimesAre : bool { kept, the_volumes };

/// Reads the volume from its superblock on, as the kernel does, and compares every name, attribute,
/// time, link, hole and byte with the source. Returns the differences as text, a line each; empty
/// when the image is what it should be.
std::string differences(BlockDevice& device, const BuiltTree& source,
                        TimesAre times = TimesAre::kept);

}  // namespace mkvirtfs::erofs::testing
