// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/stream/byte_source.h"

namespace mkvirtfs {

// What does not know better always waits: a reader that must not wait then leaves it to a job.
Result<bool> ByteSource::read_at_once(std::uint64_t, std::span<std::byte>) { return false; }

bool ByteSource::is_at_hand(Range) { return false; }

void ByteSource::fetch(Range) {}

bool ByteSource::keeps_fetched() { return false; }

Result<void> ByteSource::recheck(const PinnedFile&) { return {}; }

}  // namespace mkvirtfs
