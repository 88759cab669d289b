// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "support/error.h"

// What is said to people when something fails.

namespace mkvirtfs {

/// Of one line in a log or on a terminal.
constexpr std::size_t kLongestMessage = 2048;

/// printable(), of a message whose paths may be of any length: the middle of what would be longer
/// than `most_bytes` is left out, and how much that was stands in its place. Our messages begin
/// with what was tried and end with why it failed, so both remain.
std::string printable_message(std::string_view raw, std::size_t most_bytes = kLongestMessage);

/// The exception that is being handled, as an error: to be called in a catch block, where a thread
/// or a library's callers must not see exceptions. `doing` says what failed: "scan vm/root". A lack
/// of memory is Errc::io with ENOMEM, and says so.
Error error_of_exception(std::string_view doing) noexcept;

}  // namespace mkvirtfs
