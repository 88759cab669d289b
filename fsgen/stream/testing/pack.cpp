// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/stream/testing/pack.h"

#include <bzlib.h>
#include <lz4.h>
#include <lz4frame.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <span>
#include <stdexcept>
#include <unordered_map>

#include "support/byte_order.h"

namespace mkvirtfs::testing {
namespace {

void require(bool done) {
  if (!done) throw std::runtime_error("a packer failed");
}

std::string deflated(std::string_view bytes, int window_bits, const DeflateKind& kind = {}) {
  z_stream zlib{};
  require(deflateInit2(&zlib, kind.level, Z_DEFLATED, window_bits, kind.memory_level,
                       kind.strategy) == Z_OK);
  const std::size_t piece =
      kind.flush_every_bytes != 0 ? kind.flush_every_bytes : std::max<std::size_t>(bytes.size(), 1);
  // An empty block of each flush is five bytes.
  std::string out(2 * deflateBound(&zlib, bytes.size()) + 64 + bytes.size() / piece * 16, '\0');
  zlib.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  zlib.next_out = reinterpret_cast<Bytef*>(out.data());
  zlib.avail_out = static_cast<uInt>(out.size());
  for (std::size_t at = 0; at + piece < bytes.size(); at += piece) {
    zlib.avail_in = static_cast<uInt>(piece);
    require(deflate(&zlib, kind.flush) == Z_OK);
  }
  zlib.avail_in = static_cast<uInt>(bytes.size() - zlib.total_in);
  require(deflate(&zlib, Z_FINISH) == Z_STREAM_END);
  out.resize(zlib.total_out);
  deflateEnd(&zlib);
  return out;
}

std::string run_lzma(lzma_stream& lzma, std::string_view bytes) {
  std::string out(lzma_stream_buffer_bound(bytes.size()) * 2 + 65536, '\0');
  lzma.next_in = reinterpret_cast<const std::uint8_t*>(bytes.data());
  lzma.avail_in = bytes.size();
  lzma.next_out = reinterpret_cast<std::uint8_t*>(out.data());
  lzma.avail_out = out.size();
  lzma_ret status = LZMA_OK;
  while (status == LZMA_OK) status = lzma_code(&lzma, LZMA_FINISH);
  require(status == LZMA_STREAM_END);
  out.resize(lzma.total_out);
  lzma_end(&lzma);
  return out;
}

constexpr std::uint32_t kPreset = 1;

}  // namespace

std::string pack_gzip(std::string_view bytes) { return deflated(bytes, 31); }
std::string pack_gzip_as(std::string_view bytes, const DeflateKind& kind) {
  return deflated(bytes, 31, kind);
}
std::string pack_deflate(std::string_view bytes) { return deflated(bytes, -15); }

std::string pack_xz(std::string_view bytes, std::uint64_t block_bytes) {
  lzma_stream lzma = LZMA_STREAM_INIT;
  if (block_bytes == 0) {
    require(lzma_easy_encoder(&lzma, kPreset, LZMA_CHECK_CRC64) == LZMA_OK);
  } else {
    lzma_mt options{};
    options.threads = 2;
    options.block_size = block_bytes;
    options.preset = kPreset;
    options.check = LZMA_CHECK_CRC32;
    require(lzma_stream_encoder_mt(&lzma, &options) == LZMA_OK);
  }
  return run_lzma(lzma, bytes);
}

std::string pack_zstd(std::string_view bytes, std::size_t frame_bytes) {
  std::string all;
  ZSTD_CCtx* const zstd = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(zstd, ZSTD_c_checksumFlag, 1);
  do {
    const auto part = bytes.substr(0, frame_bytes == 0 ? bytes.size() : frame_bytes);
    std::string out(ZSTD_compressBound(part.size()), '\0');
    const std::size_t size = ZSTD_compress2(zstd, out.data(), out.size(), part.data(), part.size());
    require(ZSTD_isError(size) == 0);
    all.append(out, 0, size);
    bytes.remove_prefix(part.size());
  } while (!bytes.empty());
  ZSTD_freeCCtx(zstd);
  return all;
}

std::string pack_zstd_stream(std::string_view bytes, int level, int window_log) {
  ZSTD_CCtx* const zstd = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(zstd, ZSTD_c_compressionLevel, level);
  ZSTD_CCtx_setParameter(zstd, ZSTD_c_windowLog, window_log);
  ZSTD_CCtx_setParameter(zstd, ZSTD_c_checksumFlag, 1);
  std::string out(ZSTD_compressBound(bytes.size()) + 1000, '\0');
  ZSTD_outBuffer to{out.data(), out.size(), 0};
  // Begun with nothing at hand, so that the length is not known.
  ZSTD_inBuffer nothing{nullptr, 0, 0};
  require(ZSTD_isError(ZSTD_compressStream2(zstd, &to, &nothing, ZSTD_e_continue)) == 0);
  ZSTD_inBuffer from{bytes.data(), bytes.size(), 0};
  require(ZSTD_compressStream2(zstd, &to, &from, ZSTD_e_end) == 0);
  ZSTD_freeCCtx(zstd);
  out.resize(to.pos);
  return out;
}

std::string pack_bzip2(std::string_view bytes, int level) {
  auto size = static_cast<unsigned>(bytes.size() + bytes.size() / 50 + 1000);
  std::string out(size, '\0');
  require(BZ2_bzBuffToBuffCompress(out.data(), &size, const_cast<char*>(bytes.data()),
                                   static_cast<unsigned>(bytes.size()), level, 0, 0) == BZ_OK);
  out.resize(size);
  return out;
}

std::string pack_lz4(std::string_view bytes) {
  LZ4F_preferences_t preferences{};
  preferences.frameInfo.contentChecksumFlag = LZ4F_contentChecksumEnabled;
  std::string out(LZ4F_compressFrameBound(bytes.size(), &preferences), '\0');
  const std::size_t size =
      LZ4F_compressFrame(out.data(), out.size(), bytes.data(), bytes.size(), &preferences);
  require(LZ4F_isError(size) == 0);
  out.resize(size);
  return out;
}

std::string pack_lz4_legacy(std::string_view bytes, std::size_t block_bytes) {
  std::string out("\x02\x21\x4c\x18", 4);
  for (std::size_t at = 0; at < bytes.size(); at += block_bytes) {
    const std::string_view block = bytes.substr(at, block_bytes);
    std::string packed(static_cast<std::size_t>(LZ4_compressBound(static_cast<int>(block.size()))),
                       '\0');
    const int size =
        LZ4_compress_default(block.data(), packed.data(), static_cast<int>(block.size()),
                             static_cast<int>(packed.size()));
    require(size > 0);
    std::string word(4, '\0');
    store_le<std::uint32_t>(std::as_writable_bytes(std::span(word)), 0,
                            static_cast<std::uint32_t>(size));
    out += word + packed.substr(0, static_cast<std::size_t>(size));
  }
  return out;
}

std::string pack_lzma(std::string_view bytes, const LzmaKind& kind) {
  lzma_stream lzma = LZMA_STREAM_INIT;
  lzma_options_lzma options{};
  require(lzma_lzma_preset(&options, kPreset) == 0);
  options.lc = kind.lc;
  options.lp = kind.lp;
  options.pb = kind.pb;
  options.dict_size = kind.dictionary_bytes;
  require(lzma_alone_encoder(&lzma, &options) == LZMA_OK);
  return run_lzma(lzma, bytes);
}

std::string pack_lzip(std::string_view bytes) {
  // The same stream as .lzma's, in other wrapping paper.
  constexpr std::size_t kLzmaHeaderBytes = 13;
  const std::string body = pack_lzma(bytes).substr(kLzmaHeaderBytes);
  std::string out = "LZIP\x01\x14";  // a dictionary of 1 MiB, as of the preset
  out += body;
  std::string trailer(20, '\0');
  const auto fields = std::as_writable_bytes(std::span(trailer));
  store_le<std::uint32_t>(
      fields, 0, lzma_crc32(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size(), 0));
  store_le<std::uint64_t>(fields, 4, bytes.size());
  store_le<std::uint64_t>(fields, 12, out.size() + trailer.size());
  return out + trailer;
}

namespace {

/// Codes of one width after the other, in groups of eight.
class CodeOutput {
 public:
  explicit CodeOutput(std::string& out) : out_(out) {}
  unsigned width() const noexcept { return width_; }
  void put(unsigned code) {
    bits_ |= std::uint64_t{code} << bit_count_;
    for (bit_count_ += width_; bit_count_ >= 8; bit_count_ -= 8, bits_ >>= 8) byte();
    in_group_ = (in_group_ + 1) % 8;
  }
  /// Fills up the group.
  void set_width(unsigned width) {
    while (in_group_ != 0) put(0);
    width_ = width;
  }
  void end() {
    if (bit_count_ > 0) byte();
  }

 private:
  void byte() { out_.push_back(static_cast<char>(bits_ & 0xff)); }

  std::string& out_;
  unsigned width_ = 9;
  unsigned in_group_ = 0;
  std::uint64_t bits_ = 0;
  unsigned bit_count_ = 0;
};

}  // namespace

std::string pack_compress(std::string_view bytes, unsigned most_bits, bool clears) {
  std::string out = "\x1f\x9d";
  out.push_back(static_cast<char>(most_bits | (clears ? 0x80U : 0U)));
  if (bytes.empty()) return out;
  CodeOutput codes(out);
  const unsigned first_free = clears ? 257 : 256;
  unsigned next_free = first_free;
  std::unordered_map<unsigned, unsigned> table;  // by the code before, and the byte behind
  const auto put = [&](unsigned code) {
    codes.put(code);
    if (next_free > (1U << codes.width()) - 1 && codes.width() < most_bits) {
      codes.set_width(codes.width() + 1);
    }
  };
  unsigned code = static_cast<unsigned char>(bytes.front());
  for (const char c : bytes.substr(1)) {
    const unsigned byte = static_cast<unsigned char>(c);
    const auto known = table.find(code << 8 | byte);
    if (known != table.end()) {
      code = known->second;
      continue;
    }
    put(code);
    if (next_free < 1U << most_bits) {
      table.emplace(code << 8 | byte, next_free++);
    } else if (clears) {
      codes.put(256);
      codes.set_width(9);
      table.clear();
      next_free = first_free;
    }
    code = byte;
  }
  codes.put(code);
  codes.end();
  return out;
}

}  // namespace mkvirtfs::testing
