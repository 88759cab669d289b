// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "fsgen/stream/byte_source.h"
#include "support/error.h"

namespace mkvirtfs::archive {

/// The CRC-32 of each entry of a rar archive (versions 4 and 5) in its order, from the headers;
/// nullopt where they have none. libarchive passes over wrong stored bytes and a missing end.
///
/// Errors: Errc::unreadable for a header with a wrong checksum, for blocks that reach beyond the
/// end, and when the end block is missing (rar makes one since version 3); Errc::unsupported for
/// one volume of several.
Result<std::vector<std::optional<std::uint32_t>>> read_rar_checksums(ByteSource& archive,
                                                                     std::uint64_t most_entries);

}  // namespace mkvirtfs::archive
