// SPDX-License-Identifier: BSD-3-Clause
// A journal of ext3 or ext4 alone: blocks of 1 KiB, all of the disk but its first one. What it maps
// lies inside the file system and inside the journal. The input is a SparseDisk.
#include <limits>
#include <memory>

#include "fsgen/disk/journal_map.h"
#include "fuzz_require.h"
#include "sparse_disk.h"
#include "support/log.h"

using namespace mkvirtfs;
using namespace mkvirtfs::disk;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto source = std::make_shared<fuzz::SparseDisk>(std::as_bytes(std::span(data, size)));
  const std::uint64_t disk_blocks = source->size_bytes() / 1024;
  if (disk_blocks == 0) return 0;
  // The file system is larger than its journal.
  const std::uint64_t block_count = 4 * disk_blocks;
  CachedSource disk(source);
  Problems problems("disk", null_log());
  const Result<JournalMap> map =
      JournalMap::read(disk, 1024, block_count, {{0, 1, disk_blocks - 1}}, problems);
  if (!map) {
    FUZZ_REQUIRE(!map.error().what.empty());
    return 0;
  }
  FUZZ_REQUIRE(map->size() < disk_blocks);
  std::uint64_t seen = 0;
  constexpr std::uint64_t kNone = std::numeric_limits<std::uint64_t>::max();
  for (std::uint64_t block = map->next_from(0); block != kNone; block = map->next_from(block + 1)) {
    FUZZ_REQUIRE(block < block_count);
    const auto copy = map->find(block);
    FUZZ_REQUIRE(copy && copy->block != 0 && copy->block < disk_blocks);
    ++seen;
  }
  FUZZ_REQUIRE(seen == map->size());
  return 0;
}
