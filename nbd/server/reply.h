// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "nbd/server/batch.h"
#include "nbd/wire/protocol.h"

namespace mkvirtfs::nbd {

/// The forms of replies, of which the handshake settles one ("Transmission phase").
enum class ReplyStyle : std::uint8_t {
  simple,      ///< an error number, and the data of a read
  structured,  ///< reads and errors come in chunks
  extended,    ///< everything comes in chunks, with the request's offset in each header
};

/// The request that a reply answers, and the form that its client understands.
struct ReplyTo {
  ReplyStyle style = ReplyStyle::simple;
  std::uint64_t cookie = 0;
  std::uint64_t offset = 0;  ///< of the request; extended headers repeat it

  bool in_chunks() const noexcept { return style != ReplyStyle::simple; }
};

/// Why a request failed, as it is sent to the client.
struct Failure {
  WireError error = WireError::ok;
  std::string text;                     ///< fit for the wire: see wire_text()
  std::optional<std::uint64_t> offset;  ///< where, for reads
};

/// The size of a chunk's header; not for simple replies.
constexpr std::size_t chunk_header_bytes(ReplyStyle style) noexcept {
  return style == ReplyStyle::extended ? kExtendedChunkHeaderBytes : kChunkHeaderBytes;
}
/// Writes the header of a chunk with `length` bytes behind it to the front of `into`.
void write_chunk_header(std::span<std::byte> into, const ReplyTo& to, std::uint16_t flags,
                        ChunkType type, std::uint64_t length) noexcept;
void append_chunk_header(Batch& out, const ReplyTo& to, std::uint16_t flags, ChunkType type,
                         std::uint64_t length);

/// Puts the whole answer to a successful request that has no data into the batch.
void append_success(Batch& out, const ReplyTo& to);
/// Puts the whole answer to a failed request into the batch: an error chunk with text and offset
/// for clients that know chunks, the bare error for others.
void append_error(Batch& out, const ReplyTo& to, const Failure& failure);

}  // namespace mkvirtfs::nbd
