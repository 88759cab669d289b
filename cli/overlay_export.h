// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "support/error.h"

namespace mkvirtfs::cli {

/// One stretch of a disk that an overlay holds.
struct ExportedRange {
  std::uint64_t offset = 0;
  std::uint64_t length_bytes = 0;
  bool is_zero = false;  ///< written as zeroes, or trimmed
};

/// Writes what an overlay holds, with the layers below it, into a sparse file as long as the disk,
/// each byte at its own offset; and calls `visit` for the ranges, in order, until it returns false.
/// The image below is not needed. An `output` that is there is replaced only with `force`; what is
/// cut off by a failure is removed.
Result<void> export_overlay(const std::string& overlay, const std::string& output, bool force,
                            const std::function<bool(const ExportedRange&)>& visit);

}  // namespace mkvirtfs::cli
