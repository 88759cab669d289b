// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace mkvirtfs::cli {

/// Of `words`, the one for which `typed` is a typing error, or the only one that it begins; "" when
/// none is near enough. Upper and lower case are the same here.
std::string nearest_word(std::string_view typed, const std::vector<std::string>& words);

/// " (did you mean WORD?)", or "" for no word.
std::string did_you_mean(std::string_view word);

/// "a, b or c".
std::string joined_with_or(const std::vector<std::string>& words);

}  // namespace mkvirtfs::cli
