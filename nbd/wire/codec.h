// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "nbd/wire/protocol.h"
#include "support/byte_order.h"
#include "support/error.h"

// Pure functions between bytes and messages: no I/O, no state. Decoders take exactly the bytes of
// one message and answer nullopt when these are not such a message; what they return points into
// those bytes.

namespace mkvirtfs::nbd {

inline std::span<const std::byte> as_bytes(std::string_view text) noexcept {
  return std::as_bytes(std::span(text));
}
inline std::string_view as_text(std::span<const std::byte> bytes) noexcept {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

struct OptionHeader {
  Option option{};  // any number at all: the client chose it
  std::uint32_t length = 0;

  friend bool operator==(const OptionHeader&, const OptionHeader&) = default;
};
std::optional<OptionHeader> decode_option_header(
    std::span<const std::byte, kOptionHeaderBytes> bytes) noexcept;

/// Why an option is refused. Clients of before 2020 do not know ERR_TOO_BIG.
struct OptionRefusal {
  OptionReply error = OptionReply::err_invalid;
  std::string text;  ///< for people, one line
};

/// The strings of a request: UTF-8 without NUL of at most 4096 bytes.
bool is_request_string(std::string_view text) noexcept;

/// The data of INFO and GO: a name, then numbers of information items.
class InfoRequest {
 public:
  static std::optional<InfoRequest> decode(std::span<const std::byte> data) noexcept;
  std::string_view name() const noexcept { return name_; }
  bool wants(Info item) const noexcept;

 private:
  std::string_view name_;
  std::span<const std::byte> items_;
};

/// The data of LIST_META_CONTEXT and SET_META_CONTEXT: an export's name, then queries.
class MetaRequest {
 public:
  static std::optional<MetaRequest> decode(std::span<const std::byte> data) noexcept;
  std::string_view name() const noexcept { return name_; }
  std::uint32_t query_count() const noexcept { return query_count_; }
  /// Until `visit` says false.
  void for_each_query(const std::function<bool(std::string_view query)>& visit) const;

 private:
  std::string_view name_;
  std::uint32_t query_count_ = 0;
  std::span<const std::byte> queries_;
};

struct Request {
  std::uint16_t flags = 0;
  Command command{};  // any number at all: the client chose it
  std::uint64_t cookie = 0;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;  ///< of the payload, when kPayloadLen is set; else of the effect

  friend bool operator==(const Request&, const Request&) = default;
};
std::optional<Request> decode_request(std::span<const std::byte, kRequestBytes> bytes) noexcept;
std::optional<Request> decode_extended_request(
    std::span<const std::byte, kExtendedRequestBytes> bytes) noexcept;

/// The values one behind the other, big-endian.
template <std::unsigned_integral... T>
constexpr std::array<std::byte, (sizeof(T) + ...)> pack(T... values) noexcept {
  std::array<std::byte, (sizeof(T) + ...)> bytes{};
  std::size_t at = 0;
  ((store_be(std::span<std::byte>(bytes), at, values), at += sizeof(T)), ...);
  return bytes;
}

inline auto encode_greeting(std::uint16_t handshake_flags) noexcept {
  return pack(kServerMagic, kOptionMagic, handshake_flags);
}
inline auto encode_option_header(const OptionHeader& header) noexcept {
  return pack(kOptionMagic, std::to_underlying(header.option), header.length);
}
inline auto encode_option_reply(Option option, OptionReply reply, std::uint32_t length) noexcept {
  return pack(kOptionReplyMagic, std::to_underlying(option), std::to_underlying(reply), length);
}
inline auto encode_request(const Request& request) noexcept {
  return pack(kRequestMagic, request.flags, std::to_underlying(request.command), request.cookie,
              request.offset, static_cast<std::uint32_t>(request.length));
}
inline auto encode_extended_request(const Request& request) noexcept {
  return pack(kExtendedRequestMagic, request.flags, std::to_underlying(request.command),
              request.cookie, request.offset, request.length);
}
inline auto encode_simple_reply(WireError error, std::uint64_t cookie) noexcept {
  return pack(kSimpleReplyMagic, std::to_underlying(error), cookie);
}
inline auto encode_chunk_header(std::uint16_t flags, ChunkType type, std::uint64_t cookie,
                                std::uint32_t length) noexcept {
  return pack(kChunkMagic, flags, std::to_underlying(type), cookie, length);
}
inline auto encode_extended_chunk_header(std::uint16_t flags, ChunkType type, std::uint64_t cookie,
                                         std::uint64_t offset, std::uint64_t length) noexcept {
  return pack(kExtendedChunkMagic, flags, std::to_underlying(type), cookie, offset, length);
}

static_assert(std::tuple_size_v<decltype(encode_greeting(0))> == kGreetingBytes);
static_assert(std::tuple_size_v<decltype(encode_option_header({}))> == kOptionHeaderBytes);
static_assert(std::tuple_size_v<decltype(encode_option_reply({}, {}, 0))> ==
              kOptionReplyHeaderBytes);
static_assert(std::tuple_size_v<decltype(encode_request({}))> == kRequestBytes);
static_assert(std::tuple_size_v<decltype(encode_simple_reply({}, 0))> == kSimpleReplyBytes);
static_assert(std::tuple_size_v<decltype(encode_chunk_header(0, {}, 0, 0))> == kChunkHeaderBytes);
static_assert(std::tuple_size_v<decltype(encode_extended_request({}))> == kExtendedRequestBytes);
static_assert(std::tuple_size_v<decltype(encode_extended_chunk_header(0, {}, 0, 0, 0))> ==
              kExtendedChunkHeaderBytes);

/// The one table from our errors to those of the protocol. Never WireError::ok.
WireError wire_error(const Error& error) noexcept;

/// `text` as it may travel to a client: printable, at most `most_bytes`, not cut inside a
/// character.
std::string wire_text(std::string_view text, std::size_t most_bytes = 4096);

}  // namespace mkvirtfs::nbd
