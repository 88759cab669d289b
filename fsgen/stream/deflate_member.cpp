// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/stream/deflate_member.h"

#include <utility>

#include "fsgen/stream/indexing_reader.h"

namespace mkvirtfs {

Result<void> DeflateMember::read(std::uint64_t offset, std::span<std::byte> out) {
  const Result<ByteSource*> source = indexed();
  if (!source) return propagate(source);
  return (*source)->read(offset, out);
}

Result<bool> DeflateMember::read_at_once(std::uint64_t offset, std::span<std::byte> out) {
  ByteSource* const source = indexed_if_there();
  return source != nullptr ? source->read_at_once(offset, out) : Result<bool>(out.empty());
}

bool DeflateMember::is_at_hand(Range range) {
  ByteSource* const source = indexed_if_there();
  return source != nullptr ? source->is_at_hand(range) : range.length == 0;
}

void DeflateMember::fetch(Range range) {
  if (const Result<ByteSource*> source = indexed()) (*source)->fetch(range);
}

Result<ByteSource*> DeflateMember::indexed() {
  if (ByteSource* const source = indexed_if_there()) return source;
  const MutexLock lock(mutex_);
  if (!indexed_) {
    // A member that is damaged is decoded again by the next read: it may have been the disk.
    auto pass = begin_pass(input_, options_, Expected{size_bytes_, crc32_});
    if (!pass) return propagate(pass);
    auto source = (*pass)->finish();
    if (!source) return propagate(source);
    indexed_ = std::move(*source);
    indexed_now_.store(indexed_.get(), std::memory_order_release);
  }
  return indexed_.get();
}

}  // namespace mkvirtfs
