// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

// What the libraries themselves make of some bytes, for tests.

namespace mkvirtfs::testing {

std::string pack_gzip(std::string_view bytes);
/// zlib's own words for how deflate goes about it.
struct DeflateKind {
  int level = 6;
  int memory_level = 8;
  int strategy = 0;                   ///< Z_FIXED and its like
  std::size_t flush_every_bytes = 0;  ///< none: one flush at the end
  int flush = 0;                      ///< Z_SYNC_FLUSH and its like
};
std::string pack_gzip_as(std::string_view bytes, const DeflateKind& kind);
std::string pack_deflate(std::string_view bytes);
/// Blocks of that size; 0: one block.
std::string pack_xz(std::string_view bytes, std::uint64_t block_bytes);
/// Frames of that size; 0: one frame.
std::string pack_zstd(std::string_view bytes, std::size_t frame_bytes);
/// One frame that does not say how long it is, with a window of 2^`window_log` bytes.
std::string pack_zstd_stream(std::string_view bytes, int level, int window_log);
/// `level` is the block size in units of 100,000 bytes.
std::string pack_bzip2(std::string_view bytes, int level);
std::string pack_lz4(std::string_view bytes);
/// As `lz4 -l`, with blocks of that size: 8 MiB there.
std::string pack_lz4_legacy(std::string_view bytes, std::size_t block_bytes);
/// The literal bits `lc` and `lp`, the position bits `pb`: 3, 0 and 2 with nearly everybody.
struct LzmaKind {
  unsigned lc = 3;
  unsigned lp = 0;
  unsigned pb = 2;
  unsigned dictionary_bytes = 1U << 20;
};
std::string pack_lzma(std::string_view bytes, const LzmaKind& kind = {});
std::string pack_lzip(std::string_view bytes);
/// As compress(1), with codes of up to `most_bits`; when the table is full it is emptied, or stays.
std::string pack_compress(std::string_view bytes, unsigned most_bits, bool clears);

}  // namespace mkvirtfs::testing
