// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string_view>

namespace mkvirtfs {

/// Whether all of `text` matches `glob`, byte by byte.
///
/// '?' is one byte and '*' any number of bytes other than '/'; "**" is any number of any bytes, and
/// "**/" also stands for nothing, so that "**/x" matches "x". "[a-z]" and "[!a-z]" are one byte
/// (not) in a set, never '/'; a '[' without its ']' is a plain byte. A backslash takes away the
/// meaning of what follows it. Time is bounded by the product of the lengths, times the length of
/// the text for globs with "**".
bool glob_matches(std::string_view glob, std::string_view text) noexcept;

}  // namespace mkvirtfs
