// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "nbd/batch.h"
#include "nbd/protocol.h"

namespace mkvirtfs::nbd {

/// Why a request failed, as the client is told.
struct Failure {
  WireError error = WireError::ok;
  std::string text;                     ///< fit for the wire: see wire_text()
  std::optional<std::uint64_t> offset;  ///< where, for reads
};

/// Puts the whole answer to a failed request into the batch: an error chunk with text and offset
/// for clients that know chunks, the bare error for others.
void append_error(Batch& out, std::uint64_t cookie, const Failure& failure, bool structured);

}  // namespace mkvirtfs::nbd
