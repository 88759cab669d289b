// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "block/device.h"
#include "block/extent.h"
#include "nbd/server/extension.h"

namespace mkvirtfs::nbd {

/// The metadata context that every server has, and its namespace.
inline constexpr std::string_view kBaseAllocation = "base:allocation";
std::shared_ptr<const MetaContext> make_base_allocation();
std::shared_ptr<const MetaNamespace> make_base_namespace();

/// The device's minimum block, as far as the protocol allows it.
std::uint32_t minimum_block_bytes(const Geometry& geometry) noexcept;

/// The blocks in which a device's holes are reported: its preferred block, within reason. The
/// protocol asks for multiples of 512 ("Metadata querying"), and clients fare badly with the many
/// little holes behind the ends of small files.
std::uint32_t allocation_block_bytes(const Geometry& geometry) noexcept;

/// The part of a hole that may be reported inside `request`: whole blocks, because a block with any
/// data in it is data; only where the hole meets an end of the request it may end there. May be
/// empty.
Range reportable_hole(Range hole, Range request, std::uint32_t block_bytes) noexcept;

/// What base:allocation says of `request`: runs in order, gapless, no two neighbours alike, holes
/// exactly where the map has holes of whole blocks. Where a limit is met the answer ends before the
/// request does, but it has at least one run. Appends to `runs`.
void append_allocation(const BlockDevice& device, Range request, const StatusLimits& limits,
                       std::vector<StatusRun>& runs);

}  // namespace mkvirtfs::nbd
