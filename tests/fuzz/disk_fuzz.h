// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "fsgen/archive/archive.h"
#include "fsgen/disk/read_disk.h"
#include "fuzz_require.h"
#include "sparse_disk.h"
#include "support/log.h"

namespace mkvirtfs::fuzz {

/// The bytes of a file's beginning and of its end are the same twice, or an error.
inline void read_twice(const Layer& layer, NodeNo no) {
  const std::uint64_t size = layer.tree->node(no).size_bytes;
  std::vector<std::byte> once(std::min<std::uint64_t>(size, 5000));
  std::vector<std::byte> again(once.size());
  for (const std::uint64_t offset : {std::uint64_t{0}, size - once.size()}) {
    const Result<void> read = layer.contents->read(content_no(no), offset, once);
    const Result<void> reread = layer.contents->read(content_no(no), offset, again);
    FUZZ_REQUIRE(read.has_value() == reread.has_value());
    FUZZ_REQUIRE(!read || once == again);
    FUZZ_REQUIRE(read || !read.error().what.empty());
  }
}

/// Whatever the bytes are: a list of members that lie inside the disk, or an error of one line.
inline void read_a_disk(std::span<const std::byte> input, disk::DiskFormat format) {
  const auto source = std::make_shared<SparseDisk>(input);
  static_cast<void>(disk::detect(*source));
  const archive::ReadLimits limits{3000, std::uint64_t{1} << 40};
  Result<disk::ReadDisk> read = disk::read_disk_here(source, format, limits, null_log());
  if (!read) {
    FUZZ_REQUIRE(!read.error().what.empty());
    return;
  }
  FUZZ_REQUIRE((read->problem_count == 0) == read->first_problem.empty());
  const auto bytes = read->members.bytes();
  FUZZ_REQUIRE(archive::MemberLog::open({bytes.begin(), bytes.end()}));
  archive::Archive archive;
  archive.name = "disk";
  archive.members = std::move(read->members);
  archive.stream = source;
  FUZZ_REQUIRE(archive::check_places(archive, limits));
  const Result<archive::ArchiveLayer> made = archive::make_layer(archive, {}, {}, null_log());
  FUZZ_REQUIRE(made || !made.error().what.empty());
  if (!made) return;
  const SourceTree& tree = *made->layer.tree;
  const std::uint32_t count = std::min<std::uint32_t>(tree.node_count(), 200);
  for (NodeNo no; no < count; ++no) {
    if (tree.node(no).is_regular()) read_twice(made->layer, no);
  }
}

}  // namespace mkvirtfs::fuzz
