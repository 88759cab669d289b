// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/ext2/group_layout.h"

#include <catch2/catch.hpp>

#include <algorithm>
#include <vector>

#include "fsgen/ext2/inode_time.h"
#include "fsgen/image/crc32c.h"

using namespace mkvirtfs;
using namespace mkvirtfs::ext2;

namespace {

Parameters parameters_of(bool flex_bg, std::uint32_t block_bytes, bool sparse_super = true) {
  Parameters parameters;
  parameters.block_bytes = block_bytes;
  parameters.flex_bg = flex_bg;
  parameters.sixty_four_bit = flex_bg;
  parameters.sparse_super = sparse_super;
  return parameters;
}

}  // namespace

TEST_CASE("space numbers and block numbers are each other's inverse") {
  for (const bool flex_bg : {false, true}) {
    for (const bool sparse_super : {false, true}) {
      for (const std::uint32_t block_bytes : {1024u, 2048u, 4096u}) {
        const Parameters parameters = parameters_of(flex_bg, block_bytes, sparse_super);
        const std::uint64_t blocks = 60ull * parameters.blocks_per_group() + 5000;
        const GroupLayout layout(parameters, blocks, 2048);
        CAPTURE(flex_bg, sparse_super, block_bytes);
        REQUIRE(layout.group_count() == 61);
        BlockNo previous;
        for (SpaceNo space; space < layout.space_end(); space += 1 + space.value() % 97) {
          const BlockNo block = layout.block_at(space);
          REQUIRE(layout.space_below(block) == space);
          REQUIRE((space == SpaceNo{0} || block > previous));
          const std::uint64_t at = block - layout.group_start(layout.group_of(block));
          REQUIRE(at >= layout.overhead(layout.group_of(block)));
          const std::uint64_t run = layout.contiguous_from(space);
          REQUIRE(layout.block_at(space + (run - 1)) == block + (run - 1));
          if (space + run < layout.space_end()) {
            REQUIRE(layout.block_at(space + run) > block + run);
          }
          previous = block;
        }
      }
    }
  }
}

TEST_CASE("fixed metadata never overlap, whatever the features") {
  for (const bool flex_bg : {false, true}) {
    const Parameters parameters = parameters_of(flex_bg, 1024);
    const GroupLayout layout(parameters, 30ull * 8192 + 1,
                             8192);  // tables of 2048 blocks: cut by copies if allowed
    std::vector<std::pair<BlockNo, BlockNo>> taken;
    for (GroupNo group; group < GroupNo{layout.group_count()}; ++group) {
      if (layout.has_superblock(group)) {
        taken.emplace_back(layout.group_start(group),
                           layout.group_start(group) + (1 + layout.descriptor_blocks()));
      }
      taken.emplace_back(layout.block_bitmap(group), layout.block_bitmap(group) + 1);
      taken.emplace_back(layout.inode_bitmap(group), layout.inode_bitmap(group) + 1);
      taken.emplace_back(layout.inode_table(group),
                         layout.inode_table(group) + layout.inode_table_blocks());
    }
    std::ranges::sort(taken);
    for (std::size_t i = 1; i < taken.size(); ++i) CHECK(taken[i - 1].second <= taken[i].first);
    CHECK(taken.back().second <= BlockNo{layout.block_count()});
  }
}

TEST_CASE("superblock copies stand in groups 0, 1 and powers of 3, 5 and 7") {
  const GroupLayout layout(parameters_of(true, 4096), 400ull * 32768, 16);
  std::vector<std::uint32_t> groups;
  for (GroupNo group; group < GroupNo{layout.group_count()}; ++group) {
    if (layout.has_superblock(group)) groups.push_back(group.value());
  }
  CHECK(groups == std::vector<std::uint32_t>{0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125, 243, 343});
}

TEST_CASE("a last group too small for itself is left away") {
  const Parameters parameters = parameters_of(false, 4096);
  CHECK(GroupLayout::usable_block_count(parameters, 2ull * 32768 + 60, 1024) == 2ull * 32768);
  CHECK(GroupLayout::usable_block_count(parameters, 2ull * 32768 + 2 + 64 + 50, 1024) ==
        2ull * 32768 + 2 + 64 + 50);
}

TEST_CASE("inode times say what e2fsprogs reads back") {
  CHECK(to_inode_time({0, 0}).seconds == 0);
  CHECK(to_inode_time({-1, 5}).seconds == 0xFFFFFFFF);
  CHECK(to_inode_time({-1, 5}).extra == 5 << 2);
  CHECK(to_inode_time({std::int64_t{1} << 31, 0}).extra == 1);
  CHECK(to_inode_time({kNewestInodeSecond + 1, 0}).extra == ((999'999'999u << 2) | 3));
  CHECK(to_small_inode_time({std::int64_t{1} << 40, 7}).seconds == 0x7FFFFFFF);
  CHECK(to_small_inode_time({-(std::int64_t{1} << 40), 7}).seconds == 0x80000000);
}

TEST_CASE("CRC-32C of the standard's nine digits, in any pieces") {
  const std::string_view digits = "123456789";
  const auto bytes = std::as_bytes(std::span(digits));
  CHECK(~crc32c(~0u, bytes) == 0xE3069283);
  for (std::size_t cut = 0; cut <= bytes.size(); ++cut) {
    CHECK(~crc32c(crc32c(~0u, bytes.first(cut)), bytes.subspan(cut)) == 0xE3069283);
  }
}
