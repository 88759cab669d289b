// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>
#include <string_view>

#include "nbd/server/extension.h"
#include "support/error.h"

// The metadata context qemu:allocation-depth, as QEMU defines it (its docs/interop/nbd.txt): flags
// are no bits but the layer that holds a stretch, 1 for the one that is written. Only devices with
// overlays have it. Holes of the device at the bottom are reported as its own.

namespace mkvirtfs::nbd {

inline constexpr std::string_view kAllocationDepth = "qemu:allocation-depth";

std::shared_ptr<const MetaContext> make_allocation_depth();

/// Adds the namespace "qemu" with this context. Fails as Extensions::add_namespace does.
Result<void> add_allocation_depth(Extensions& extensions);

}  // namespace mkvirtfs::nbd
