// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>
#include <string>

#include "block/image.h"
#include "fsgen/tree/tree_builder.h"

namespace mkvirtfs::erofs::testing {

// Each returns what the judge has against the image, empty when nothing, and throws
// std::runtime_error when it cannot come.

/// fsck.erofs reads all of it and extracts it, which is scanned and compared with the source:
/// names, kinds, sizes, modes, owners, mtimes, targets, device numbers, bytes. Its version 1.5
/// knows no blocks but those of 4096 bytes, extracts no attributes, makes no hard links, and writes
/// what is behind a hole where the hole begins; its chown() takes setuid and setgid away.
std::string objections_of_fsck(const std::shared_ptr<const Image>& image, const BuiltTree& source);

}  // namespace mkvirtfs::erofs::testing
