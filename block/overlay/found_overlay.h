// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "block/overlay/file.h"
#include "block/overlay/header.h"
#include "block/overlay/layout.h"
#include "support/error.h"
#include "support/unique_fd.h"

namespace mkvirtfs {

/// What the file of an overlay holds, as it was found.
struct FoundOverlay {
  OverlayFile::Facts facts;
  std::map<MapPageNo, OverlayPage> pages;    // of the map, with what the journal says of them
  std::map<MapPageNo, OverlayPage> journal;  // of these
  std::uint64_t sequence = 0;                // of the journal
};

/// Reads all but the data, and changes nothing. `path` is for messages. Errors: those of
/// OverlayFile::check().
Result<FoundOverlay> read_overlay(const UniqueFd& file, const std::string& path);

}  // namespace mkvirtfs
