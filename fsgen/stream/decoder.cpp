// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/stream/decoder.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace mkvirtfs {

Result<std::size_t> Decoder::decode(std::span<std::byte> out) {
  if (error_) return std::unexpected(*error_);
  std::size_t done = 0;
  if (const Result<void> result = decode_more(out, done); !result) {
    error_ = result.error();
    if (done == 0) return std::unexpected(*error_);
  }
  return done;
}

PackedInput::PackedInput(std::shared_ptr<ByteSource> source, std::uint64_t offset,
                         std::size_t piece_bytes)
    : source_(std::move(source)),
      name_(source_->name()),
      piece_bytes_(static_cast<std::size_t>(
          std::clamp<std::uint64_t>(source_->size_bytes(), 1, std::uint64_t{piece_bytes}))),
      buffer_(std::make_unique_for_overwrite<std::byte[]>(piece_bytes_)),
      next_offset_(offset) {}

Result<std::span<const std::byte>> PackedInput::peek() {
  if (begin_ != end_) return std::span<const std::byte>(buffer_.get() + begin_, end_ - begin_);
  const std::uint64_t size_bytes = source_->size_bytes();
  if (next_offset_ < size_bytes) {
    const auto count =
        static_cast<std::size_t>(std::min<std::uint64_t>(piece_bytes_, size_bytes - next_offset_));
    const Result<void> result = source_->read(next_offset_, {buffer_.get(), count});
    if (!result) return propagate(result);
    next_offset_ += count;
    begin_ = 0;
    end_ = count;
  }
  return std::span<const std::byte>(buffer_.get() + begin_, end_ - begin_);
}

void PackedInput::put_back(std::size_t count) noexcept {
  if (count <= begin_) {
    begin_ -= count;
    return;
  }
  // They were in the piece before.
  next_offset_ = position() - count;
  begin_ = end_ = 0;
}

Result<std::optional<std::vector<std::byte>>> PackedInput::take(std::size_t count) {
  std::vector<std::byte> bytes;
  while (bytes.size() < count) {
    const auto there = peek();
    if (!there) return propagate(there);
    if (there->empty()) return std::nullopt;
    const auto part = there->first(std::min(there->size(), count - bytes.size()));
    bytes.insert(bytes.end(), part.begin(), part.end());
    consume(part.size());
  }
  return bytes;
}

Result<std::optional<std::byte>> PackedInput::take_byte() {
  const auto there = peek();
  if (!there) return propagate(there);
  if (there->empty()) return std::nullopt;
  const std::byte byte = there->front();
  consume(1);
  return byte;
}

Result<std::size_t> PackedInput::look(std::span<std::byte> out) {
  const auto there = peek();
  if (!there) return propagate(there);
  std::size_t count = std::min(out.size(), there->size());
  std::ranges::copy(there->first(count), out.begin());
  if (count == out.size() || position() + count == source_->size_bytes()) return count;
  // They go on in the next piece.
  const std::uint64_t at = position();
  const auto rest = static_cast<std::size_t>(
      std::min<std::uint64_t>(out.size() - count, source_->size_bytes() - at - count));
  const Result<void> read = source_->read(at + count, out.subspan(count, rest));
  if (!read) return propagate(read);
  return count + rest;
}

std::unexpected<Error> PackedInput::damaged(std::string_view what) const {
  return fail(Errc::io, fmt::format("{} is damaged at byte {}: {}", name_, position(), what));
}

namespace {

Result<std::unique_ptr<Decoder>> make_any_decoder(const DecoderInput& input, const Point& point,
                                                  std::span<const std::byte> state,
                                                  StreamObserver* observer) {
  switch (input.compression) {
    case Compression::gzip:
    case Compression::deflate:
      return make_inflater(input, point, state, observer);
    case Compression::xz:
    case Compression::lzma:
    case Compression::lzip:
      return make_lzma_decoder(
          input, point, observer != nullptr ? DecodeOrder::whole_stream : DecodeOrder::stretch);
    case Compression::zstd:
      return make_zstd_decoder(input, point, state, observer);
    case Compression::bzip2:
      return make_bzip2_decoder(input, point, observer);
    case Compression::lz4:
      return make_lz4_decoder(input);
    case Compression::compress:
      return make_lzw_decoder(input);
    case Compression::none:
      break;
  }
  return fail(Errc::unsupported, fmt::format("{}: {} is not decoded here", input.packed->name(),
                                             to_string(input.compression)));
}

}  // namespace

Result<std::unique_ptr<Decoder>> make_forward_decoder(const DecoderInput& input,
                                                      StreamObserver& observer) {
  return make_any_decoder(input, {}, {}, &observer);
}

Result<std::unique_ptr<Decoder>> make_decoder(const DecoderInput& input, const Point& point,
                                              std::span<const std::byte> state) {
  return make_any_decoder(input, point, state, nullptr);
}

}  // namespace mkvirtfs
