// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace mkvirtfs::archive {

enum class IdKind : std::uint8_t { user, group };

/// The id of a user or a group by a name that an archive has instead of it: a number, or a name
/// that this host knows, as extracting would ask. nullopt when it does not.
std::optional<std::uint32_t> id_of(std::string_view name, IdKind kind);

}  // namespace mkvirtfs::archive
