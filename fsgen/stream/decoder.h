// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fsgen/stream/byte_source.h"
#include "fsgen/stream/compressed.h"
#include "support/error.h"

namespace mkvirtfs {

/// A place from which decoding can begin. Which places there are is each format's own affair:
/// docs/layout-stream-index.md.
struct Point {
  std::uint64_t unpacked = 0;  ///< the first byte that comes out
  std::uint64_t packed = 0;    ///< the first whole byte that goes in
  std::uint8_t bits = 0;       ///< how many bits of the byte before it go in first
  std::uint8_t kind = 0;       ///< of the format's own
};

/// Makes the bytes of a stream from some place on. One thread at a time.
class Decoder {
 public:
  virtual ~Decoder() = default;

  /// The next bytes: 0 at the end of the stream, or of the stretch behind its point where a format
  /// must begin anew at the next one.
  /// An error comes after all bytes before it, and is final.
  Result<std::size_t> decode(std::span<std::byte> out);

  /// How far it has read the packed bytes; at the end of the stream where that was. What follows
  /// the last member, stream or frame and does not begin another one is not looked at.
  virtual std::uint64_t packed_position() const noexcept = 0;
  /// About what it takes.
  virtual std::uint64_t memory_bytes() const noexcept = 0;

 protected:
  /// decode(), by each format: adds to `done` as bytes come out.
  virtual Result<void> decode_more(std::span<std::byte> out, std::size_t& done) = 0;

 private:
  std::optional<Error> error_;
};

/// What a decoder reports about the stream while it goes through all of it.
class StreamObserver {
 public:
  /// Whether a point at `unpacked` that keeps state would be of use: asked often, and cheap.
  virtual bool wants_state_at(std::uint64_t unpacked) = 0;
  /// A point; the beginning of the stream need not be reported. Without state those that are too
  /// near to the last one are dropped.
  virtual Result<void> point(const Point& point, std::span<const std::byte> state) = 0;
  /// A checksum of what was unpacked since the last one, to be compared with a computed one:
  /// `size` is the number of these bytes modulo 2^32, `crc32` theirs (gzip's trailer).
  virtual void checksum(std::uint64_t unpacked_end, std::uint64_t packed_end, std::uint32_t size,
                        std::uint32_t crc32) = 0;

 protected:
  ~StreamObserver() = default;
};

/// Packed bytes, one after the other, in pieces; of a spool that is being written those that are
/// there when they are asked for.
class PackedInput {
 public:
  PackedInput(std::shared_ptr<ByteSource> source, std::uint64_t offset, std::size_t piece_bytes);

  /// What is there; when nothing is left, after the next piece was read. Empty at the end.
  Result<std::span<const std::byte>> peek();
  void consume(std::size_t count) noexcept { begin_ += count; }
  /// Gives back the last bytes that were consumed.
  void put_back(std::size_t count) noexcept;
  /// The next `count` bytes, consumed; nullopt when it ends before.
  Result<std::optional<std::vector<std::byte>>> take(std::size_t count);
  Result<std::optional<std::byte>> take_byte();
  /// The next bytes, not consumed: as many as fit into `out`, or fewer at the end; how many.
  Result<std::size_t> look(std::span<std::byte> out);
  /// Where the first byte stands that was not consumed.
  std::uint64_t position() const noexcept { return next_offset_ - (end_ - begin_); }

  const std::string& name() const noexcept { return name_; }
  std::uint64_t size_bytes() const noexcept { return source_->size_bytes(); }
  std::size_t piece_bytes() const noexcept { return piece_bytes_; }
  /// "rootfs.tar.gz, byte 1234 of the gzip stream: `what`"
  std::unexpected<Error> damaged(std::string_view what) const;

 private:
  const std::shared_ptr<ByteSource> source_;
  const std::string name_;
  const std::size_t piece_bytes_;
  const std::unique_ptr<std::byte[]> buffer_;
  std::uint64_t next_offset_;  // in the source, behind the buffer's bytes
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
};

class ZstdWorkspace;

/// The state of points inside of zstd's frames has the window in it: above this it gets too much.
/// It is what `zstd -19` has.
inline constexpr std::uint64_t kMostZstdWindowBytes = std::uint64_t{8} << 20;

/// What decoders of one stream are made of.
struct DecoderInput {
  std::shared_ptr<ByteSource> packed;
  Compression compression = Compression::none;
  std::uint64_t memory_limit_bytes = 0;
  LogSink* log = nullptr;
  /// zstd, when points have state: theirs is good in this workspace only.
  std::shared_ptr<ZstdWorkspace> zstd_workspace;
  unsigned threads = 0;  ///< as of StreamOptions
};

/// From the beginning on, telling `observer`, which outlives it.
Result<std::unique_ptr<Decoder>> make_forward_decoder(const DecoderInput& input,
                                                      StreamObserver& observer);
/// From a point on. Nothing of it is trusted but what a corrupt one can only cause errors by.
Result<std::unique_ptr<Decoder>> make_decoder(const DecoderInput& input, const Point& point,
                                              std::span<const std::byte> state);

// One a format, as the two above.

Result<std::unique_ptr<Decoder>> make_inflater(const DecoderInput& input, const Point& point,
                                               std::span<const std::byte> state,
                                               StreamObserver* observer);
/// Whether all of a stream is decoded, from its beginning to its end, or a stretch of it.
enum class DecodeOrder : std::uint8_t { whole_stream, stretch };
/// xz from its beginning or, when `point` is none, from a block: its kind is the number of the
/// check. lzma and lzip from their beginning.
Result<std::unique_ptr<Decoder>> make_lzma_decoder(const DecoderInput& input, const Point& point,
                                                   DecodeOrder order);
Result<std::unique_ptr<Decoder>> make_zstd_decoder(const DecoderInput& input, const Point& point,
                                                   std::span<const std::byte> state,
                                                   StreamObserver* observer);
Result<std::unique_ptr<Decoder>> make_bzip2_decoder(const DecoderInput& input, const Point& point,
                                                    StreamObserver* observer);
Result<std::unique_ptr<Decoder>> make_lz4_decoder(const DecoderInput& input);
Result<std::unique_ptr<Decoder>> make_lzw_decoder(const DecoderInput& input);

/// The blocks of an .xz, by its indexes; none when they cannot be read, or take too much memory.
struct XzBlocks {
  std::vector<Point> points;
  std::uint64_t unpacked_bytes = 0;
};
Result<XzBlocks> find_xz_blocks(const DecoderInput& input, std::uint64_t most_memory_bytes);

/// The frames of a zstd stream, as far as its headers have their sizes.
struct ZstdFrames {
  std::uint64_t largest_packed_bytes = 0;
  std::uint64_t largest_unpacked_bytes = 0;  ///< of those that say it
  std::uint64_t largest_window_bytes = 0;
};
Result<ZstdFrames> find_zstd_frames(ByteSource& packed);

/// For frames with windows of up to that size.
std::shared_ptr<ZstdWorkspace> make_zstd_workspace(std::uint64_t window_bytes);
/// How large the state of a point is: all of the workspace.
std::size_t state_bytes_of(const ZstdWorkspace& workspace) noexcept;
std::uint64_t window_bytes_of(const ZstdWorkspace& workspace) noexcept;

}  // namespace mkvirtfs
