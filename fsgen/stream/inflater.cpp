// SPDX-License-Identifier: BSD-3-Clause
// gzip (RFC 1952) and bare deflate (RFC 1951). Points stand between deflate blocks, with the 32 KiB
// that were unpacked last as their state, and at the beginnings of gzip's members, with none. zlib
// reports where blocks end, so it makes the points. Reads from a point are done by ISA-L, which
// does not, but is more than twice as fast.
#include <fmt/format.h>
#include <isa-l/igzip_lib.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <limits>
#include <new>
#include <optional>
#include <type_traits>
#include <utility>

#include "fsgen/stream/decoder.h"
#include "support/byte_order.h"

namespace mkvirtfs {
namespace {

constexpr std::size_t kWindowBytes = std::size_t{32} << 10;

// Point::kind: a member begins here, or this is inside of one.
constexpr std::uint8_t kMember = 0;
constexpr std::uint8_t kInside = 1;

// Of one call: the engines count in 32 bits.
constexpr std::size_t kMostOut = std::size_t{1} << 30;

constexpr std::byte kMagic0{0x1f};
constexpr std::byte kMagic1{0x8b};
constexpr std::byte kMethodDeflate{8};
constexpr unsigned kFlagHeaderCrc = 2;
constexpr unsigned kFlagExtra = 4;
constexpr unsigned kFlagName = 8;
constexpr unsigned kFlagComment = 16;
constexpr unsigned kFlagsReserved = 0xe0;

/// What became of a piece of deflate's bytes.
struct InflateStep {
  std::size_t used = 0;
  std::size_t made = 0;
  bool is_end = false;           ///< of the deflate stream
  const char* damage = nullptr;  ///< none: all is well
};

/// Goes through all, and can stop between blocks.
class BlockwiseInflate {
 public:
  static constexpr std::size_t kPieceBytes = std::size_t{256} << 10;
  static constexpr std::size_t kMemoryBytes = kWindowBytes + (std::size_t{16} << 10);

  BlockwiseInflate() {
    if (inflateInit2(&zlib_, -MAX_WBITS) != Z_OK) throw std::bad_alloc();
  }
  ~BlockwiseInflate() { inflateEnd(&zlib_); }
  BlockwiseInflate(const BlockwiseInflate&) = delete;
  BlockwiseInflate& operator=(const BlockwiseInflate&) = delete;

  void restart() { inflateReset(&zlib_); }
  /// Stops at the end of each block.
  InflateStep step(std::span<const std::byte> in, std::span<std::byte> out);
  /// Of the input that it did not use: none.
  static constexpr std::size_t held_bytes() { return 0; }

  bool is_between_blocks() const {
    constexpr int kAtBlockEnd = 128;
    constexpr int kInLastBlock = 64;
    return (zlib_.data_type & kAtBlockEnd) != 0 && (zlib_.data_type & kInLastBlock) == 0;
  }
  /// Of the last byte of the input, between blocks.
  std::uint8_t unused_bits() const { return static_cast<std::uint8_t>(zlib_.data_type & 7); }
  std::optional<std::span<const std::byte>> window(std::span<std::byte, kWindowBytes> out);

 private:
  z_stream zlib_{};
};

InflateStep BlockwiseInflate::step(std::span<const std::byte> in, std::span<std::byte> out) {
  zlib_.next_in = reinterpret_cast<z_const Bytef*>(const_cast<std::byte*>(in.data()));
  zlib_.avail_in = static_cast<uInt>(in.size());
  zlib_.next_out = reinterpret_cast<Bytef*>(out.data());
  zlib_.avail_out = static_cast<uInt>(out.size());
  const int status = inflate(&zlib_, Z_BLOCK);
  if (status == Z_MEM_ERROR) throw std::bad_alloc();
  InflateStep step{.used = in.size() - zlib_.avail_in, .made = out.size() - zlib_.avail_out};
  step.is_end = status == Z_STREAM_END;
  if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR) {
    step.damage = zlib_.msg != nullptr ? zlib_.msg : "this is no compressed data";
  }
  return step;
}

std::optional<std::span<const std::byte>> BlockwiseInflate::window(
    std::span<std::byte, kWindowBytes> out) {
  uInt size = 0;
  if (inflateGetDictionary(&zlib_, reinterpret_cast<Bytef*>(out.data()), &size) != Z_OK) {
    return std::nullopt;
  }
  return out.first(size);
}

/// Begins anywhere.
class FastInflate {
 public:
  static constexpr std::size_t kPieceBytes = std::size_t{32} << 10;
  static constexpr std::size_t kMemoryBytes = sizeof(inflate_state);

  FastInflate() { restart(); }

  void restart() {
    isal_inflate_init(&isal_);
    isal_.crc_flag = ISAL_DEFLATE;
  }
  /// Between two blocks: `bits` of the byte before go in first, `window` came out last. Right after
  /// restart(). False when the window is invalid.
  bool begin_inside(unsigned bits, unsigned value, std::span<const std::byte> window);
  InflateStep step(std::span<const std::byte> in, std::span<std::byte> out);
  /// At the end: so many bytes of the input were taken, but not needed.
  std::size_t held_bytes() const { return static_cast<std::size_t>(isal_.read_in_length) / 8; }

 private:
  inflate_state isal_;
};

bool FastInflate::begin_inside(unsigned bits, unsigned value, std::span<const std::byte> window) {
  isal_.read_in = value;
  isal_.read_in_length = static_cast<std::int32_t>(bits);
  if (window.empty()) return true;
  auto* const bytes = reinterpret_cast<std::uint8_t*>(const_cast<std::byte*>(window.data()));
  return isal_inflate_set_dict(&isal_, bytes, static_cast<std::uint32_t>(window.size())) ==
         ISAL_DECOMP_OK;
}

InflateStep FastInflate::step(std::span<const std::byte> in, std::span<std::byte> out) {
  isal_.next_in = reinterpret_cast<std::uint8_t*>(const_cast<std::byte*>(in.data()));
  isal_.avail_in = static_cast<std::uint32_t>(in.size());
  isal_.next_out = reinterpret_cast<std::uint8_t*>(out.data());
  isal_.avail_out = static_cast<std::uint32_t>(out.size());
  const int status = isal_inflate(&isal_);
  InflateStep step{.used = in.size() - isal_.avail_in, .made = out.size() - isal_.avail_out};
  step.is_end = isal_.block_state == ISAL_BLOCK_FINISH;
  switch (status) {
    case ISAL_DECOMP_OK:
    case ISAL_END_INPUT:
    case ISAL_OUT_OVERFLOW:
      // It cannot happen, and would go on for ever.
      if (!step.is_end && !in.empty() && step.used + step.made == 0) step.damage = "no end of it";
      break;
    case ISAL_INVALID_BLOCK:
      step.damage = "invalid block";
      break;
    case ISAL_INVALID_SYMBOL:
      step.damage = "invalid code";
      break;
    case ISAL_INVALID_LOOKBACK:
      step.damage = "invalid distance too far back";
      break;
    default:
      step.damage = "this is no compressed data";
  }
  return step;
}

template <class Engine>
class Inflater final : public Decoder {
 public:
  Inflater(const DecoderInput& input, const Point& point, StreamObserver* observer)
      : input_(input.packed, point.packed - (point.bits != 0 ? 1 : 0), Engine::kPieceBytes),
        observer_(observer),
        is_gzip_(input.compression == Compression::gzip),
        unpacked_(point.unpacked) {}

  Result<void> begin(const Point& point, std::span<const std::byte> state);

  std::uint64_t packed_position() const noexcept override {
    return end_.value_or(input_.position());
  }
  std::uint64_t memory_bytes() const noexcept override {
    return Engine::kMemoryBytes + input_.piece_bytes();
  }

 protected:
  Result<void> decode_more(std::span<std::byte> out, std::size_t& done) override;

 private:
  enum class State : std::uint8_t { between_members, body, ended };

  /// False at the end of the stream.
  Result<bool> begin_member();
  Result<void> read_header_fields(unsigned flags);
  Result<void> skip_text();
  /// One call of the engine's.
  Result<void> inflate_some(std::span<std::byte> out, std::size_t& done);
  Result<void> note_point();
  Result<void> end_member();

  PackedInput input_;
  StreamObserver* const observer_;
  const bool is_gzip_;
  Engine engine_;
  State state_ = State::between_members;
  std::uint64_t unpacked_;
  std::uint64_t member_begin_ = 0;  // unpacked
  std::uint64_t members_ = 0;
  std::optional<std::uint64_t> end_;  // packed
};

template <class Engine>
Result<void> Inflater<Engine>::begin(const Point& point, std::span<const std::byte> state) {
  if (point.kind == kMember) {
    if (!is_gzip_) state_ = State::body;
    return {};
  }
  state_ = State::body;
  members_ = 1;
  unsigned value = 0;
  if (point.bits != 0) {
    const auto byte = input_.take_byte();
    if (!byte) return propagate(byte);
    if (!*byte) return input_.damaged("it ends there");
    value = std::to_integer<unsigned>(**byte) >> (8 - point.bits);
  }
  if constexpr (std::is_same_v<Engine, FastInflate>) {
    if (engine_.begin_inside(point.bits, value, state)) return {};
  }
  return input_.damaged("a broken index");
}

template <class Engine>
Result<void> Inflater<Engine>::decode_more(std::span<std::byte> out, std::size_t& done) {
  while (done < out.size() && state_ != State::ended) {
    if (state_ == State::between_members) {
      const Result<bool> more = begin_member();
      if (!more) return propagate(more);
      state_ = *more ? State::body : State::ended;
      continue;
    }
    const Result<void> inflated = inflate_some(out.subspan(done), done);
    if (!inflated) return inflated;
  }
  return {};
}

template <class Engine>
Result<bool> Inflater<Engine>::begin_member() {
  const std::uint64_t member_at = input_.position();
  const auto there = input_.peek();
  if (!there) return propagate(there);
  if (there->empty()) {
    if (members_ == 0) return input_.damaged("it is empty");
    return false;
  }
  std::array<std::byte, 4> start{};
  std::size_t got = 0;
  // As gzip does: what follows the last member and is no member is left alone.
  for (; got < start.size(); ++got) {
    const auto byte = input_.take_byte();
    if (!byte) return propagate(byte);
    if (!*byte) break;
    start[got] = **byte;
    if (members_ > 0 && ((got == 0 && start[0] != kMagic0) || (got == 1 && start[1] != kMagic1))) {
      end_ = member_at;
      return false;
    }
  }
  if (got < start.size()) return input_.damaged("it ends in the header of a gzip member");
  if (start[0] != kMagic0 || start[1] != kMagic1) return input_.damaged("no gzip header");
  const auto flags = std::to_integer<unsigned>(start[3]);
  if (start[2] != kMethodDeflate || (flags & kFlagsReserved) != 0) {
    return input_.damaged("a gzip header of an unknown kind");
  }
  const Result<void> fields = read_header_fields(flags);
  if (!fields) return propagate(fields);
  if (observer_ != nullptr) {
    const Result<void> noted = observer_->point(
        {.unpacked = unpacked_, .packed = member_at, .bits = 0, .kind = kMember}, {});
    if (!noted) return propagate(noted);
  }
  ++members_;
  member_begin_ = unpacked_;
  engine_.restart();
  return true;
}

template <class Engine>
Result<void> Inflater<Engine>::read_header_fields(unsigned flags) {
  constexpr std::string_view kEnds = "it ends in the header of a gzip member";
  const auto take = [&](std::size_t count) -> Result<std::vector<std::byte>> {
    auto bytes = input_.take(count);
    if (!bytes) return propagate(bytes);
    if (!*bytes) return input_.damaged(kEnds);
    return std::move(**bytes);
  };
  // Time, extra flags, system.
  if (const auto bytes = take(6); !bytes) return propagate(bytes);
  if ((flags & kFlagExtra) != 0) {
    const auto length = take(2);
    if (!length) return propagate(length);
    const auto extra = take(load_le<std::uint16_t>(*length));
    if (!extra) return propagate(extra);
  }
  for (const unsigned text : {kFlagName, kFlagComment}) {
    if ((flags & text) == 0) continue;
    if (const Result<void> skipped = skip_text(); !skipped) return skipped;
  }
  if ((flags & kFlagHeaderCrc) != 0) {
    if (const auto bytes = take(2); !bytes) return propagate(bytes);
  }
  return {};
}

template <class Engine>
Result<void> Inflater<Engine>::skip_text() {
  while (true) {
    const auto byte = input_.take_byte();
    if (!byte) return propagate(byte);
    if (!*byte) return input_.damaged("it ends in the header of a gzip member");
    if (**byte == std::byte{0}) return {};
  }
}

template <class Engine>
Result<void> Inflater<Engine>::inflate_some(std::span<std::byte> out, std::size_t& done) {
  const auto there = input_.peek();
  if (!there) return propagate(there);
  // At the end of the input, too: the engine may hold bits that unpack to more without another
  // byte.
  const InflateStep step = engine_.step(*there, out.first(std::min(out.size(), kMostOut)));
  input_.consume(step.used);
  unpacked_ += step.made;
  done += step.made;
  if (step.damage != nullptr) return input_.damaged(step.damage);
  if (step.is_end) {
    input_.put_back(engine_.held_bytes());
    return end_member();
  }
  if (step.used == 0 && step.made == 0 && there->empty()) {
    return input_.damaged("it ends in the middle of compressed data");
  }
  if constexpr (std::is_same_v<Engine, BlockwiseInflate>) {
    if (engine_.is_between_blocks() && observer_->wants_state_at(unpacked_)) return note_point();
  }
  return {};
}

template <class Engine>
Result<void> Inflater<Engine>::note_point() {
  std::array<std::byte, kWindowBytes> bytes;
  const auto window = engine_.window(bytes);
  if (!window) return {};
  const Point point{.unpacked = unpacked_,
                    .packed = input_.position(),
                    .bits = engine_.unused_bits(),
                    .kind = kInside};
  return observer_->point(point, *window);
}

template <class Engine>
Result<void> Inflater<Engine>::end_member() {
  if (!is_gzip_) {
    state_ = State::ended;
    return {};
  }
  state_ = State::between_members;
  const auto trailer = input_.take(8);
  if (!trailer) return propagate(trailer);
  if (!*trailer) return input_.damaged("it ends in the trailer of a gzip member");
  if (observer_ != nullptr) {
    observer_->checksum(unpacked_, input_.position(), load_le<std::uint32_t>(**trailer, 4),
                        load_le<std::uint32_t>(**trailer, 0));
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<Decoder>> make_inflater(const DecoderInput& input, const Point& point,
                                               std::span<const std::byte> state,
                                               StreamObserver* observer) {
  if (point.bits > 7 || (point.bits != 0 && point.packed == 0) || state.size() > kWindowBytes) {
    return fail(Errc::io, fmt::format("{}: a broken index", input.packed->name()));
  }
  if (observer != nullptr) {
    assert(point.kind == kMember);
    auto inflater = std::make_unique<Inflater<BlockwiseInflate>>(input, point, observer);
    if (Result<void> begun = inflater->begin(point, state); !begun) {
      return propagate(begun);
    }
    return inflater;
  }
  auto inflater = std::make_unique<Inflater<FastInflate>>(input, point, observer);
  if (Result<void> begun = inflater->begin(point, state); !begun) {
    return propagate(begun);
  }
  return inflater;
}

}  // namespace mkvirtfs
