// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/server/reply.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "nbd/wire/codec.h"
#include "support/arithmetic.h"

namespace mkvirtfs::nbd {

void write_chunk_header(std::span<std::byte> into, const ReplyTo& to, std::uint16_t flags,
                        ChunkType type, std::uint64_t length) noexcept {
  assert(to.in_chunks());
  if (to.style == ReplyStyle::extended) {
    std::ranges::copy(encode_extended_chunk_header(flags, type, to.cookie, to.offset, length),
                      into.begin());
  } else {
    std::ranges::copy(encode_chunk_header(flags, type, to.cookie, narrow<std::uint32_t>(length)),
                      into.begin());
  }
}

void append_chunk_header(Batch& out, const ReplyTo& to, std::uint16_t flags, ChunkType type,
                         std::uint64_t length) {
  write_chunk_header(out.extend(chunk_header_bytes(to.style)), to, flags, type, length);
}

void append_success(Batch& out, const ReplyTo& to) {
  if (to.style == ReplyStyle::extended) {
    append_chunk_header(out, to, kChunkDone, ChunkType::none, 0);
  } else {
    // Only reads must be answered in chunks.
    out.append(encode_simple_reply(WireError::ok, to.cookie));
  }
}

void append_error(Batch& out, const ReplyTo& to, const Failure& failure) {
  if (!to.in_chunks()) {
    out.append(encode_simple_reply(failure.error, to.cookie));
    return;
  }
  const auto text_bytes = narrow<std::uint16_t>(failure.text.size());
  const std::size_t offset_bytes = failure.offset ? sizeof *failure.offset : 0;
  append_chunk_header(out, to, kChunkDone,
                      failure.offset ? ChunkType::error_offset : ChunkType::error,
                      6 + text_bytes + offset_bytes);
  out.append(pack(std::to_underlying(failure.error), text_bytes));
  out.append(std::as_bytes(std::span(failure.text)));
  if (failure.offset) out.append(pack(*failure.offset));
}

}  // namespace mkvirtfs::nbd
