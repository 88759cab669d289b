// SPDX-License-Identifier: BSD-3-Clause
#include "block/content.h"

#include <utility>

namespace mkvirtfs {

// What lies in memory is always at hand.

Result<bool> ContentStore::read_at_once(ContentNo content, std::uint64_t offset,
                                        std::span<std::byte> out) {
  const Result<void> result = read(content, offset, out);
  if (!result) return std::unexpected(result.error());
  return true;
}

bool ContentStore::is_at_hand(ContentNo, std::uint64_t, std::uint64_t) { return true; }

void ContentStore::fetch(ContentNo, std::uint64_t, std::uint64_t) {}

bool ContentStore::keeps_fetched(ContentNo) { return true; }

std::optional<ContentStore::HostFile> ContentStore::host_file(ContentNo) const {
  return std::nullopt;
}

std::uint32_t ContentStore::source_of(ContentNo) const { return 0; }

}  // namespace mkvirtfs
