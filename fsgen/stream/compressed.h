// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "block/extent.h"
#include "block/host_files.h"
#include "fsgen/stream/byte_source.h"
#include "fsgen/stream/chunk_cache.h"
#include "fsgen/stream/forward_reader.h"
#include "fsgen/stream/spool.h"
#include "support/error.h"
#include "support/log.h"

// Bytes at any offset of a compressed file. One pass from the beginning to the end finds the places
// from which decoding can begin, its index; docs/layout-stream-index.md describes each format. A
// stream that cannot begin in the middle is put into a spool as it goes by.

namespace mkvirtfs {

/// How bytes are compressed. The numbers stand in kept indexes.
enum class Compression : std::uint8_t {
  none = 0,
  gzip = 1,
  xz = 2,
  zstd = 3,
  bzip2 = 4,
  lz4 = 5,       ///< its frame format
  lzma = 6,      ///< .lzma, "alone"
  lzip = 7,      ///< .lz
  compress = 8,  ///< .Z
  deflate = 9,   ///< RFC 1951 without anything around it: a member of a zip
};

/// "gzip"
std::string_view to_string(Compression compression) noexcept;

/// Which compression the bytes begin with, by their magic number; `none` when it is none of these.
Result<Compression> detect_compression(ByteSource& source);

/// What decoding may cost. All that is shared between streams is held by pointers.
struct StreamOptions {
  /// How far apart points are at first, in unpacked bytes, or a little less: what a random read has
  /// to decode. In zstd's frames they are 16 times as far apart, for their state is large.
  std::uint64_t span_bytes = std::uint64_t{2} << 20;
  /// For the index of one stream; when it gets larger every second point is given up.
  std::uint64_t index_memory_bytes = std::uint64_t{32} << 20;
  /// For the state of one decoder (the dictionaries of xz, the windows of zstd).
  std::uint64_t decoder_memory_bytes = std::uint64_t{256} << 20;

  /// Against bombs: the most that a stream may unpack to, and how many times its packed size; the
  /// second is asked only beyond `ratio_free_bytes`. 0: no limit.
  std::uint64_t most_unpacked_bytes = std::uint64_t{2} << 40;
  std::uint64_t most_ratio = 1000;
  std::uint64_t ratio_free_bytes = std::uint64_t{64} << 20;

  /// At most so many threads work at one stream, the reader's among them: with 1 nothing is decoded
  /// ahead. 0: as many as are of use.
  unsigned threads = 0;

  /// How changes of the packed file are seen.
  ChangeCheck change_check = ChangeCheck::ctime;
  /// Set from any thread: the wait for a source ends. None: it does not.
  const std::atomic<bool>* cancel = nullptr;

  std::shared_ptr<ChunkCache> cache;  ///< none: one of its own for each stream
  std::shared_ptr<SpoolSpace> spool;  ///< none: streams that need one are refused
  LogSink* log = &null_log();         ///< must outlive what is made with it
};

/// How a stream is read at any offset, for people.
struct StreamFacts {
  Compression compression = Compression::none;
  std::uint64_t points = 0;  ///< where decoding can begin
  /// The longest way between two of them, unpacked. 0: they are made again in the background, and
  /// `points` counts those so far.
  std::uint64_t span_bytes = 0;
  std::uint64_t index_bytes = 0;  ///< in memory
  std::uint64_t spool_bytes = 0;  ///< 0: it needs none
};

/// The pass from the beginning to the end. A thread of its own decodes a little ahead of the
/// reader. Errors name the source, what is wrong, and the offset in the packed bytes.
class IndexingReader : public ForwardReader {
 public:
  /// Reads what is left, and gives the bytes at any offset. The reader is used up.
  virtual Result<std::shared_ptr<ByteSource>> finish() = 0;
  /// After that: where in the packed bytes the stream ended. What lies behind is not looked at; the
  /// caller reports it.
  virtual std::uint64_t packed_end() const noexcept = 0;
};

/// Begins the pass. Errors: Errc::unsupported when the compression is not known here, or would need
/// a spool and there is none.
Result<std::unique_ptr<IndexingReader>> open_compressed(std::shared_ptr<ByteSource> packed,
                                                        Compression compression,
                                                        const StreamOptions& options);

/// The index of a source that finish() or open_indexed() gave, to be kept. Of what is spooled, and
/// of zstd with long frames, the points are good in this process only: then it is the checksums
/// alone. Errc::unsupported for sources that are not made here.
Result<std::vector<std::byte>> save_index(const ByteSource& indexed);

/// The source again, without a pass before it can be read. An index of checksums alone has the pass
/// go on in the background from then on; reads of what it did not come to wait for it.
///
/// Nothing in `index` is trusted: bytes that are no index, a damaged one, or one of another number
/// of packed bytes are Errc::unreadable, and the caller makes a new one; the same after
/// Errc::unsupported and Errc::no_space, when a spool cannot be made again. The caller must know
/// that the packed bytes are the same; reads of others are Errc::io, by checksums in the index.
Result<std::shared_ptr<ByteSource>> open_indexed(std::shared_ptr<ByteSource> packed,
                                                 std::span<const std::byte> index,
                                                 const StreamOptions& options);

/// A member of a zip: `packed` bytes of `archive` that unpack to `size_bytes` with the checksum
/// `crc32`. Costs nothing until the first read of a member larger than a chunk, which decodes it
/// all, for its index and to see that size and checksum hold; smaller ones are checked at every
/// decoding.
Result<std::shared_ptr<ByteSource>> make_deflate_member(std::shared_ptr<ByteSource> archive,
                                                        Range packed, std::uint64_t size_bytes,
                                                        std::uint32_t crc32, std::string name,
                                                        const StreamOptions& options);

/// nullopt for sources that are not made here; of a concatenation those of all parts together.
std::optional<StreamFacts> stream_facts(const ByteSource& source);

}  // namespace mkvirtfs
