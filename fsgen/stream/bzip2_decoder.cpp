// SPDX-License-Identifier: BSD-3-Clause
// bzip2, block by block. A block begins at any bit, with a number of 48 bits; it needs nothing of
// what was before it, so it is put into a stream of its own and given to libbz2. Points are the
// beginnings of blocks.
#include <bzlib.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <new>
#include <optional>
#include <string_view>
#include <utility>

#include "fsgen/stream/decoder.h"

namespace mkvirtfs {
namespace {

constexpr std::size_t kForwardPieceBytes = std::size_t{256} << 10;
constexpr std::size_t kPieceBytes = std::size_t{64} << 10;

// Point::kind: the header of a stream stands here, or a block.
constexpr std::uint8_t kStream = 0;
constexpr std::uint8_t kBlock = 1;

constexpr int kMagicBits = 48;
constexpr std::uint64_t kMagicMask = (std::uint64_t{1} << kMagicBits) - 1;
constexpr std::uint64_t kBlockMagic = 0x314159265359;
constexpr std::uint64_t kEndMagic = 0x177245385090;
// 900,000 bytes that do not compress have a little more than that.
constexpr std::size_t kMostBlockBytes = std::size_t{1} << 20;

/// Whether a byte may be the last but one that has bits of either number, at any of the eight
/// places at which that may stand: few are, and only behind these all 48 bits are looked at.
constexpr std::array<bool, 256> kMayEndMagic = [] {
  std::array<bool, 256> table{};
  for (const std::uint64_t magic : {kBlockMagic, kEndMagic}) {
    for (int shift = 1; shift <= 8; ++shift) table[magic >> shift & 0xff] = true;
  }
  return table;
}();

/// Bits, the high ones of each byte first.
class BitInput {
 public:
  BitInput(std::shared_ptr<ByteSource> source, std::uint64_t offset, std::size_t piece_bytes)
      : input_(std::move(source), offset, piece_bytes) {}

  /// The next `count` bits (at most 56); nullopt when it ends before: all that was left is gone.
  Result<std::optional<std::uint64_t>> take(int count) {
    while (held_ < count) {
      if (piece_.empty()) {
        input_.consume(piece_size_);
        piece_size_ = 0;
        const auto there = input_.peek();
        if (!there) return propagate(there);
        if (there->empty()) return std::nullopt;
        piece_ = *there;
        piece_size_ = there->size();
      }
      bits_ = bits_ << 8 | std::to_integer<std::uint64_t>(piece_.front());
      piece_ = piece_.subspan(1);
      held_ += 8;
    }
    held_ -= count;
    return bits_ >> held_ & ((std::uint64_t{1} << count) - 1);
  }
  /// Gives back bits that were just taken; no more than fit beside those that are held.
  void give_back(int count) noexcept { held_ += count; }
  void drop_rest_of_byte() noexcept { held_ -= held_ % 8; }

  /// In bits.
  std::uint64_t position() const noexcept {
    return (input_.position() + piece_size_ - piece_.size()) * 8 -
           static_cast<std::uint64_t>(held_);
  }
  const PackedInput& input() const noexcept { return input_; }
  std::unexpected<Error> damaged(std::string_view what) const {
    return fail(Errc::io,
                fmt::format("{} is damaged at byte {}: {}", input_.name(), position() / 8, what));
  }

 private:
  PackedInput input_;
  std::span<const std::byte> piece_;
  std::size_t piece_size_ = 0;  // of what was peeked, and is consumed as a whole
  std::uint64_t bits_ = 0;
  int held_ = 0;
};

/// A bzip2 stream of one block, made bit by bit.
class OneBlockStream {
 public:
  void begin() {
    bytes_.assign({std::byte{'B'}, std::byte{'Z'}, std::byte{'h'}, std::byte{'9'}});
    bits_ = 0;
    bit_count_ = 0;
  }
  void append(std::uint64_t value, int count) {
    for (int left = count; left > 0;) {
      const int part = std::min(left, 8 - bit_count_);
      bits_ = static_cast<unsigned>(bits_ << part | (value >> (left - part) & ((1U << part) - 1)));
      bit_count_ += part;
      left -= part;
      if (bit_count_ == 8) {
        bytes_.push_back(static_cast<std::byte>(bits_));
        bits_ = 0;
        bit_count_ = 0;
      }
    }
  }
  /// Takes back the last `count` bits.
  void take_back(int count) {
    const int partial = std::min(count, bit_count_);
    bits_ >>= partial;
    bit_count_ -= partial;
    count -= partial;
    while (count >= 8) {
      bytes_.pop_back();
      count -= 8;
    }
    if (count == 0) return;
    bits_ = std::to_integer<unsigned>(bytes_.back()) >> count;
    bit_count_ = 8 - count;
    bytes_.pop_back();
  }
  /// Ends the stream; what was there before can be had again with reopen().
  void end(std::uint32_t crc) {
    open_size_ = bytes_.size();
    open_bits_ = bits_;
    open_bit_count_ = bit_count_;
    append(kEndMagic, kMagicBits);
    append(crc, 32);
    append(0, (8 - bit_count_) % 8);
  }
  void reopen() {
    bytes_.resize(open_size_);
    bits_ = open_bits_;
    bit_count_ = open_bit_count_;
  }
  std::span<std::byte> bytes() noexcept { return bytes_; }
  std::size_t size() const noexcept { return bytes_.size(); }

 private:
  std::vector<std::byte> bytes_;
  unsigned bits_ = 0;  // the beginning of the next byte
  int bit_count_ = 0;
  std::size_t open_size_ = 0;
  unsigned open_bits_ = 0;
  int open_bit_count_ = 0;
};

class Bzip2Decoder final : public Decoder {
 public:
  Bzip2Decoder(const DecoderInput& input, const Point& point, StreamObserver* observer)
      : bits_(input.packed, point.packed - (point.bits != 0 ? 1 : 0),
              observer != nullptr ? kForwardPieceBytes : kPieceBytes),
        observer_(observer),
        unpacked_(point.unpacked) {}
  ~Bzip2Decoder() override { end_block(); }
  Bzip2Decoder(const Bzip2Decoder&) = delete;
  Bzip2Decoder& operator=(const Bzip2Decoder&) = delete;

  Result<void> begin(const Point& point);
  std::uint64_t packed_position() const noexcept override {
    return end_.value_or(bits_.position() / 8);
  }
  std::uint64_t memory_bytes() const noexcept override { return std::uint64_t{5} << 20; }

 protected:
  Result<void> decode_more(std::span<std::byte> out, std::size_t& done) override;

 private:
  enum class State : std::uint8_t { stream_header, before_block, block, ended };

  Result<void> read_stream_header();
  /// At the number that begins a block, or the end of a stream.
  Result<void> begin_block();
  Result<void> end_stream();
  /// Takes the block's bits as far as the number that follows it. False: there is none.
  Result<bool> collect_block();
  void begin_decoding();
  void end_block() noexcept;
  Result<std::size_t> decode_block(std::span<std::byte> out);

  BitInput bits_;
  StreamObserver* const observer_;
  std::uint64_t unpacked_;

  State state_ = State::stream_header;
  bool any_stream_ = false;
  std::uint64_t next_magic_ = 0;  // that was read already; 0: none
  OneBlockStream stream_;
  std::uint32_t block_crc_ = 0;
  std::uint32_t stream_crc_ = 0;
  bool knows_stream_crc_ = false;
  bz_stream bzip2_{};
  bool decoding_ = false;
  bool block_gave_bytes_ = false;
  std::optional<std::uint64_t> end_;  // packed
};

Result<void> Bzip2Decoder::begin(const Point& point) {
  if (point.kind == kStream) return {};
  state_ = State::before_block;
  any_stream_ = true;
  if (point.bits == 0) return {};
  const auto skipped = bits_.take(8 - point.bits);
  if (!skipped) return propagate(skipped);
  return {};
}

Result<void> Bzip2Decoder::decode_more(std::span<std::byte> out, std::size_t& done) {
  while (done < out.size() && state_ != State::ended) {
    Result<void> step;
    if (state_ == State::stream_header) {
      step = read_stream_header();
    } else if (state_ == State::before_block) {
      step = begin_block();
    } else {
      const Result<std::size_t> count = decode_block(out.subspan(done));
      if (!count) return propagate(count);
      done += *count;
      unpacked_ += *count;
    }
    if (!step) return propagate(step);
  }
  return {};
}

Result<void> Bzip2Decoder::read_stream_header() {
  const std::uint64_t at = bits_.position() / 8;
  const auto header = bits_.take(32);
  if (!header) return propagate(header);
  constexpr std::uint64_t kMagic = 0x425a6830;  // "BZh0"; the digit is 1 to 9
  if (*header && **header > kMagic && **header <= kMagic + 9) {
    any_stream_ = true;
    knows_stream_crc_ = true;
    stream_crc_ = 0;
    state_ = State::before_block;
    return {};
  }
  if (!any_stream_) return bits_.damaged("no bzip2 header");
  // As bzip2 does: what follows the last stream is left alone.
  end_ = at;
  state_ = State::ended;
  return {};
}

Result<void> Bzip2Decoder::begin_block() {
  const std::uint64_t at = bits_.position() - (next_magic_ != 0 ? kMagicBits : 0);
  std::uint64_t magic = std::exchange(next_magic_, 0);
  if (magic == 0) {
    const auto read = bits_.take(kMagicBits);
    if (!read) return propagate(read);
    if (!*read) return bits_.damaged("it ends before a block");
    magic = **read;
  }
  if (magic == kEndMagic) return end_stream();
  if (magic != kBlockMagic) return bits_.damaged("no block is there");
  if (observer_ != nullptr) {
    const std::uint64_t whole = (at + 7) / 8;
    const Result<void> noted = observer_->point({.unpacked = unpacked_,
                                                 .packed = whole,
                                                 .bits = static_cast<std::uint8_t>(whole * 8 - at),
                                                 .kind = kBlock},
                                                {});
    if (!noted) return noted;
  }
  const auto crc = bits_.take(32);
  if (!crc) return propagate(crc);
  if (!*crc) return bits_.damaged("it ends in a block");
  block_crc_ = static_cast<std::uint32_t>(**crc);
  stream_crc_ = std::rotl(stream_crc_, 1) ^ block_crc_;
  stream_.begin();
  stream_.append(kBlockMagic, kMagicBits);
  stream_.append(block_crc_, 32);
  const Result<bool> collected = collect_block();
  if (!collected) return propagate(collected);
  if (!*collected) return bits_.damaged("it ends in a block");
  begin_decoding();
  state_ = State::block;
  return {};
}

Result<void> Bzip2Decoder::end_stream() {
  const auto crc = bits_.take(32);
  if (!crc) return propagate(crc);
  if (!*crc) return bits_.damaged("it ends in the trailer of a stream");
  if (knows_stream_crc_ && stream_crc_ != **crc) {
    return bits_.damaged("the checksum of a stream is wrong");
  }
  bits_.drop_rest_of_byte();
  state_ = State::stream_header;
  return {};
}

Result<bool> Bzip2Decoder::collect_block() {
  std::uint64_t last = 0;  // 64 bits
  int known = 0;           // how many of them are from behind where this began
  while (stream_.size() < kMostBlockBytes) {
    const auto byte = bits_.take(8);
    if (!byte) return propagate(byte);
    if (!*byte) return false;
    stream_.append(**byte, 8);
    last = last << 8 | **byte;
    known = std::min(known + 8, 64);
    if (!kMayEndMagic[last >> 8 & 0xff] || known < kMagicBits + 8) continue;
    for (int behind = 0; behind < 8; ++behind) {
      const std::uint64_t found = last >> behind & kMagicMask;
      if (found != kBlockMagic && found != kEndMagic) continue;
      stream_.take_back(kMagicBits + behind);
      bits_.give_back(behind);
      next_magic_ = found;
      stream_.end(block_crc_);
      return true;
    }
  }
  return bits_.damaged("a block does not end");
}

void Bzip2Decoder::begin_decoding() {
  end_block();
  bzip2_ = {};
  if (BZ2_bzDecompressInit(&bzip2_, 0, 0) != BZ_OK) throw std::bad_alloc();
  decoding_ = true;
  block_gave_bytes_ = false;
  bzip2_.next_in = reinterpret_cast<char*>(stream_.bytes().data());
  bzip2_.avail_in = static_cast<unsigned>(stream_.bytes().size());
}

void Bzip2Decoder::end_block() noexcept {
  if (decoding_) BZ2_bzDecompressEnd(&bzip2_);
  decoding_ = false;
}

Result<std::size_t> Bzip2Decoder::decode_block(std::span<std::byte> out) {
  bzip2_.next_out = reinterpret_cast<char*>(out.data());
  bzip2_.avail_out = static_cast<unsigned>(std::min<std::size_t>(out.size(), 1U << 30));
  const unsigned room = bzip2_.avail_out;
  const int status = BZ2_bzDecompress(&bzip2_);
  const std::size_t count = room - bzip2_.avail_out;
  block_gave_bytes_ = block_gave_bytes_ || count > 0;
  if (status == BZ_STREAM_END) {
    end_block();
    state_ = State::before_block;
    return count;
  }
  if (status == BZ_MEM_ERROR) throw std::bad_alloc();
  if (status == BZ_OK && count > 0) return count;
  // The number that ended the block may have been some of its bits: one time in 2^48.
  if (!block_gave_bytes_ && next_magic_ != 0) {
    stream_.reopen();
    stream_.append(std::exchange(next_magic_, 0), kMagicBits);
    const Result<bool> collected = collect_block();
    if (collected && *collected) {
      begin_decoding();
      return 0;
    }
  }
  return bits_.damaged("the block before is damaged");
}

}  // namespace

Result<std::unique_ptr<Decoder>> make_bzip2_decoder(const DecoderInput& input, const Point& point,
                                                    StreamObserver* observer) {
  if (point.bits > 7 || (point.bits != 0 && point.packed == 0)) {
    return fail(Errc::io, fmt::format("{}: a broken index", input.packed->name()));
  }
  auto decoder = std::make_unique<Bzip2Decoder>(input, point, observer);
  const Result<void> begun = decoder->begin(point);
  if (!begun) return propagate(begun);
  return decoder;
}

}  // namespace mkvirtfs
