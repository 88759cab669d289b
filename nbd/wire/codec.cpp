// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/wire/codec.h"

#include <cerrno>

#include "support/message.h"
#include "support/text.h"

namespace mkvirtfs::nbd {
namespace {

/// Takes values from the front of some bytes; each answer is nullopt when they do not hold it.
class MessageReader {
 public:
  explicit MessageReader(std::span<const std::byte> bytes) noexcept : bytes_(bytes) {}

  template <std::unsigned_integral T>
  std::optional<T> number() noexcept {
    if (bytes_.size() < sizeof(T)) return std::nullopt;
    const T value = load_be<T>(bytes_);
    bytes_ = bytes_.subspan(sizeof(T));
    return value;
  }

  std::optional<std::span<const std::byte>> bytes(std::size_t count) noexcept {
    if (bytes_.size() < count) return std::nullopt;
    const auto front = bytes_.first(count);
    bytes_ = bytes_.subspan(count);
    return front;
  }

  /// A u32 length, then that many bytes that make a string.
  std::optional<std::string_view> string() noexcept {
    const auto length = number<std::uint32_t>();
    if (!length) return std::nullopt;
    const auto text = bytes(*length);
    if (!text || !is_request_string(as_text(*text))) return std::nullopt;
    return as_text(*text);
  }

  std::span<const std::byte> rest() const noexcept { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
};

}  // namespace

std::optional<OptionHeader> decode_option_header(
    std::span<const std::byte, kOptionHeaderBytes> bytes) noexcept {
  if (load_be<std::uint64_t>(bytes) != kOptionMagic) return std::nullopt;
  return OptionHeader{Option{load_be<std::uint32_t>(bytes, 8)}, load_be<std::uint32_t>(bytes, 12)};
}

bool is_request_string(std::string_view text) noexcept {
  return text.size() <= kLongestString && text.find('\0') == std::string_view::npos &&
         is_valid_utf8(text);
}

std::optional<InfoRequest> InfoRequest::decode(std::span<const std::byte> data) noexcept {
  MessageReader reader(data);
  const auto name = reader.string();
  if (!name) return std::nullopt;
  const auto item_count = reader.number<std::uint16_t>();
  if (!item_count || reader.rest().size() != std::size_t{*item_count} * 2) return std::nullopt;
  InfoRequest request;
  request.name_ = *name;
  request.items_ = reader.rest();
  return request;
}

bool InfoRequest::wants(Info item) const noexcept {
  for (std::size_t at = 0; at < items_.size(); at += 2) {
    if (load_be<std::uint16_t>(items_, at) == std::to_underlying(item)) return true;
  }
  return false;
}

std::optional<MetaRequest> MetaRequest::decode(std::span<const std::byte> data) noexcept {
  MessageReader reader(data);
  const auto name = reader.string();
  if (!name) return std::nullopt;
  const auto query_count = reader.number<std::uint32_t>();
  if (!query_count) return std::nullopt;
  MetaRequest request;
  request.name_ = *name;
  request.query_count_ = *query_count;
  request.queries_ = reader.rest();
  // A lying count ends at the first query that is not there, not after 2^32 turns.
  for (std::uint32_t i = 0; i < *query_count; ++i) {
    if (!reader.string()) return std::nullopt;
  }
  if (!reader.rest().empty()) return std::nullopt;
  return request;
}

void MetaRequest::for_each_query(const std::function<bool(std::string_view)>& visit) const {
  MessageReader reader(queries_);
  for (std::uint32_t i = 0; i < query_count_; ++i) {
    const auto query = reader.string();
    if (!query || !visit(*query)) return;
  }
}

std::optional<Request> decode_request(std::span<const std::byte, kRequestBytes> bytes) noexcept {
  if (load_be<std::uint32_t>(bytes) != kRequestMagic) return std::nullopt;
  Request request;
  request.flags = load_be<std::uint16_t>(bytes, 4);
  request.command = Command{load_be<std::uint16_t>(bytes, 6)};
  request.cookie = load_be<std::uint64_t>(bytes, 8);
  request.offset = load_be<std::uint64_t>(bytes, 16);
  request.length = load_be<std::uint32_t>(bytes, 24);
  return request;
}

std::optional<Request> decode_extended_request(
    std::span<const std::byte, kExtendedRequestBytes> bytes) noexcept {
  if (load_be<std::uint32_t>(bytes) != kExtendedRequestMagic) return std::nullopt;
  Request request;
  request.flags = load_be<std::uint16_t>(bytes, 4);
  request.command = Command{load_be<std::uint16_t>(bytes, 6)};
  request.cookie = load_be<std::uint64_t>(bytes, 8);
  request.offset = load_be<std::uint64_t>(bytes, 16);
  request.length = load_be<std::uint64_t>(bytes, 24);
  return request;
}

WireError wire_error(const Error& error) noexcept {
  switch (error.code) {
    case Errc::usage:
    case Errc::unsupported:  // ENOTSUP is for FAST_ZERO alone
    case Errc::does_not_fit:
      return WireError::inval;
    case Errc::no_space:
      return WireError::nospc;
    case Errc::unreadable:
    case Errc::source_changed:
    case Errc::bad_peer:
      return WireError::io;
    case Errc::io:
      break;
  }
  switch (error.os_errno) {
    case EPERM:
    case EROFS:
      return WireError::perm;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return WireError::nospc;
    case ENOMEM:
      return WireError::nomem;
    default:
      return WireError::io;
  }
}

std::string wire_text(std::string_view text, std::size_t most_bytes) {
  return printable_message(text, most_bytes);
}

}  // namespace mkvirtfs::nbd
