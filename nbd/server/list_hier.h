// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>

#include "nbd/server/extension.h"
#include "nbd/wire/hier.h"
#include "support/error.h"

// Walking a tree of exports one level at a time: our option LIST_HIER, and beside it the metadata
// contexts x-mkvirtfs:ls:, which need no option that the protocol does not have. Both are specified
// in docs/list-hier.md.

namespace mkvirtfs::nbd {

/// How many entries one LIST_HIER sends: by default, and at most.
inline constexpr std::uint32_t kHierPage = 1000;
inline constexpr std::uint32_t kMostHierPage = 4096;
/// How many LIST_HIER a client may send on one connection, beside its other options.
inline constexpr std::size_t kHierCalls = 4096;

/// Adds both ways. Fails as Extensions::add_option and add_namespace do.
Result<void> add_list_hier(Extensions& extensions);

}  // namespace mkvirtfs::nbd
