// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>

#include "fsgen/archive/read_members.h"
#include "fsgen/stream/byte_source.h"
#include "fsgen/stream/compressed.h"
#include "support/error.h"
#include "support/log.h"

namespace mkvirtfs::archive {

/// An archive as it lies in a file, or as it came from a pipe.
struct PackedArchive {
  std::shared_ptr<ByteSource> bytes;
  Compression compression = Compression::none;
  std::uint64_t stream_end = 0;  ///< compressed: where the stream ended that was read
};

/// What follows the archive that was read as `read`, whose members lie in `stream`.
///
/// An initramfs is cpio archives one behind the other, plain or compressed each for itself, with
/// zeroes between them: the kernel unpacks all of them, later ones over those before. So does this:
/// the members are added to `read`, and `stream` becomes the streams of all segments.
/// Anything else behind an end is reported to `log`.
///
/// Errors: those of reading an archive, of a segment.
Result<void> read_segments(const PackedArchive& whole, std::shared_ptr<ByteSource>& stream,
                           ReadMembers& read, const ReadOptions& options,
                           const StreamOptions& stream_options, LogSink& log);

}  // namespace mkvirtfs::archive
