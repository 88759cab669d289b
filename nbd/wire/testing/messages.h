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

/// Takes the whole answer to a request, checking every rule on the way.
class AnswerReader {
 public:
  AnswerReader(Stream& stream, const Request& asked, bool structured, bool extended)
      : stream_(stream), asked_(asked), structured_(structured), extended_(extended) {}

  Answer take() {
    for (bool first = true;; first = false) {
      const auto chunk = take_chunk_or_simple(stream_, answer_);
      if (!chunk) {
        if (!first) throw WireViolation("a simple reply among chunks");
        take_simple();
        return std::move(answer_);
      }
      check_header(*chunk);
      take_body(*chunk);
      if (chunk->done()) break;
    }
    check_whole();
    return std::move(answer_);
  }

 private:
  bool is_read() const { return asked_.command == Command::read; }

  void take_simple() {
    if (is_read() && structured_) throw WireViolation("a simple reply to a structured read");
    if (extended_) throw WireViolation("a simple reply in spite of extended headers");
    if (answer_.cookie != asked_.cookie) throw WireViolation("another request's cookie");
    if (answer_.error != 0 && !is_wire_error(answer_.error)) throw WireViolation("a raw errno");
    if (is_read() && answer_.error == 0) {
      const auto data = stream_.take(asked_.length);
      answer_.data.assign(data.begin(), data.end());
    }
  }

  void check_header(const Chunk& chunk) {
    if (!structured_) throw WireViolation("a chunk without structured replies");
    answer_.structured = true;
    answer_.cookie = chunk.cookie;
    if (chunk.cookie != asked_.cookie) throw WireViolation("another request's cookie");
    if (chunk.extended != extended_) throw WireViolation("a header of the wrong kind");
    if (extended_ && chunk.offset != asked_.offset) throw WireViolation("another offset");
  }

  void take_body(const Chunk& chunk) {
    Stream body(chunk.data);
    if (chunk.is(ChunkType::none)) {
      if (!chunk.done() || !body.empty()) throw WireViolation("a none chunk in the middle");
    } else if (chunk.is(ChunkType::offset_data)) {
      take_data(body);
    } else if (chunk.is(ChunkType::offset_hole)) {
      if (chunk.data.size() != 12) throw WireViolation("a hole chunk of the wrong size");
      const auto offset = body.number<std::uint64_t>();
      cover(offset, body.number<std::uint32_t>());
      ++answer_.hole_chunks;
    } else if (chunk.is(extended_ ? ChunkType::block_status_ext : ChunkType::block_status)) {
      take_status(body);
    } else if (chunk.is(ChunkType::error) || chunk.is(ChunkType::error_offset)) {
      take_error(body, chunk.is(ChunkType::error_offset));
    } else {
      throw WireViolation("an unknown chunk");
    }
  }

  void cover(std::uint64_t offset, std::uint64_t length) {
    if (!is_read() || length == 0 || offset < asked_.offset ||
        offset - asked_.offset > asked_.length ||
        length > asked_.length - (offset - asked_.offset)) {
      throw WireViolation("a chunk outside of its request");
    }
    covered_.emplace_back(offset, length);
    answer_.data.resize(asked_.length);
  }

  void take_data(Stream& body) {
    const auto offset = body.number<std::uint64_t>();
    const auto data = body.take(body.left());
    cover(offset, data.size());
    std::ranges::copy(data,
                      answer_.data.begin() + static_cast<std::ptrdiff_t>(offset - asked_.offset));
    ++answer_.data_chunks;
  }

  void take_status(Stream& body) {
    if (asked_.command != Command::block_status) throw WireViolation("an unasked status");
    const auto id = body.number<std::uint32_t>();
    if (id == 0) throw WireViolation("a context without a number");
    Answer::Descriptors& status = id == 1 ? answer_.descriptors : answer_.other_status[id];
    if (!status.empty()) throw WireViolation("two chunks for one context");
    if (extended_ && body.number<std::uint32_t>() * std::size_t{16} != body.left()) {
      throw WireViolation("a wrong count of descriptors");
    }
    if (body.left() == 0 || body.left() % 8 != 0) throw WireViolation("a bad status length");
    std::uint64_t total = 0;
    while (!body.empty()) {
      if (total >= asked_.length) throw WireViolation("a descriptor behind the request");
      const std::uint64_t length = status_number(body);
      if (length == 0) throw WireViolation("an empty descriptor");
      total += length;
      status.emplace_back(length, status_number(body));
    }
    if ((asked_.flags & kReqOne) != 0 && (status.size() != 1 || total > asked_.length)) {
      throw WireViolation("more than the one descriptor that was asked for");
    }
  }
  std::uint64_t status_number(Stream& body) const {
    return extended_ ? body.number<std::uint64_t>() : body.number<std::uint32_t>();
  }

  void take_error(Stream& body, bool has_offset) {
    if (answer_.error != 0) throw WireViolation("two errors");
    answer_.error = body.number<std::uint32_t>();
    if (!is_wire_error(answer_.error)) throw WireViolation("a raw errno");
    const auto length = body.number<std::uint16_t>();
    if (length > 4096) throw WireViolation("an error text is too long");
    answer_.text = text_of(body.take(length));
    if (has_offset) {
      const auto offset = body.number<std::uint64_t>();
      if (offset < asked_.offset || offset - asked_.offset >= asked_.length) {
        throw WireViolation("an error outside of its request");
      }
      answer_.error_offset = offset;
    }
    if (!body.empty()) throw WireViolation("junk behind an error");
  }

  /// No byte twice, and of a read without an error all of them.
  void check_whole() {
    if (is_read() && (asked_.flags & kDf) != 0 && answer_.data_chunks + answer_.hole_chunks > 1) {
      throw WireViolation("more than one chunk in spite of DF");
    }
    std::ranges::sort(covered_);
    std::uint64_t covered_to = asked_.offset;
    bool gapless = true;
    for (const auto& [offset, length] : covered_) {
      if (offset < covered_to) throw WireViolation("chunks overlap");
      gapless = gapless && offset == covered_to;
      covered_to = offset + length;
    }
    if (is_read() && answer_.error == 0 &&
        (!gapless || covered_to != asked_.offset + asked_.length)) {
      throw WireViolation("a read that does not cover its request");
    }
  }

  Stream& stream_;
  const Request& asked_;
  const bool structured_;
  const bool extended_;
  Answer answer_;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> covered_;  // offset, length
};

/// `structured` and `extended` are what was negotiated.
inline Answer take_answer(Stream& stream, const Request& asked, bool structured,
                          bool extended = false) {
  return AnswerReader(stream, asked, structured, extended).take();
}

}  // namespace mkvirtfs::nbd::testing
