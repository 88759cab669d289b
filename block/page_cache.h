// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "block/extent.h"
#include "support/error.h"

// What the kernel holds of a host file in memory. Everything here is for readers that must not wait
// for a disk; file systems that can not tell are taken for ones that never make anybody wait.

namespace mkvirtfs {

/// Reads until `out` is full, the file ends, or the disk fails: the number of bytes.
Result<std::size_t> read_fully(int fd, std::uint64_t offset, std::span<std::byte> out);

/// Whether the range can be read without waiting. Not empty and inside the file. A good guess: a
/// few of its pages speak for all.
bool is_in_page_cache(int fd, Range range) noexcept;

/// Waits until the range has been read in, as far as it can be.
void bring_into_page_cache(int fd, Range range) noexcept;

}  // namespace mkvirtfs
