// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

// Small files as a whole.

namespace mkvirtfs {

/// All bytes of a regular file, whatever the descriptor's offset is. nullopt for what is no regular
/// file, has more than `most_bytes`, or cannot be read.
std::optional<std::vector<std::byte>> read_all(int fd, std::uint64_t most_bytes);

/// Writes on at the descriptor's offset; false, with errno, when not everything could be written.
bool write_all(int fd, std::span<const std::byte> bytes);

}  // namespace mkvirtfs
