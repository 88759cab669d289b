// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace mkvirtfs {

/// A UUID with its bytes in the order in which its text has them (RFC 9562).
using Uuid = std::array<std::byte, 16>;

/// "d3b07384-d9a0-4c9b-8f6e-1a2b3c4d5e6f" and back; nullopt when malformed. Upper case is read,
/// too.
std::optional<Uuid> parse_uuid(std::string_view text) noexcept;
std::string to_string(const Uuid& uuid);

/// A UUID of version 8 (made by our own rule) of the start of a digest: ids that may not differ
/// from run to run derive from what they name (law 1).
Uuid derived_uuid(std::span<const std::byte, 16> digest) noexcept;

}  // namespace mkvirtfs
