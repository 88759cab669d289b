// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/fat32/layout.h"

#include <catch2/catch.hpp>

using namespace mkvirtfs;
using namespace mkvirtfs::fat32;

TEST_CASE("a width has the cluster counts of the specification and no other") {
  const auto legal = [](Width width, std::uint32_t clusters) {
    return layout_of_clusters({width, 512, 512, width == Width::fat32 ? 0u : 512u}, clusters)
        .is_legal();
  };
  CHECK(legal(Width::fat12, 1));
  CHECK(legal(Width::fat12, 4084));
  CHECK_FALSE(legal(Width::fat12, 4085));
  CHECK_FALSE(legal(Width::fat16, 4084));
  CHECK(legal(Width::fat16, 4085));
  CHECK(legal(Width::fat16, 65524));
  CHECK_FALSE(legal(Width::fat16, 65525));
  CHECK_FALSE(legal(Width::fat32, 65524));
  CHECK(legal(Width::fat32, 65525));
  CHECK(legal(Width::fat32, 0x0FFFFFF5));
  CHECK_FALSE(legal(Width::fat32, 0x0FFFFFF6));
}

TEST_CASE("the smallest FAT32 volume") {
  const Layout layout = layout_of_clusters({Width::fat32, 512, 512, 0}, 65525);
  CHECK(layout.fat_sectors == 512);  // 65,527 entries of 4 bytes
  CHECK(layout.reserved_sectors == 32);
  CHECK(layout.size_bytes() == 34'089'472);
  CHECK(layout.cluster_offset(kFirstCluster) == (32 + 2 * 512) * 512);
}

TEST_CASE("a volume ends at 2^32 - 1 sectors") {
  const Shape shape{Width::fat32, 512, 32768, 0};
  const auto largest = layout_in_sectors(shape, 0xFFFFFFFF);
  REQUIRE(largest);
  CHECK(largest->is_legal());
  CHECK_FALSE(layout_of_clusters(shape, largest->cluster_count + 1).is_legal());
}

TEST_CASE("clusters fill the sectors, their FAT is long enough, and they begin at a page") {
  for (const Width width : {Width::fat12, Width::fat16, Width::fat32}) {
    for (const std::uint32_t sector_bytes : {512u, 1024u, 2048u, 4096u}) {
      for (std::uint64_t sectors = 200; sectors < 2'000'000; sectors += 1 + sectors / 7) {
        const Shape shape{width, sector_bytes, sector_bytes * 2, width == Width::fat32 ? 0u : 512u};
        const auto layout = layout_in_sectors(shape, sectors);
        REQUIRE(layout);
        CAPTURE(sectors, sector_bytes, layout->cluster_count);
        REQUIRE(layout->total_sectors() <= sectors);
        REQUIRE(layout_of_clusters(shape, layout->cluster_count + 1).total_sectors() > sectors);
        const std::uint64_t bits = width == Width::fat12 ? 12 : width == Width::fat16 ? 16 : 32;
        REQUIRE((layout->cluster_count + std::uint64_t{2}) * bits <=
                std::uint64_t{layout->fat_sectors} * sector_bytes * 8);
        REQUIRE(layout->cluster_offset(kFirstCluster) % 4096 == 0);
      }
    }
  }
  CHECK_FALSE(layout_in_sectors({Width::fat32, 512, 512, 0}, 30));
}

TEST_CASE("diskettes are as everybody formats them") {
  struct Known {
    std::uint64_t kib;
    std::uint32_t clusters, fat_sectors, root_entries;
    std::uint8_t media;
  };
  // Numbers of clusters as DOS has them.
  for (const Known& known : {Known{360, 354, 2, 112, 0xFD}, Known{720, 713, 3, 112, 0xF9},
                             Known{1200, 2371, 7, 224, 0xF9}, Known{1440, 2847, 9, 224, 0xF0},
                             Known{2880, 2863, 9, 240, 0xF0}}) {
    const auto floppy = floppy_layout(known.kib * 1024);
    REQUIRE(floppy);
    CAPTURE(known.kib);
    CHECK(floppy->cluster_count == known.clusters);
    CHECK(floppy->fat_sectors == known.fat_sectors);
    CHECK(floppy->root_entries == known.root_entries);
    CHECK(floppy->media == known.media);
    CHECK(floppy->reserved_sectors == 1);
    CHECK(floppy->is_legal());
  }
  CHECK_FALSE(floppy_layout(1'000'000));
}

TEST_CASE("clusters are as large as is usual") {
  constexpr std::uint64_t kMi = 1 << 20;
  CHECK(usual_cluster_bytes(260 * kMi) == 512);
  CHECK(usual_cluster_bytes(260 * kMi + 1) == 4096);
  CHECK(usual_cluster_bytes(8192 * kMi) == 4096);
  CHECK(usual_cluster_bytes(16384 * kMi) == 8192);
  CHECK(usual_cluster_bytes(32768 * kMi) == 16384);
  CHECK(usual_cluster_bytes(32768 * kMi + 1) == 32768);
}
