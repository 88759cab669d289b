// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace mkvirtfs::cli {

/// The path of a program that $PATH leads to; nullopt: none.
std::optional<std::string> find_program(std::string_view name);

}  // namespace mkvirtfs::cli
