// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "support/error.h"

namespace mkvirtfs::archive {

/// What becomes of a member whose name would lead out of the root (`--unsafe-names`).
enum class UnsafeNames : std::uint8_t {
  error,  ///< ".." refuses the archive; a leading '/' is the archive's root
  strip,  ///< what stands before and in the last ".." is taken off, as tar does
};

/// A member's name as a way down from the root: components that a directory entry can hold, none of
/// them ".", ".." or empty. They point into the raw name.
struct MemberPath {
  std::vector<std::string_view> components;  ///< none: the root itself
  bool was_absolute = false;
  bool was_stripped = false;

  /// Errc::unreadable for what can be no name below a root, in words that follow the name.
  Result<void> parse(std::string_view raw, UnsafeNames unsafe);
  std::string text() const;
};

}  // namespace mkvirtfs::archive
