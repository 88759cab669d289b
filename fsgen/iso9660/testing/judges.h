// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>
#include <string>

#include "block/image.h"
#include "fsgen/tree/tree_builder.h"

namespace mkvirtfs::iso9660::testing {

// Each returns what the judge has against the image, empty when nothing, and throws
// std::runtime_error when it cannot come.

/// xorriso reads all of it; isoinfo lists both hierarchies, and 7z what it takes for the best one.
/// isoinfo writes beyond its memory at targets of 1,000 bytes or so.
std::string objections(const std::shared_ptr<const Image>& image, const BuiltTree& source);

/// xorriso compares the image with the source, made on the host: names, kinds, sizes, modes,
/// owners, mtimes, links, targets, device numbers, bytes. ctime and atime are the host's.
std::string differences_by_xorriso(const std::shared_ptr<const Image>& image,
                                   const BuiltTree& source);

/// bsdtar copies everything out, which is scanned and compared with the source: names, kinds,
/// sizes, modes, owners, mtimes (whole seconds from 1900 to 2155), links, targets, bytes. Sockets
/// it makes files of.
std::string differences_by_bsdtar(const std::shared_ptr<const Image>& image,
                                  const BuiltTree& source);

}  // namespace mkvirtfs::iso9660::testing
