// SPDX-License-Identifier: BSD-3-Clause
// gzip (RFC 1952) and bare deflate (RFC 1951), by zlib. Points stand between deflate blocks, with
// the 32 KiB that were unpacked last as their state, and at the beginnings of gzip's members, with
// none.
#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <limits>
#include <new>
#include <utility>

#include "fsgen/stream/decoder.h"
#include "support/byte_order.h"

namespace mkvirtfs {
namespace {

constexpr std::size_t kWindowBytes = std::size_t{32} << 10;
// Whoever goes through all reads in large pieces.
constexpr std::size_t kForwardPieceBytes = std::size_t{256} << 10;
constexpr std::size_t kPieceBytes = std::size_t{32} << 10;

// Point::kind: a member begins here, or this is inside of one.
constexpr std::uint8_t kMember = 0;
constexpr std::uint8_t kInside = 1;

constexpr std::byte kMagic0{0x1f};
constexpr std::byte kMagic1{0x8b};
constexpr std::byte kMethodDeflate{8};
constexpr unsigned kFlagHeaderCrc = 2;
constexpr unsigned kFlagExtra = 4;
constexpr unsigned kFlagName = 8;
constexpr unsigned kFlagComment = 16;
constexpr unsigned kFlagsReserved = 0xe0;

class Inflater final : public Decoder {
 public:
  Inflater(const DecoderInput& input, const Point& point, StreamObserver* observer)
      : input_(input.packed, point.packed - (point.bits != 0 ? 1 : 0),
               observer != nullptr ? kForwardPieceBytes : kPieceBytes),
        log_(input.log),
        observer_(observer),
        is_gzip_(input.compression == Compression::gzip),
        unpacked_(point.unpacked) {
    if (inflateInit2(&zlib_, -MAX_WBITS) != Z_OK) throw std::bad_alloc();
  }
  ~Inflater() override { inflateEnd(&zlib_); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  Result<void> begin(const Point& point, std::span<const std::byte> state);

  std::uint64_t packed_position() const noexcept override { return input_.position(); }
  std::uint64_t memory_bytes() const noexcept override {
    return kWindowBytes + (std::uint64_t{16} << 10) + input_.piece_bytes();
  }

 protected:
  Result<void> decode_more(std::span<std::byte> out, std::size_t& done) override;

 private:
  enum class State : std::uint8_t { between_members, body, ended };

  /// False at the end of the stream.
  Result<bool> begin_member();
  Result<void> read_header_fields(unsigned flags);
  Result<void> skip_text();
  /// Whether what stands behind the last member is nothing but zeroes is only for the log.
  Result<void> pass_over_garbage();
  /// One call of zlib's.
  Result<void> inflate_some(std::span<std::byte> out, std::size_t& done);
  Result<void> tell_point();
  Result<void> end_member();

  PackedInput input_;
  LogSink* const log_;
  StreamObserver* const observer_;
  const bool is_gzip_;
  z_stream zlib_{};
  State state_ = State::between_members;
  std::uint64_t unpacked_;
  std::uint64_t member_begin_ = 0;  // unpacked
  std::uint64_t members_ = 0;
};

Result<void> Inflater::begin(const Point& point, std::span<const std::byte> state) {
  if (point.kind == kMember) {
    if (!is_gzip_) state_ = State::body;
    return {};
  }
  state_ = State::body;
  members_ = 1;
  if (point.bits != 0) {
    const auto byte = input_.take_byte();
    if (!byte) return std::unexpected(byte.error());
    if (!*byte) return input_.damaged("it ends there");
    const int value = std::to_integer<int>(**byte) >> (8 - point.bits);
    if (inflatePrime(&zlib_, point.bits, value) != Z_OK) return input_.damaged("a broken index");
  }
  if (!state.empty() && inflateSetDictionary(&zlib_, reinterpret_cast<const Bytef*>(state.data()),
                                             static_cast<uInt>(state.size())) != Z_OK) {
    return input_.damaged("a broken index");
  }
  return {};
}

Result<void> Inflater::decode_more(std::span<std::byte> out, std::size_t& done) {
  while (done < out.size() && state_ != State::ended) {
    if (state_ == State::between_members) {
      const Result<bool> more = begin_member();
      if (!more) return std::unexpected(more.error());
      state_ = *more ? State::body : State::ended;
      continue;
    }
    const Result<void> inflated = inflate_some(out.subspan(done), done);
    if (!inflated) return inflated;
  }
  return {};
}

Result<bool> Inflater::begin_member() {
  const std::uint64_t member_at = input_.position();
  const auto there = input_.peek();
  if (!there) return std::unexpected(there.error());
  if (there->empty()) {
    if (members_ == 0) return input_.damaged("it is empty");
    return false;
  }
  std::array<std::byte, 4> start{};
  std::size_t got = 0;
  // As gzip does: what follows the last member and is no member is left alone, with a warning
  // unless it is padding.
  for (; got < start.size(); ++got) {
    const auto byte = input_.take_byte();
    if (!byte) return std::unexpected(byte.error());
    if (!*byte) break;
    start[got] = **byte;
    if (members_ > 0 && ((got == 0 && start[0] != kMagic0) || (got == 1 && start[1] != kMagic1))) {
      const Result<void> passed = start == decltype(start){} ? pass_over_garbage() : Result<void>();
      if (!passed) return std::unexpected(passed.error());
      const auto rest = input_.peek();
      if (!rest) return std::unexpected(rest.error());
      if (start != decltype(start){} || !rest->empty()) {
        log_->write(LogLevel::warning,
                    fmt::format("{}: what follows its last gzip member at byte {} is left alone",
                                input_.name(), member_at));
      }
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
  if (!fields) return std::unexpected(fields.error());
  if (observer_ != nullptr) {
    const Result<void> told = observer_->point(
        {.unpacked = unpacked_, .packed = member_at, .bits = 0, .kind = kMember}, {});
    if (!told) return std::unexpected(told.error());
  }
  ++members_;
  member_begin_ = unpacked_;
  inflateReset(&zlib_);
  return true;
}

Result<void> Inflater::read_header_fields(unsigned flags) {
  constexpr std::string_view kEnds = "it ends in the header of a gzip member";
  const auto take = [&](std::size_t count) -> Result<std::vector<std::byte>> {
    auto bytes = input_.take(count);
    if (!bytes) return std::unexpected(bytes.error());
    if (!*bytes) return input_.damaged(kEnds);
    return std::move(**bytes);
  };
  // Time, extra flags, system.
  if (const auto bytes = take(6); !bytes) return std::unexpected(bytes.error());
  if ((flags & kFlagExtra) != 0) {
    const auto length = take(2);
    if (!length) return std::unexpected(length.error());
    const auto extra = take(load_le<std::uint16_t>(*length));
    if (!extra) return std::unexpected(extra.error());
  }
  for (const unsigned text : {kFlagName, kFlagComment}) {
    if ((flags & text) == 0) continue;
    if (const Result<void> skipped = skip_text(); !skipped) return skipped;
  }
  if ((flags & kFlagHeaderCrc) != 0) {
    if (const auto bytes = take(2); !bytes) return std::unexpected(bytes.error());
  }
  return {};
}

Result<void> Inflater::skip_text() {
  while (true) {
    const auto byte = input_.take_byte();
    if (!byte) return std::unexpected(byte.error());
    if (!*byte) return input_.damaged("it ends in the header of a gzip member");
    if (**byte == std::byte{0}) return {};
  }
}

Result<void> Inflater::pass_over_garbage() {
  while (true) {
    const auto there = input_.peek();
    if (!there) return std::unexpected(there.error());
    const auto other = std::ranges::find_if(*there, [](std::byte b) { return b != std::byte{0}; });
    if (there->empty() || other != there->end()) return {};
    input_.consume(there->size());
  }
}

Result<void> Inflater::inflate_some(std::span<std::byte> out, std::size_t& done) {
  const auto there = input_.peek();
  if (!there) return std::unexpected(there.error());
  // Input is given to the end: zlib may hold bits that unpack to more without another byte.
  zlib_.next_in = reinterpret_cast<z_const Bytef*>(const_cast<std::byte*>(there->data()));
  zlib_.avail_in = static_cast<uInt>(there->size());
  const std::size_t most = std::min<std::size_t>(out.size(), std::size_t{1} << 30);
  zlib_.next_out = reinterpret_cast<Bytef*>(out.data());
  zlib_.avail_out = static_cast<uInt>(most);
  const int status = inflate(&zlib_, observer_ != nullptr ? Z_BLOCK : Z_NO_FLUSH);
  const std::size_t used = there->size() - zlib_.avail_in;
  const std::size_t count = most - zlib_.avail_out;
  input_.consume(used);
  unpacked_ += count;
  done += count;
  switch (status) {
    case Z_OK:
      break;
    case Z_STREAM_END:
      return end_member();
    case Z_BUF_ERROR:
      if (there->empty()) return input_.damaged("it ends in the middle of compressed data");
      break;
    case Z_MEM_ERROR:
      throw std::bad_alloc();
    default:
      return input_.damaged(zlib_.msg != nullptr ? zlib_.msg : "this is no compressed data");
  }
  constexpr int kAtBlockEnd = 128;
  constexpr int kInLastBlock = 64;
  if (observer_ != nullptr && (zlib_.data_type & kAtBlockEnd) != 0 &&
      (zlib_.data_type & kInLastBlock) == 0 && observer_->wants_state_at(unpacked_)) {
    return tell_point();
  }
  return {};
}

Result<void> Inflater::tell_point() {
  std::array<std::byte, kWindowBytes> window;
  uInt size = 0;
  if (inflateGetDictionary(&zlib_, reinterpret_cast<Bytef*>(window.data()), &size) != Z_OK)
    return {};
  constexpr int kUnusedBits = 7;
  const Point point{.unpacked = unpacked_,
                    .packed = input_.position(),
                    .bits = static_cast<std::uint8_t>(zlib_.data_type & kUnusedBits),
                    .kind = kInside};
  return observer_->point(point, std::span(window).first(size));
}

Result<void> Inflater::end_member() {
  if (!is_gzip_) {
    state_ = State::ended;
    return {};
  }
  state_ = State::between_members;
  const auto trailer = input_.take(8);
  if (!trailer) return std::unexpected(trailer.error());
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
  auto inflater = std::make_unique<Inflater>(input, point, observer);
  const Result<void> begun = inflater->begin(point, state);
  if (!begun) return std::unexpected(begun.error());
  return inflater;
}

}  // namespace mkvirtfs
