// SPDX-License-Identifier: BSD-3-Clause
#include "block/content.h"

#include <utility>

namespace mkvirtfs {

Result<bool> ContentStore::read_at_once(ContentNo, std::uint64_t, std::span<std::byte>) {
  return false;
}

bool ContentStore::is_at_hand(ContentNo, std::uint64_t, std::uint64_t) { return false; }

void ContentStore::fetch(ContentNo, std::uint64_t, std::uint64_t) {}

bool ContentStore::keeps_fetched(ContentNo) { return false; }

void ContentStore::map(ContentNo content, Range range, ExtentSink& sink) {
  if (range.length == 0) return;
  sink.extent({.offset = range.offset,
               .length = range.length,
               .kind = ExtentKind::content,
               .store = this,
               .content = content,
               .content_offset = range.offset});
}

std::optional<ContentStore::HostFile> ContentStore::host_file(ContentNo) const {
  return std::nullopt;
}

std::uint32_t ContentStore::source_of(ContentNo) const { return 0; }

Result<bool> MemoryStore::read_at_once(ContentNo content, std::uint64_t offset,
                                       std::span<std::byte> out) {
  const Result<void> result = read(content, offset, out);
  if (!result) return propagate(result);
  return true;
}

bool MemoryStore::is_at_hand(ContentNo, std::uint64_t, std::uint64_t) { return true; }

bool MemoryStore::keeps_fetched(ContentNo) { return true; }

}  // namespace mkvirtfs
