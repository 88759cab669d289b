// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "fsgen/archive/index_cache.h"
#include "fsgen/archive/layer_tree.h"
#include "fsgen/archive/read_members.h"
#include "fsgen/stream/byte_source.h"
#include "fsgen/stream/compressed.h"
#include "fsgen/stream/digest.h"
#include "fsgen/tree/layer.h"
#include "support/error.h"
#include "support/log.h"

// From the bytes of an archive to a Layer, in two steps with a log of its members between them:
// the first finds what the archive holds, the second applies the options.

namespace mkvirtfs::archive {

/// Opens what the command line names for read_archive(): a regular file as it lies there, its
/// identity asked at every read; anything that can only be read once (a pipe, a terminal; "-" is
/// standard input) is put into a spool first: its other end
/// may take any time, so the log says what is waited for, and `options.cancel` ends the wait. `log`
/// must outlive the source.
Result<std::shared_ptr<ByteSource>> open_archive_file(const std::string& path,
                                                      const StreamOptions& options, LogSink& log);

/// An archive that was read: its members, and their bytes at any offset.
///
/// Its members may be changed before make_layer() sees them, as for the layers of a container
/// image.
struct Archive {
  std::string name;    ///< for messages
  std::string format;  ///< for people: "POSIX pax interchange format"
  MemberLog members;
  std::shared_ptr<ByteSource> stream;  ///< what the archive is when it is not compressed
  std::shared_ptr<ByteSource> spool;   ///< of the members that had to be spooled, or none
  Compression compression = Compression::none;
  std::string manifest_directory;  ///< of an mtree manifest: where its contents are
  bool from_kept_index = false;    ///< nothing had to be unpacked
  /// Of `stream`, if it was asked for and the archive is compressed.
  std::optional<Digest> unpacked_digest;
};

/// Reads an archive, compressed or not. The pass that finds the members makes the index of a
/// compressed stream, too. `stream_options.spool` is for members as well as for streams; without
/// one, what needs it is refused. With a `cache` the index of a compressed one is kept there, and
/// found there the next time.
///
/// With `digest_of_unpacked` all that a compressed one unpacks to is hashed in the same pass. A
/// kept index without that digest is made anew.
///
/// Errors: as of read_members(), and of fsgen/stream/compressed.h.
Result<Archive> read_archive(std::shared_ptr<ByteSource> packed, const ReadOptions& options,
                             const StreamOptions& stream_options, const IndexCache* cache,
                             LogSink& log, std::optional<DigestAlgorithm> digest_of_unpacked = {});

/// That the bytes of all members are there, and not more of either than the limits allow:
/// Errc::unreadable, Errc::does_not_fit. read_archive() has done that.
Result<void> check_places(const Archive& archive, const ReadLimits& limits);

struct ArchiveLayer {
  Layer layer;
  std::uint64_t excluded_count = 0;
};

/// The layer that an archive is, or would be without some of its members: see make_layer_tree() for
/// what is refused.
Result<ArchiveLayer> make_layer(const Archive& archive, const LayerOptions& options,
                                const StreamOptions& stream_options, LogSink& log);

}  // namespace mkvirtfs::archive
