// SPDX-License-Identifier: BSD-3-Clause
// A header, the points, their states, a checksum for each chunk, and a digest of all that:
// docs/layout-stream-index.md.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "fsgen/stream/stream_index.h"
#include "support/arithmetic.h"
#include "support/byte_order.h"
#include "support/sha256.h"

namespace mkvirtfs {
namespace {

constexpr std::string_view kMagic = "MKVFSIDX";
constexpr std::uint32_t kVersion = 2;
constexpr std::size_t kHeaderBytes = 64;
// How its points come to be.
constexpr std::uint32_t kHere = 0;
constexpr std::uint32_t kByPass = 1;
constexpr std::size_t kEntryBytes = 24;
constexpr std::size_t kDigestBytes = 32;

std::size_t state_bytes(const StreamIndex::Entry& entry) noexcept {
  return entry.state ? entry.state->size() : 0;
}

/// Takes an index out of its bytes. Each step returns what is wrong with them, in words; nullptr
/// when they are good.
class IndexParser {
 public:
  IndexParser(std::span<const std::byte> bytes, std::uint64_t packed_bytes)
      : bytes_(bytes), packed_bytes_(packed_bytes) {}

  /// In this order. A digest proves no origin, so everything behind it is checked, too.
  const char* check_digest();
  const char* take_header();
  const char* take_sizes();
  /// What is wrong with a point is in the number that is returned; nullopt: nothing.
  std::optional<std::uint64_t> take_entries();
  const char* take_checksums();

  StreamIndex& index() noexcept { return index_; }

 private:
  const char* take_passing(std::uint32_t points, std::uint32_t compression);
  bool take_entry(std::size_t at);

  std::span<const std::byte> bytes_;  // at last without the digest
  const std::uint64_t packed_bytes_;
  StreamIndex index_;
  std::uint64_t count_ = 0;  // of points
  std::uint64_t crc_count_ = 0;
  std::uint64_t left_ = 0;  // for states
  std::size_t state_at_ = 0;
};

const char* IndexParser::check_digest() {
  if (bytes_.size() < kHeaderBytes + kDigestBytes) return "it is too short";
  if (!std::ranges::equal(bytes_.first(kMagic.size()), std::as_bytes(std::span(kMagic)))) {
    return "it is none";
  }
  if (load_le<std::uint32_t>(bytes_, 8) != kVersion) return "it is of another version";
  const auto digest = bytes_.last(kDigestBytes);
  bytes_ = bytes_.first(bytes_.size() - kDigestBytes);
  Sha256 sha;
  sha.update(bytes_);
  return std::ranges::equal(sha.finish(), digest) ? nullptr : "its checksum is wrong";
}

const char* IndexParser::take_header() {
  const auto compression = load_le<std::uint32_t>(bytes_, 12);
  index_.packed_bytes = load_le<std::uint64_t>(bytes_, 16);
  index_.unpacked_bytes = load_le<std::uint64_t>(bytes_, 24);
  count_ = load_le<std::uint64_t>(bytes_, 32);
  const auto points = load_le<std::uint32_t>(bytes_, 44);
  if (compression > static_cast<std::uint32_t>(Compression::deflate) ||
      load_le<std::uint32_t>(bytes_, 40) != ChunkCache::kChunkBytes || points > kByPass) {
    return "it is of another kind";
  }
  index_.compression = static_cast<Compression>(compression);
  if (const char* const why = take_passing(points, compression)) return why;
  return index_.packed_bytes == packed_bytes_ ? nullptr : "the file has another size now";
}

const char* IndexParser::take_passing(std::uint32_t points, std::uint32_t compression) {
  const StreamIndex::Passing passing{load_le<std::uint64_t>(bytes_, 48),
                                     load_le<std::uint64_t>(bytes_, 56)};
  // A pass makes a spool or states of zstd, not both and not neither.
  const bool makes_states = passing.window_bytes != 0;
  const bool makes_spool = passing.spool_bytes != 0;
  const bool is_wrong =
      points == kByPass ? makes_states == makes_spool || count_ != 1 : makes_states || makes_spool;
  if (is_wrong) return "how its points are made is wrong";
  if (makes_states && (passing.window_bytes > kMostZstdWindowBytes ||
                       compression != static_cast<std::uint32_t>(Compression::zstd))) {
    return "its window is wrong";
  }
  if (points == kByPass) index_.passing = passing;
  return nullptr;
}

const char* IndexParser::take_sizes() {
  crc_count_ = ceil_div<std::uint64_t>(index_.unpacked_bytes, ChunkCache::kChunkBytes);
  left_ = bytes_.size() - kHeaderBytes;
  if (count_ == 0 || count_ > left_ / kEntryBytes) return "its number of points is wrong";
  left_ -= count_ * kEntryBytes;
  if (crc_count_ > left_ / sizeof(std::uint32_t)) return "checksums are missing";
  left_ -= crc_count_ * sizeof(std::uint32_t);
  return nullptr;
}

std::optional<std::uint64_t> IndexParser::take_entries() {
  index_.entries.reserve(static_cast<std::size_t>(count_));
  std::size_t at = kHeaderBytes;
  state_at_ = kHeaderBytes + static_cast<std::size_t>(count_) * kEntryBytes;
  for (std::uint64_t i = 0; i < count_; ++i, at += kEntryBytes) {
    if (!take_entry(at)) return i;
  }
  return std::nullopt;
}

bool IndexParser::take_entry(std::size_t at) {
  Point point;
  point.unpacked = load_le<std::uint64_t>(bytes_, at);
  point.packed = load_le<std::uint64_t>(bytes_, at + 8);
  const auto state_bytes = load_le<std::uint32_t>(bytes_, at + 16);
  const auto bits = load_le<std::uint16_t>(bytes_, at + 20);
  const auto kind = load_le<std::uint16_t>(bytes_, at + 22);
  const bool follows = index_.entries.empty()
                           ? point.unpacked == 0
                           : point.unpacked > index_.entries.back().point.unpacked;
  if (!follows || point.unpacked > index_.unpacked_bytes || point.packed > packed_bytes_ ||
      bits > 7 || (bits != 0 && point.packed == 0) || kind > 0xff || state_bytes > left_ ||
      (state_bytes != 0 && index_.passing)) {
    return false;
  }
  point.bits = static_cast<std::uint8_t>(bits);
  point.kind = static_cast<std::uint8_t>(kind);
  const auto state = bytes_.subspan(state_at_, state_bytes);
  index_.entries.push_back({point, nullptr});
  if (!state.empty()) {
    index_.entries.back().state =
        std::make_shared<const std::vector<std::byte>>(state.begin(), state.end());
  }
  state_at_ += state_bytes;
  left_ -= state_bytes;
  return true;
}

const char* IndexParser::take_checksums() {
  if (left_ != 0) return "it is longer than its parts";
  index_.chunk_crc32.reserve(static_cast<std::size_t>(crc_count_));
  for (std::uint64_t i = 0; i < crc_count_; ++i, state_at_ += sizeof(std::uint32_t)) {
    index_.chunk_crc32.push_back(load_le<std::uint32_t>(bytes_, state_at_));
  }
  return nullptr;
}

}  // namespace

std::vector<std::byte> to_bytes(const StreamIndex& index) {
  // Of points that are made again only the first is kept, which is where the stream begins.
  const StreamIndex::Entry beginning;
  const auto entries = index.passing ? std::span(&beginning, 1) : std::span(index.entries);
  std::uint64_t states_bytes = 0;
  for (const StreamIndex::Entry& entry : entries) states_bytes += state_bytes(entry);
  std::vector<std::byte> bytes(kHeaderBytes + entries.size() * kEntryBytes);
  bytes.reserve(bytes.size() + static_cast<std::size_t>(states_bytes) +
                index.chunk_crc32.size() * sizeof(std::uint32_t) + kDigestBytes);
  std::ranges::copy(std::as_bytes(std::span(kMagic)), bytes.begin());
  store_le<std::uint32_t>(bytes, 8, kVersion);
  store_le<std::uint32_t>(bytes, 12, static_cast<std::uint32_t>(index.compression));
  store_le<std::uint64_t>(bytes, 16, index.packed_bytes);
  store_le<std::uint64_t>(bytes, 24, index.unpacked_bytes);
  store_le<std::uint64_t>(bytes, 32, entries.size());
  store_le<std::uint32_t>(bytes, 40, ChunkCache::kChunkBytes);
  store_le<std::uint32_t>(bytes, 44, index.passing ? kByPass : kHere);
  const StreamIndex::Passing passing = index.passing.value_or(StreamIndex::Passing{});
  store_le<std::uint64_t>(bytes, 48, passing.spool_bytes);
  store_le<std::uint64_t>(bytes, 56, passing.window_bytes);
  std::size_t at = kHeaderBytes;
  for (const StreamIndex::Entry& entry : entries) {
    store_le<std::uint64_t>(bytes, at, entry.point.unpacked);
    store_le<std::uint64_t>(bytes, at + 8, entry.point.packed);
    store_le<std::uint32_t>(bytes, at + 16, narrow<std::uint32_t>(state_bytes(entry)));
    store_le<std::uint16_t>(bytes, at + 20, entry.point.bits);
    store_le<std::uint16_t>(bytes, at + 22, entry.point.kind);
    at += kEntryBytes;
  }
  for (const StreamIndex::Entry& entry : entries) {
    if (entry.state) bytes.insert(bytes.end(), entry.state->begin(), entry.state->end());
  }
  for (const std::uint32_t crc : index.chunk_crc32) {
    std::array<std::byte, sizeof crc> word;
    store_le<std::uint32_t>(word, 0, crc);
    bytes.insert(bytes.end(), word.begin(), word.end());
  }
  Sha256 sha;
  sha.update(bytes);
  const auto digest = sha.finish();
  bytes.insert(bytes.end(), digest.begin(), digest.end());
  return bytes;
}

Result<StreamIndex> parse_index(std::span<const std::byte> bytes, std::uint64_t packed_bytes,
                                const std::string& name) {
  const auto refuse = [&](std::string_view why) {
    return fail(Errc::unreadable, fmt::format("the index of {} cannot be used: {}", name, why));
  };
  IndexParser parser(bytes, packed_bytes);
  const char* why = parser.check_digest();
  if (why == nullptr) why = parser.take_header();
  if (why == nullptr) why = parser.take_sizes();
  if (why != nullptr) return refuse(why);
  if (const auto wrong = parser.take_entries())
    return refuse(fmt::format("point {} is wrong", *wrong));
  if (const char* const rest = parser.take_checksums()) return refuse(rest);
  return std::move(parser.index());
}

}  // namespace mkvirtfs
