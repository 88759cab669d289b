// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

// Paths below the root of a tree: raw bytes, '/' between the components.

namespace mkvirtfs {

/// The components of a path or of a symlink's target: no empty ones, no "."; ".." stays.
std::vector<std::string_view> components_of(std::string_view path);

/// The components of a path that leads straight down; nullopt when one of them is "." or "..".
std::optional<std::vector<std::string_view>> plain_components_of(std::string_view path);

std::string join_path(std::span<const std::string_view> components);
/// Either may be empty: "a" and "b/c" are "a/b/c", "" and "b" are "b".
std::string join_path(std::string_view directory, std::string_view name);

/// "a/b/c" lies in "a/b", "c" in "".
std::string_view parent_path(std::string_view path) noexcept;

}  // namespace mkvirtfs
