// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "fsgen/archive/read_members.h"
#include "fsgen/stream/byte_source.h"
#include "fsgen/stream/forward_reader.h"
#include "support/error.h"

namespace mkvirtfs::archive {

/// What follows the end of an archive or of a compressed stream, which may be padded with zeroes:
/// the offset of the first byte from `from` on that is not zero; nullopt when there is none.
Result<std::optional<std::uint64_t>> find_rest(ByteSource& source, std::uint64_t from);

/// The same of a stream that stands at `from` but for `unread`, which come first. Where it finds
/// something in the stream, that is what comes next.
Result<std::optional<std::uint64_t>> find_rest(ForwardReader& stream, std::uint64_t from,
                                               std::span<const std::byte> unread);

/// Where a zip archive ends, or one that says so in its header (7z, cab); nullopt for others.
Result<std::optional<std::uint64_t>> end_of_archive(ByteSource& source, ArchiveKind kind);

}  // namespace mkvirtfs::archive
