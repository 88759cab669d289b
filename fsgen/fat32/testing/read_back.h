// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <map>
#include <memory>
#include <string>

#include "block/image.h"
#include "fsgen/fat32/plan.h"
#include "fsgen/tree/tree_builder.h"

namespace mkvirtfs::fat32::testing {

/// Reads a FAT image entry by entry, knowing nothing of how it was planned, and compares it with
/// the source: names (by the way back), kinds, sizes, bytes, times in UTC, read-only bits; short
/// names unique, chains within bounds and disjoint, free counts true. Symlinks and special files
/// are expected to be missing, all else to be there. Returns the differences, one a line; empty
/// when there are none. Throws std::runtime_error when it cannot even be read.
std::string differences(const std::shared_ptr<const Image>& image, const BuiltTree& source);

/// Copies everything out of the image with mtools, into a directory of the host, and compares that.
/// Names must have up to 80 bytes: what they are mapped to must be names for the host. mtools shows
/// characters beyond 16 bits as "__".
std::string differences_by_mtools(const std::shared_ptr<const Image>& image,
                                  const BuiltTree& source);

/// What mattrib shows of each path: letters of A, S, H and R.
std::map<std::string, std::string> attributes_by_mtools(const std::shared_ptr<const Image>& image,
                                                        const BuiltTree& source);

/// What fsck.fat has to say but for its description of the volume; empty when it is content.
std::string remarks_of_fsck(const std::shared_ptr<const Image>& image, const BuiltTree& source);

}  // namespace mkvirtfs::fat32::testing
