// SPDX-License-Identifier: BSD-3-Clause
// The reader behind its wall finds what it finds in this process, and no damage of metadata makes
// it hang or crash.
#include <catch2/catch.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "block/image.h"
#include "fsgen/disk/disk_job.h"
#include "fsgen/erofs/plan.h"
#include "fsgen/ext2/plan.h"
#include "fsgen/fat32/plan.h"
#include "fsgen/iso9660/plan.h"
#include "fsgen/stream/file_source.h"
#include "fsgen/tree/tree_builder.h"
#include "tests/support/foreign_tools.h"
#include "tests/support/temp_dir.h"

using namespace mkvirtfs;
using namespace mkvirtfs::disk;

namespace {

constexpr std::array kFormats{DiskFormat::ext, DiskFormat::fat, DiskFormat::erofs, DiskFormat::iso};

helper::HelperSettings helper_settings() {
  helper::HelperSettings settings;
  settings.path = MKVIRTFS_READER;
  settings.memory_bytes = std::uint64_t{256} << 20;
  return settings;
}

BuiltTree source() {
  TreeBuilder builder;
  builder.patterned_file("dir/file", 100'000).file("dir/other", "other").hard_link("x", "dir/file");
  builder.file("a", "1").xattr("user.note", "value").symlink("s", "dir/file");
  builder.sparse_file("holes", 300'000, {{100'352, 4096}, {200'704, 8192}});
  for (int i = 0; i < 400; ++i) builder.file(fmt::format("many/name-{:04}", i), "");
  return builder.build();
}

class MemoryDisk final : public ByteSource {
 public:
  explicit MemoryDisk(std::string bytes) : bytes_(std::move(bytes)) {}
  std::uint64_t size_bytes() const noexcept override { return bytes_.size(); }
  Result<void> read(std::uint64_t offset, std::span<std::byte> out) override {
    const auto all = std::as_bytes(std::span(bytes_));
    std::ranges::copy(all.subspan(offset, out.size()), out.begin());
    return {};
  }
  std::string name() const override { return "disk"; }

 private:
  const std::string bytes_;
};

std::string image_of(DiskFormat format) {
  const BuiltTree built = source();
  std::shared_ptr<const PlannedImage> image;
  if (format == DiskFormat::ext) {
    ext2::Options options;
    options.variant = ext2::Variant::ext4;
    options.block_bytes = 1024;
    options.size_bytes = 4 << 20;
    const auto planned = ext2::plan(built.tree, options);
    if (!planned) FAIL(planned.error().what);
    image = *planned;
  } else if (format == DiskFormat::erofs) {
    erofs::Options options;
    options.block_bytes = 1024;
    options.tail_packing = true;
    const auto planned = erofs::plan(built.tree, options);
    if (!planned) FAIL(planned.error().what);
    image = *planned;
  } else if (format == DiskFormat::iso) {
    const auto planned = iso9660::plan(built.tree, {});
    if (!planned) FAIL(planned.error().what);
    image = *planned;
  } else {
    fat32::Options options;
    options.size_bytes = 1 << 20;
    const auto planned = fat32::plan(built.tree, options);
    if (!planned) FAIL(planned.error().what);
    image = *planned;
  }
  ImageDevice device(image, built.store);
  const TempDir place(fast_place());
  write_image(device, place / "image");
  return read_file(place / "image");
}

}  // namespace

TEST_CASE("the helper finds what this process would find") {
  for (const DiskFormat format : kFormats) {
    const auto disk = std::make_shared<MemoryDisk>(image_of(format));
    const auto found_format = detect(*disk);
    REQUIRE(found_format);
    CHECK(*found_format == format);
    const auto here = read_disk_here(disk, format, {}, null_log());
    REQUIRE(here);
    const auto there = read_disk(disk, format, {}, helper_settings(), null_log());
    REQUIRE(there);
    CHECK(std::ranges::equal(here->members.bytes(), there->members.bytes()));
    CHECK(there->format == here->format);
    CHECK(there->problem_count == 0);
  }
}

TEST_CASE("limits hold behind the wall") {
  const auto disk = std::make_shared<MemoryDisk>(image_of(DiskFormat::ext));
  const auto few = read_disk(disk, DiskFormat::ext, {100, 1 << 30}, helper_settings(), null_log());
  REQUIRE_FALSE(few);
  CHECK(few.error().code == Errc::does_not_fit);
  const auto small =
      read_disk(disk, DiskFormat::ext, {10'000, 5000}, helper_settings(), null_log());
  REQUIRE_FALSE(small);
  CHECK_THAT(small.error().what, Catch::Contains("more than 5000 bytes"));
}

namespace {

void read_mutations_of(DiskFormat format) {
  std::mt19937_64 random(20261130);
  const std::string good = image_of(format);
  // What is not zero is metadata, and 100,000 bytes of a file.
  std::vector<std::size_t> places;
  for (std::size_t at = 0; at < good.size(); ++at) {
    if (good[at] != 0) places.push_back(at);
  }
  std::size_t refused = 0;
  std::size_t with_problems = 0;
  for (int i = 0; i < 1500; ++i) {
    std::string bad = good;
    const int count = 1 + static_cast<int>(random() % 4);
    for (int n = 0; n < count; ++n) {
      const std::size_t at = places[random() % places.size()];
      switch (random() % 3) {
        case 0:
          bad[at] = static_cast<char>(bad[at] ^ (1 << (random() % 8)));
          break;
        case 1:
          bad[at] = static_cast<char>(random());
          break;
        default:
          bad.replace(at & ~std::size_t{3}, 4, "\xff\xff\xff\xff", 4);
          break;
      }
    }
    const auto start = std::chrono::steady_clock::now();
    const auto read =
        read_disk_here(std::make_shared<MemoryDisk>(std::move(bad)), format, {}, null_log());
    if (!read) {
      ++refused;
      CHECK_FALSE(read.error().what.empty());
    } else if (read->problem_count != 0) {
      ++with_problems;
      CHECK_FALSE(read->first_problem.empty());
    }
    CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(20));
  }
  // The mutations did something.
  CHECK(refused + with_problems > 20);
}

}  // namespace

TEST_CASE("mutated images of ext are read or refused, and never hang") {
  read_mutations_of(DiskFormat::ext);
}
TEST_CASE("mutated images of FAT are read or refused, and never hang") {
  read_mutations_of(DiskFormat::fat);
}
TEST_CASE("mutated images of EROFS are read or refused, and never hang") {
  read_mutations_of(DiskFormat::erofs);
}
TEST_CASE("mutated images of ISO 9660 are read or refused, and never hang") {
  read_mutations_of(DiskFormat::iso);
}
