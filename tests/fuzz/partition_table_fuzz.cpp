// SPDX-License-Identifier: BSD-3-Clause
// Partition tables. The input is a SparseDisk. Whatever the bytes are: an error of one line, or
// partitions of which those without a problem lie inside the disk and have no byte in common.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "fsgen/disk/partition_table.h"
#include "fuzz_require.h"
#include "sparse_disk.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace mkvirtfs;
  fuzz::SparseDisk source(std::as_bytes(std::span(data, size)));
  const auto table = disk::read_partition_table(source);
  if (!table) {
    FUZZ_REQUIRE(!table.error().what.empty());
    return 0;
  }
  if (!*table) return 0;
  std::vector<Range> ranges;
  for (const disk::Partition& each : (*table)->partitions) {
    FUZZ_REQUIRE(each.number >= 1);
    const auto found = disk::find_partition(**table, source, std::to_string(each.number));
    FUZZ_REQUIRE(found.has_value() == each.problem.empty());
    if (each.problem.empty()) ranges.push_back(each.range);
  }
  std::ranges::sort(ranges, {}, &Range::offset);
  std::uint64_t end = 1;
  for (const Range& range : ranges) {
    FUZZ_REQUIRE(range.length != 0 && range.offset >= end);
    end = range.end();
    FUZZ_REQUIRE(end <= source.size_bytes());
  }
  static_cast<void>(disk::find_partition(**table, source, "root"));
  return 0;
}
