// SPDX-License-Identifier: BSD-3-Clause
#include "exports/overlay_directory.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "block/overlay/overlay.h"
#include "exports/export_tree.h"
#include "tests/support/collected_log.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs {
namespace {

using mkvirtfs::testing::CollectedLog;

/// A device of zeroes.
class Zeroes final : public BlockDevice {
 public:
  explicit Zeroes(std::uint64_t size_bytes) { geometry_.size_bytes = size_bytes; }
  const Geometry& geometry() const noexcept override { return geometry_; }
  Result<void> read(std::uint64_t, std::span<std::byte> out) override {
    std::ranges::fill(out, std::byte{0});
    return {};
  }
  void map(Range range, ExtentSink& sink) const override {
    sink.extent({.offset = range.offset, .length = range.length});
  }

 private:
  Geometry geometry_;
};

}  // namespace

TEST_CASE("each export has a file of its own, in the directory and nowhere else") {
  struct Pair {
    std::string name;
    std::string file;
  };
  const std::vector<Pair> pairs = {{"", "%.overlay"},
                                   {"job-7", "job-7.overlay"},
                                   {"a.b_C", "a.b_C.overlay"},
                                   {"ci/job 7", "ci%2Fjob%207.overlay"},
                                   {".hidden", "%2Ehidden.overlay"},
                                   {"100%", "100%25.overlay"},
                                   {"%25", "%2525.overlay"},
                                   {"\u00e9", "%C3%A9.overlay"}};
  for (const Pair& pair : pairs) {
    CAPTURE(pair.name);
    const auto file = overlay_file_name(pair.name);
    REQUIRE(file);
    CHECK(*file == pair.file);
    CHECK(export_of_overlay_file(pair.file) == pair.name);
  }
  CHECK(overlay_file_name(std::string(247, 'x')));
  CHECK_FALSE(overlay_file_name(std::string(248, 'x')));
  const auto long_name = overlay_file_name(std::string(4096, '/'));
  REQUIRE_FALSE(long_name);
  CHECK(long_name.error().what.find("too long") != std::string::npos);
}

TEST_CASE("files that are not written as overlays are, belong to no export") {
  for (const char* const name :
       {"", ".overlay", "x", "x.overlay~", ".x.overlay", "a%2fb.overlay", "%.x.overlay",
        "a%2.overlay", "a%.overlay", "%41.overlay", "a b.overlay", "%00.overlay", "%FF.overlay",
        "a%2F..overlay", "%2E%2E%2Fx.overlay", "x%\xff\xff.overlay", "%%.overlay"}) {
    CAPTURE(name);
    CHECK_FALSE(export_of_overlay_file(name));
  }
}

TEST_CASE("a snapshot beside an overlay's file has a name that no other can have") {
  const auto file = branch_file_name("disk.overlay", "before/second");
  REQUIRE(file);
  CHECK(*file == "disk.overlay@before%2Fsecond.overlay");
  CHECK(export_of_branch_file("disk.overlay", *file) == "before/second");
  CHECK_FALSE(export_of_branch_file("disk", *file));
  CHECK_FALSE(export_of_branch_file("other.overlay", *file));
  CHECK_FALSE(export_of_branch_file("disk.overlay", "disk.overlay"));
  CHECK_FALSE(export_of_branch_file("disk.overlay", "disk.overlay@x"));
  CHECK_FALSE(export_of_branch_file("disk.overlay", "disk.overlay@x.overlay.~1~"));
  CHECK(branch_file_name(std::string(200, 'x'), std::string(46, 'y')));
  CHECK_FALSE(branch_file_name(std::string(200, 'x'), std::string(47, 'y')));
}

TEST_CASE("a directory of overlays is made, and the exports of its files are found") {
  const TempDir dir;
  const std::string path = (dir / "overlays").string();
  CollectedLog log;
  const auto kept = [&] { return overlays_in_directory(path, export_of_overlay_file, log); };
  CHECK_FALSE(kept());
  REQUIRE(make_overlay_directory(path + "/"));
  REQUIRE(make_overlay_directory(path));
  for (const char* const name : {"b.overlay", "a%2Fx.overlay", "%.overlay", "notes.txt"}) {
    write_file(path + "/" + name, "");
  }
  const auto found = kept();
  REQUIRE(found);
  CHECK(*found == std::vector<KeptOverlay>{{"", false, ""}, {"a/x", false, ""}, {"b", false, ""}});
  CHECK(log.lines().empty());
  const auto no_parent = make_overlay_directory((dir / "missing" / "overlays").string());
  REQUIRE_FALSE(no_parent);
  CHECK(no_parent.error().code == Errc::usage);
  CHECK_FALSE(make_overlay_directory(path + "/notes.txt"));
}

TEST_CASE("snapshots in a directory are found, and what is left of those that were cut off goes") {
  const TempDir dir;
  const std::string path = dir.path().string();
  CollectedLog log;
  const std::uint64_t size = 100'000;
  {
    auto file = OverlayFile::open(path + "/job-1.overlay", size, ImageId{});
    REQUIRE(file);
    Overlay overlay(std::make_shared<Zeroes>(size), std::move(*file), {});
    REQUIRE(overlay.branch(path + "/then.overlay", "second"));
  }
  // One that was never finished, and the layer of one that somebody removed.
  write_file(path + "/none.overlay.~new~", "");
  std::filesystem::create_hard_link(path + "/job-1.overlay.~1~", path + "/none.overlay.~1~");
  std::filesystem::create_hard_link(path + "/job-1.overlay.~1~", path + "/gone.overlay.~1~");
  const auto kept = overlays_in_directory(path, export_of_overlay_file, log);
  REQUIRE(kept);
  CHECK(*kept == std::vector<KeptOverlay>{{"job-1", false, ""}, {"then", true, "second"}});
  CHECK_FALSE(std::filesystem::exists(path + "/none.overlay.~new~"));
  CHECK_FALSE(std::filesystem::exists(path + "/none.overlay.~1~"));
  CHECK(std::filesystem::exists(path + "/gone.overlay.~1~"));
  REQUIRE(log.lines().size() == 1);
  CHECK(log.lines()[0].find("gone.overlay.~1~: the overlay that lay over it is gone") !=
        std::string::npos);
}

}  // namespace mkvirtfs
