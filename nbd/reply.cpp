// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/reply.h"

#include <span>
#include <utility>

#include "nbd/codec.h"
#include "support/arithmetic.h"

namespace mkvirtfs::nbd {

void append_error(Batch& out, std::uint64_t cookie, const Failure& failure, bool structured) {
  if (!structured) {
    out.append(encode_simple_reply(failure.error, cookie));
    return;
  }
  const auto text_bytes = narrow<std::uint16_t>(failure.text.size());
  const std::uint32_t offset_bytes = failure.offset ? sizeof *failure.offset : 0;
  out.append(encode_chunk_header(kChunkDone,
                                 failure.offset ? ChunkType::error_offset : ChunkType::error,
                                 cookie, 6 + text_bytes + offset_bytes));
  out.append(pack(std::to_underlying(failure.error), text_bytes));
  out.append(std::as_bytes(std::span(failure.text)));
  if (failure.offset) out.append(pack(*failure.offset));
}

}  // namespace mkvirtfs::nbd
