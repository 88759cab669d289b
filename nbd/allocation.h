// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "block/device.h"
#include "block/extent.h"

namespace mkvirtfs::nbd {

/// A stretch of a device that a client is told to be a hole, or data.
struct AllocationRun {
  Range range;
  bool is_hole = false;

  friend bool operator==(const AllocationRun&, const AllocationRun&) = default;
};

/// The blocks in which a device's holes are told: its preferred block, as far as that is sane. The
/// protocol asks for multiples of 512 ("Metadata querying"), and clients fare badly with the many
/// little holes behind the ends of small files.
std::uint32_t allocation_block_bytes(const Geometry& geometry) noexcept;

/// The part of a hole that may be told inside `request`: whole blocks, because a block with any
/// data in it is data; only where the hole meets an end of the request it may end there. May be
/// empty.
Range tellable_hole(Range hole, Range request, std::uint32_t block_bytes) noexcept;

/// What base:allocation says of `request`: runs in order, gapless, no two neighbours alike, holes
/// exactly where the map has holes of whole blocks. At most `most_runs`, and of at most
/// `most_extents` of the map: then the answer ends before the request does, but it has at least one
/// run. Appends to `runs`.
void append_allocation(const BlockDevice& device, Range request, std::size_t most_runs,
                       std::size_t most_extents, std::vector<AllocationRun>& runs);

}  // namespace mkvirtfs::nbd
