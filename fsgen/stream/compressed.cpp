// SPDX-License-Identifier: BSD-3-Clause
// Formats are recognised by their first bytes. The other functions choose between the classes
// that do the work: the pass (indexing_reader), an index that is whole (indexed_source) or in the
// making (index_rebuild), a member of a zip (deflate_member).
#include "fsgen/stream/compressed.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <span>
#include <utility>

#include "fsgen/stream/concatenated_source.h"
#include "fsgen/stream/deflate_member.h"
#include "fsgen/stream/file_source.h"
#include "fsgen/stream/indexed_source.h"
#include "fsgen/stream/indexing_reader.h"
#include "fsgen/stream/stream_index.h"
#include "support/byte_order.h"

namespace mkvirtfs {
namespace {

struct Magic {
  std::string_view bytes;
  Compression compression;
};

using namespace std::string_view_literals;

// What .lzma begins with is no magic number: the properties that nearly everybody uses, and the low
// bytes of a dictionary size that is a power of two. Others: see is_lzma().
constexpr std::array kMagics = {
    Magic{"\x1f\x8b"sv, Compression::gzip},
    Magic{"\xfd"
          "7zXZ\0"sv,
          Compression::xz},
    Magic{"\x28\xb5\x2f\xfd"sv, Compression::zstd},
    Magic{"BZh"sv, Compression::bzip2},
    Magic{"\x04\x22\x4d\x18"sv, Compression::lz4},
    Magic{"\x02\x21\x4c\x18"sv, Compression::lz4},  // its legacy format, which Linux has
    Magic{"LZIP\x01"sv, Compression::lzip},
    Magic{"\x1f\x9d"sv, Compression::compress},
    Magic{"\x5d\x00\x00"sv, Compression::lzma},
};

/// The header of an .lzma (the file "lzma-specification.txt" of its SDK) as xz takes it for one:
/// possible properties, a dictionary of 2^n or 2^n + 2^(n-1) bytes, a size that is unknown or below
/// 256 GiB; and behind it the byte that every range coder begins with.
bool is_lzma(std::span<const std::byte> bytes) {
  constexpr std::size_t kHeaderBytes = 13;
  constexpr unsigned kMostProperties = 9 * 5 * 5;  // lc, lp and pb
  constexpr unsigned kMostLiteralBits = 4;         // lc + lp
  if (bytes.size() <= kHeaderBytes || bytes[kHeaderBytes] != std::byte{0}) return false;
  const auto properties = std::to_integer<unsigned>(bytes[0]);
  if (properties >= kMostProperties) return false;
  if (properties % 9 + properties / 9 % 5 > kMostLiteralBits) return false;
  const auto dictionary = load_le<std::uint32_t>(bytes, 1);
  // Without its highest bit nothing is left, or the bit below it.
  const std::uint32_t rest = dictionary ^ std::bit_floor(dictionary);
  const bool is_round = dictionary == UINT32_MAX || rest == 0 || rest * 2 == dictionary - rest;
  const auto size = load_le<std::uint64_t>(bytes, 5);
  return dictionary != 0 && is_round && (size == UINT64_MAX || size < std::uint64_t{1} << 38);
}

DecoderInput decoder_input(std::shared_ptr<ByteSource> packed, Compression compression,
                           const StreamOptions& options) {
  return {.packed = std::move(packed),
          .compression = compression,
          .memory_limit_bytes = options.decoder_memory_bytes,
          .log = options.log,
          .zstd_workspace = nullptr,
          .threads = options.threads};
}

}  // namespace

std::string_view to_string(Compression compression) noexcept {
  constexpr std::array<std::string_view, 10> kNames = {
      "none", "gzip", "xz", "zstd", "bzip2", "lz4", "lzma", "lzip", "compress", "deflate"};
  return kNames[static_cast<std::size_t>(compression)];
}

Result<Compression> detect_compression(ByteSource& source) {
  std::array<char, 14> start{};
  const auto size =
      static_cast<std::size_t>(std::min<std::uint64_t>(source.size_bytes(), start.size()));
  const Result<void> read = source.read(0, std::as_writable_bytes(std::span(start)).first(size));
  if (!read) return propagate(read);
  const std::string_view bytes(start.data(), size);
  for (const Magic& magic : kMagics) {
    if (bytes.starts_with(magic.bytes)) return magic.compression;
  }
  // A zstd file may begin with frames to be skipped (pzstd, the seekable format).
  if (bytes.size() >= 4 && (bytes[0] & '\xf0') == '\x50' && bytes.substr(1, 3) == "\x2a\x4d\x18") {
    return Compression::zstd;
  }
  if (is_lzma(std::as_bytes(std::span(bytes)))) return Compression::lzma;
  return Compression::none;
}

Result<std::unique_ptr<IndexingReader>> open_compressed(std::shared_ptr<ByteSource> packed,
                                                        Compression compression,
                                                        const StreamOptions& options) {
  return begin_pass(decoder_input(std::move(packed), compression, options), options, std::nullopt);
}

Result<std::vector<std::byte>> save_index(const ByteSource& indexed) {
  const auto* source = dynamic_cast<const IndexedSource*>(&indexed);
  if (source == nullptr) {
    return fail(Errc::unsupported, fmt::format("{} has no index to be kept", indexed.name()));
  }
  return to_bytes(source->index());
}

Result<std::shared_ptr<ByteSource>> open_indexed(std::shared_ptr<ByteSource> packed,
                                                 std::span<const std::byte> index,
                                                 const StreamOptions& options) {
  Result<StreamIndex> parsed = parse_index(index, packed->size_bytes(), packed->name());
  if (!parsed) return propagate(parsed);
  const DecoderInput input = decoder_input(std::move(packed), parsed->compression, options);
  if (parsed->passing) return make_rebuilt_source(input, std::move(*parsed), options);
  return make_indexed_source(input, std::move(*parsed), options);
}

Result<std::shared_ptr<ByteSource>> make_deflate_member(std::shared_ptr<ByteSource> archive,
                                                        Range packed, std::uint64_t size_bytes,
                                                        std::uint32_t crc32, std::string name,
                                                        const StreamOptions& options) {
  auto window = make_window(std::move(archive), packed, std::move(name));
  if (!window) return propagate(window);
  const DecoderInput input = decoder_input(std::move(*window), Compression::deflate, options);
  if (size_bytes > ChunkCache::kChunkBytes) {
    return std::make_shared<DeflateMember>(input, size_bytes, crc32, options);
  }
  // The checksum of its only chunk is known: there is nothing else to an index.
  StreamIndex index;
  index.compression = Compression::deflate;
  index.packed_bytes = packed.length;
  index.unpacked_bytes = size_bytes;
  index.entries.emplace_back();
  if (size_bytes > 0) index.chunk_crc32.push_back(crc32);
  return make_indexed_source(input, std::move(index), options);
}

std::optional<StreamFacts> stream_facts(const ByteSource& source) {
  if (const auto* indexed = dynamic_cast<const IndexedSource*>(&source)) return indexed->facts();
  std::optional<StreamFacts> all;
  for (const std::shared_ptr<ByteSource>& part : parts_of(source)) {
    const std::optional<StreamFacts> facts = stream_facts(*part);
    if (!facts) continue;
    if (!all) all = StreamFacts{facts->compression, 0, 0, 0, 0};
    all->points += facts->points;
    all->span_bytes = std::max(all->span_bytes, facts->span_bytes);
    all->index_bytes += facts->index_bytes;
    all->spool_bytes += facts->spool_bytes;
  }
  return all;
}

}  // namespace mkvirtfs
