// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "fsgen/stream/compressed.h"
#include "fsgen/stream/decoder.h"
#include "support/error.h"

namespace mkvirtfs {

/// What a pass is to find, when that is known before it: a member of a zip.
struct Expected {
  std::uint64_t unpacked_bytes = 0;
  std::uint32_t crc32 = 0;
};

/// Where points are farther apart than this, a spool is better.
std::uint64_t most_stretch_bytes(const StreamOptions& options) noexcept;
/// How far apart points with state are, at first.
std::uint64_t span_of_states(const DecoderInput& input, const StreamOptions& options) noexcept;

Result<std::unique_ptr<IndexingReader>> begin_pass(const DecoderInput& input,
                                                   const StreamOptions& options,
                                                   const std::optional<Expected>& expected);

}  // namespace mkvirtfs
