// SPDX-License-Identifier: BSD-3-Clause
#pragma once

namespace mkvirtfs::fat32 {

/// The capital of a UTF-16 unit; itself when it has none, or when it is half of a surrogate pair.
/// Readers of FAT compare long names by these.
char16_t upcase(char16_t unit) noexcept;

}  // namespace mkvirtfs::fat32
