// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>

// The numbers of the NBD protocol (NetworkBlockDevice/nbd, doc/proto.md), under its own words.
// Every integer on the wire is big-endian.

namespace mkvirtfs::nbd {

// Magic numbers, "Newstyle negotiation" and "Transmission".
inline constexpr std::uint64_t kServerMagic = 0x4e42444d41474943;  // "NBDMAGIC"
inline constexpr std::uint64_t kOptionMagic = 0x49484156454f5054;  // "IHAVEOPT"
inline constexpr std::uint64_t kOptionReplyMagic = 0x0003e889045565a9;
inline constexpr std::uint32_t kRequestMagic = 0x25609513;
inline constexpr std::uint32_t kSimpleReplyMagic = 0x67446698;
inline constexpr std::uint32_t kChunkMagic = 0x668e33ef;
inline constexpr std::uint32_t kExtendedRequestMagic = 0x21e41c71;
inline constexpr std::uint32_t kExtendedChunkMagic = 0x6e8a278c;

// Sizes of what has a fixed size, in bytes.
inline constexpr std::size_t kGreetingBytes = 18;
inline constexpr std::size_t kClientFlagsBytes = 4;
inline constexpr std::size_t kOptionHeaderBytes = 16;
inline constexpr std::size_t kOptionReplyHeaderBytes = 20;
inline constexpr std::size_t kRequestBytes = 28;
inline constexpr std::size_t kSimpleReplyBytes = 16;
inline constexpr std::size_t kChunkHeaderBytes = 20;
inline constexpr std::size_t kExtendedRequestBytes = 32;
inline constexpr std::size_t kExtendedChunkHeaderBytes = 32;
/// What follows the export's size and flags in the answer to EXPORT_NAME, unless it is omitted.
inline constexpr std::size_t kExportNamePadding = 124;

// Handshake flags (server, u16) and client flags (u32): the same two bits.
inline constexpr std::uint16_t kFixedNewstyle = 1U << 0;
inline constexpr std::uint16_t kNoZeroes = 1U << 1;

// Transmission flags (u16).
inline constexpr std::uint16_t kHasFlags = 1U << 0;
inline constexpr std::uint16_t kReadOnly = 1U << 1;
inline constexpr std::uint16_t kSendFlush = 1U << 2;
inline constexpr std::uint16_t kSendFua = 1U << 3;
inline constexpr std::uint16_t kRotational = 1U << 4;
inline constexpr std::uint16_t kSendTrim = 1U << 5;
inline constexpr std::uint16_t kSendWriteZeroes = 1U << 6;
inline constexpr std::uint16_t kSendDf = 1U << 7;
inline constexpr std::uint16_t kMultiConn = 1U << 8;
inline constexpr std::uint16_t kSendResize = 1U << 9;
inline constexpr std::uint16_t kSendCache = 1U << 10;
inline constexpr std::uint16_t kSendFastZero = 1U << 11;
inline constexpr std::uint16_t kBlockStatusPayload = 1U << 12;

// Enumerations have the width that they have on the wire.
// NOLINTBEGIN(performance-enum-size)

enum class Option : std::uint32_t {
  export_name = 1,
  abort = 2,
  list = 3,
  peek_export = 4,  // withdrawn: its number stays burned
  starttls = 5,
  info = 6,
  go = 7,
  structured_reply = 8,
  list_meta_context = 9,
  set_meta_context = 10,
  extended_headers = 11,
};

constexpr std::uint32_t option_error(std::uint32_t number) { return (1U << 31) + number; }

enum class OptionReply : std::uint32_t {
  ack = 1,
  server = 2,
  info = 3,
  meta_context = 4,
  err_unsup = option_error(1),
  err_policy = option_error(2),
  err_invalid = option_error(3),
  err_platform = option_error(4),
  err_tls_reqd = option_error(5),
  err_unknown = option_error(6),
  err_shutdown = option_error(7),
  err_block_size_reqd = option_error(8),
  err_too_big = option_error(9),
  err_ext_header_reqd = option_error(10),
};

enum class Info : std::uint16_t { export_ = 0, name = 1, description = 2, block_size = 3 };

enum class Command : std::uint16_t {
  read = 0,
  write = 1,
  disc = 2,
  flush = 3,
  trim = 4,
  cache = 5,
  write_zeroes = 6,
  block_status = 7,
  resize = 8,
};

// Command flags (u16).
inline constexpr std::uint16_t kFua = 1U << 0;
inline constexpr std::uint16_t kNoHole = 1U << 1;
inline constexpr std::uint16_t kDf = 1U << 2;
inline constexpr std::uint16_t kReqOne = 1U << 3;
inline constexpr std::uint16_t kFastZero = 1U << 4;
inline constexpr std::uint16_t kPayloadLen = 1U << 5;

// Structured replies.
inline constexpr std::uint16_t kChunkDone = 1U << 0;

enum class ChunkType : std::uint16_t {
  none = 0,
  offset_data = 1,
  offset_hole = 2,
  block_status = 5,
  block_status_ext = 6,
  error = (1U << 15) + 1,
  error_offset = (1U << 15) + 2,
};

// base:allocation, "Metadata querying".
inline constexpr std::uint32_t kStateHole = 1U << 0;
inline constexpr std::uint32_t kStateZero = 1U << 1;

/// The only errors that may stand in a reply ("Error values").
enum class WireError : std::uint32_t {
  ok = 0,
  perm = 1,
  io = 5,
  nomem = 12,
  inval = 22,
  nospc = 28,
  overflow = 75,
  notsup = 95,
  shutdown = 108,
};

// NOLINTEND(performance-enum-size)

/// The longest string, in bytes ("Values", string).
inline constexpr std::size_t kLongestString = 4096;

// Our limits, where the protocol leaves the choice to the server.

/// The longest payload of a command or reply, advertised in INFO_BLOCK_SIZE. Clients may assume 32
/// MiB without asking; the reference client's own test uses more.
inline constexpr std::uint32_t kLargestPayload = 64U << 20;
/// Option data up to this size is looked at; longer data of a known option is ERR_TOO_BIG.
inline constexpr std::uint32_t kLongestOption = 1U << 20;
/// Option data up to this size is read and dropped to stay in step; beyond it we hang up.
inline constexpr std::uint32_t kLongestDrainedOption = 32U << 20;

}  // namespace mkvirtfs::nbd
