// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "fsgen/archive/member_log.h"
#include "fsgen/archive/member_path.h"
#include "support/error.h"

namespace mkvirtfs::oci {

/// What a layer says of those below it (OCI Image Specification, layer.md): paths below the root.
struct LayerMarks {
  std::vector<std::string> whiteouts;           ///< "etc/hosts" of a member etc/.wh.hosts
  std::vector<std::string> opaque_directories;  ///< "etc" of a member etc/.wh..wh..opq
};

/// Takes the members that are whiteouts out of the log, and whatever else AUFS names .wh..wh.:
/// nothing of that is a file of the image.
///
/// Errors: Errc::unreadable for a whiteout of no name, and for members below one. `name` is the
/// layer's, for messages.
Result<LayerMarks> take_whiteouts(archive::MemberLog& members, std::string_view name,
                                  archive::UnsafeNames unsafe_names);

}  // namespace mkvirtfs::oci
