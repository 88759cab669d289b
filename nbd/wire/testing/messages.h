// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "nbd/wire/codec.h"
#include "support/testing/bytes.h"

// The client's half of the protocol, for tests: messages made by hand, and replies taken apart by a
// reader that shares nothing with the server's encoders but the numbers. It throws at the first
// byte that breaks the protocol.

namespace mkvirtfs::nbd::testing {

using namespace mkvirtfs::testing;  // what the rooms below have for tests

// --- Messages ----------------------------------------------------------------------------------

inline Bytes client_flags(std::uint32_t flags = kFixedNewstyle | kNoZeroes) {
  Bytes bytes;
  bytes += pack(flags);
  return bytes;
}

/// An option whose header may lie about the length of its data.
inline Bytes option(std::uint32_t number, std::span<const std::byte> data,
                    std::optional<std::uint32_t> told_length = std::nullopt) {
  Bytes bytes;
  bytes += encode_option_header(
      {Option{number}, told_length.value_or(static_cast<std::uint32_t>(data.size()))});
  bytes += data;
  return bytes;
}
inline Bytes option(Option number, std::span<const std::byte> data = {}) {
  return option(std::to_underlying(number), data);
}

inline Bytes info_data(std::string_view name, std::initializer_list<std::uint16_t> items = {}) {
  Bytes data;
  data += pack(static_cast<std::uint32_t>(name.size()));
  data += bytes_of(name);
  data += pack(static_cast<std::uint16_t>(items.size()));
  for (const std::uint16_t item : items) data += pack(item);
  return data;
}

inline Bytes meta_data(std::string_view name, std::initializer_list<std::string_view> queries) {
  Bytes data;
  data += pack(static_cast<std::uint32_t>(name.size()));
  data += bytes_of(name);
  data += pack(static_cast<std::uint32_t>(queries.size()));
  for (const std::string_view query : queries) {
    data += pack(static_cast<std::uint32_t>(query.size()));
    data += bytes_of(query);
  }
  return data;
}

inline Bytes request(Command command, std::uint64_t cookie, std::uint64_t offset,
                     std::uint32_t length, std::uint16_t flags = 0) {
  Bytes bytes;
  bytes += encode_request({flags, command, cookie, offset, length});
  return bytes;
}

// --- Replies -----------------------------------------------------------------------------------

struct WireViolation : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Takes bytes from the front of a stream.
class Stream {
 public:
  Stream() = default;
  explicit Stream(Bytes bytes) : bytes_(std::move(bytes)) {}

  std::size_t left() const { return bytes_.size() - at_; }
  bool empty() const { return left() == 0; }
  void add(std::span<const std::byte> more) { bytes_ += more; }

  std::span<const std::byte> take(std::size_t count) {
    if (left() < count) throw WireViolation("the stream ends inside a message");
    const std::span<const std::byte> front(bytes_.data() + at_, count);
    at_ += count;
    return front;
  }
  template <std::unsigned_integral T>
  T number() {
    T value = 0;
    for (const std::byte byte : take(sizeof(T))) {
      value = static_cast<T>((sizeof(T) == 1 ? T{0} : static_cast<T>(value << 8)) |
                             std::to_integer<T>(byte));
    }
    return value;
  }

 private:
  Bytes bytes_;
  std::size_t at_ = 0;
};

struct OptionAnswer {
  std::uint32_t option = 0;
  std::uint32_t reply = 0;
  Bytes data;

  bool is(OptionReply expected) const { return reply == std::to_underlying(expected); }
  bool is_error() const { return reply >> 31 != 0; }
};

inline OptionAnswer take_option_answer(Stream& stream) {
  if (stream.number<std::uint64_t>() != kOptionReplyMagic) {
    throw WireViolation("an option reply without its magic number");
  }
  OptionAnswer answer;
  answer.option = stream.number<std::uint32_t>();
  answer.reply = stream.number<std::uint32_t>();
  const auto length = stream.number<std::uint32_t>();
  const auto data = stream.take(length);
  answer.data.assign(data.begin(), data.end());
  if (answer.is_error() && length > 4096) throw WireViolation("an error text is too long");
  return answer;
}

/// Takes the greeting and returns the handshake flags.
inline std::uint16_t take_greeting(Stream& stream) {
  if (stream.number<std::uint64_t>() != kServerMagic) throw WireViolation("not an NBD server");
  if (stream.number<std::uint64_t>() != kOptionMagic) throw WireViolation("not newstyle");
  return stream.number<std::uint16_t>();
}

struct Chunk {
  std::uint16_t flags = 0;
  std::uint16_t type = 0;
  std::uint64_t cookie = 0;
  bool extended = false;
  std::uint64_t offset = 0;  ///< of extended ones
  Bytes data;

  bool is(ChunkType expected) const { return type == std::to_underlying(expected); }
  bool done() const { return (flags & kChunkDone) != 0; }
  bool is_error() const { return (type & 0x8000) != 0; }
};

/// The answer to one request, whatever its form.
struct Answer {
  bool structured = false;
  std::uint64_t cookie = 0;
  std::uint32_t error = 0;
  std::string text;  ///< of an error chunk
  std::optional<std::uint64_t> error_offset;
  Bytes data;  ///< of a read, assembled
  std::size_t hole_chunks = 0;
  std::size_t data_chunks = 0;
  using Descriptors = std::vector<std::pair<std::uint64_t, std::uint64_t>>;  ///< length, status
  Descriptors descriptors;                            ///< of the first context that was selected
  std::map<std::uint32_t, Descriptors> other_status;  ///< of the others, by their numbers

  bool is(WireError expected) const { return error == std::to_underlying(expected); }
};

inline std::optional<Chunk> take_chunk_or_simple(Stream& stream, Answer& simple) {
  const auto magic = stream.number<std::uint32_t>();
  if (magic == kSimpleReplyMagic) {
    simple.error = stream.number<std::uint32_t>();
    simple.cookie = stream.number<std::uint64_t>();
    return std::nullopt;
  }
  Chunk chunk;
  chunk.extended = magic == kExtendedChunkMagic;
  if (magic != kChunkMagic && !chunk.extended) {
    throw WireViolation("a reply without a magic number");
  }
  chunk.flags = stream.number<std::uint16_t>();
  chunk.type = stream.number<std::uint16_t>();
  chunk.cookie = stream.number<std::uint64_t>();
  if (chunk.extended) chunk.offset = stream.number<std::uint64_t>();
  const std::uint64_t length =
      chunk.extended ? stream.number<std::uint64_t>() : stream.number<std::uint32_t>();
  const auto data = stream.take(length);
  chunk.data.assign(data.begin(), data.end());
  if ((chunk.flags & ~kChunkDone) != 0) throw WireViolation("an unknown chunk flag");
  return chunk;
}

inline bool is_wire_error(std::uint32_t error) {
  constexpr std::array<std::uint32_t, 8> kKnown = {1, 5, 12, 22, 28, 75, 95, 108};
  return std::ranges::find(kKnown, error) != kKnown.end();
}

/// Takes the whole answer to `asked`, checking every rule on the way. `structured` says what was
/// negotiated.
inline Answer take_answer(Stream& stream, const Request& asked, bool structured,
                          bool extended = false) {
  Answer answer;
  const bool is_read = asked.command == Command::read;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> covered;  // offset, length
  bool first = true;
  while (true) {
    const auto chunk = take_chunk_or_simple(stream, answer);
    if (!chunk) {
      if (!first) throw WireViolation("a simple reply among chunks");
      if (is_read && structured) throw WireViolation("a simple reply to a structured read");
      if (extended) throw WireViolation("a simple reply in spite of extended headers");
      if (answer.cookie != asked.cookie) throw WireViolation("another request's cookie");
      if (answer.error != 0 && !is_wire_error(answer.error)) throw WireViolation("a raw errno");
      if (is_read && answer.error == 0) {
        const auto data = stream.take(asked.length);
        answer.data.assign(data.begin(), data.end());
      }
      return answer;
    }
    if (!structured) throw WireViolation("a chunk without structured replies");
    first = false;
    answer.structured = true;
    answer.cookie = chunk->cookie;
    if (chunk->cookie != asked.cookie) throw WireViolation("another request's cookie");
    if (chunk->extended != extended) throw WireViolation("a header of the wrong kind");
    if (extended && chunk->offset != asked.offset) throw WireViolation("another offset");
    Stream body(chunk->data);
    const auto cover = [&](std::uint64_t offset, std::uint64_t length) {
      if (!is_read || length == 0 || offset < asked.offset ||
          offset - asked.offset > asked.length || length > asked.length - (offset - asked.offset)) {
        throw WireViolation("a chunk outside of its request");
      }
      covered.emplace_back(offset, length);
      answer.data.resize(asked.length);
    };
    if (chunk->is(ChunkType::none)) {
      if (!chunk->done() || !body.empty()) throw WireViolation("a none chunk in the middle");
    } else if (chunk->is(ChunkType::offset_data)) {
      const auto offset = body.number<std::uint64_t>();
      const auto data = body.take(body.left());
      cover(offset, data.size());
      std::ranges::copy(data,
                        answer.data.begin() + static_cast<std::ptrdiff_t>(offset - asked.offset));
      ++answer.data_chunks;
    } else if (chunk->is(ChunkType::offset_hole)) {
      if (chunk->data.size() != 12) throw WireViolation("a hole chunk of the wrong size");
      const auto offset = body.number<std::uint64_t>();
      cover(offset, body.number<std::uint32_t>());
      ++answer.hole_chunks;
    } else if (chunk->is(extended ? ChunkType::block_status_ext : ChunkType::block_status)) {
      if (asked.command != Command::block_status) throw WireViolation("an unasked status");
      const auto id = body.number<std::uint32_t>();
      if (id == 0) throw WireViolation("a context without a number");
      Answer::Descriptors& told = id == 1 ? answer.descriptors : answer.other_status[id];
      if (!told.empty()) throw WireViolation("two chunks for one context");
      std::uint64_t total = 0;
      if (extended && body.number<std::uint32_t>() * std::size_t{16} != body.left()) {
        throw WireViolation("a wrong count of descriptors");
      }
      if (body.left() == 0 || body.left() % 8 != 0) throw WireViolation("a bad status length");
      while (!body.empty()) {
        if (total >= asked.length) throw WireViolation("a descriptor behind the request");
        const std::uint64_t length =
            extended ? body.number<std::uint64_t>() : body.number<std::uint32_t>();
        const std::uint64_t status =
            extended ? body.number<std::uint64_t>() : body.number<std::uint32_t>();
        if (length == 0) throw WireViolation("an empty descriptor");
        total += length;
        told.emplace_back(length, status);
      }
      if ((asked.flags & kReqOne) != 0 && (told.size() != 1 || total > asked.length)) {
        throw WireViolation("more than the one descriptor that was asked for");
      }
    } else if (chunk->is(ChunkType::error) || chunk->is(ChunkType::error_offset)) {
      if (answer.error != 0) throw WireViolation("two errors");
      answer.error = body.number<std::uint32_t>();
      if (!is_wire_error(answer.error)) throw WireViolation("a raw errno");
      const auto length = body.number<std::uint16_t>();
      if (length > 4096) throw WireViolation("an error text is too long");
      answer.text = text_of(body.take(length));
      if (chunk->is(ChunkType::error_offset)) {
        const auto offset = body.number<std::uint64_t>();
        if (offset < asked.offset || offset - asked.offset >= asked.length) {
          throw WireViolation("an error outside of its request");
        }
        answer.error_offset = offset;
      }
      if (!body.empty()) throw WireViolation("junk behind an error");
    } else {
      throw WireViolation("an unknown chunk");
    }
    if (chunk->done()) break;
  }
  if (is_read && (asked.flags & kDf) != 0 && answer.data_chunks + answer.hole_chunks > 1) {
    throw WireViolation("more than one chunk in spite of DF");
  }
  std::ranges::sort(covered);
  std::uint64_t covered_to = asked.offset;
  bool gapless = true;
  for (const auto& [offset, length] : covered) {
    if (offset < covered_to) throw WireViolation("chunks overlap");
    gapless = gapless && offset == covered_to;
    covered_to = offset + length;
  }
  if (is_read && answer.error == 0 && (!gapless || covered_to != asked.offset + asked.length)) {
    throw WireViolation("a read that does not cover its request");
  }
  return answer;
}

}  // namespace mkvirtfs::nbd::testing
