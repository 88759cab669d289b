// SPDX-License-Identifier: BSD-3-Clause
// What is extracted scans as the tree that it came from; and nothing outside the target is touched.
#include "compose/extract.h"

#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <string>

#include "fsgen/host/scan.h"
#include "fsgen/tree/listing.h"
#include "fsgen/tree/tree_builder.h"
#include "tests/support/collected_log.h"
#include "tests/support/materialise.h"
#include "tests/support/property.h"
#include "tests/support/random_tree.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs {
namespace {

namespace fs = std::filesystem;

struct Done {
  ExtractSummary summary;
  std::string log;
};

Done extracted(const BuiltTree& built, const fs::path& target, std::string_view from = "") {
  testing::CollectedLog log;
  ExtractOptions options;
  options.log = &log;
  const Node* node = built.tree->find_path(from);
  REQUIRE(node != nullptr);
  const Result<ExtractSummary> done =
      extract(*built.tree, *built.store, built.tree->number_of(*node), target.string(), options);
  if (!done) FAIL(done.error().what);
  return {*done, log.text()};
}

std::shared_ptr<const SourceTree> scanned(const fs::path& directory) {
  Result<Scan> scan = scan_directory(directory.string(), {}, null_log());
  if (!scan) FAIL(scan.error().what);
  return scan->tree;
}

}  // namespace

TEST_CASE("random trees are extracted as they are") {
  testing::check_property(25, [] {
    const testing::RandomTree tree = *testing::random_tree();
    const BuiltTree built = tree.build();
    if (!testing::may_materialise(built)) return;
    const TempDir place(fast_place());
    const Done done = extracted(built, place / "target");
    RC_ASSERT(done.log.empty());
    RC_ASSERT(done.summary.failure_count == 0u);
    const std::shared_ptr<const SourceTree> found = scanned(place / "target");
    RC_ASSERT(to_listing(*found) == to_listing(*built.tree));
    RC_ASSERT(found->id() == built.tree->id());
  });
}

TEST_CASE("bytes and holes are where they were, and links are links") {
  const BuiltTree built = TreeBuilder{}
                              .patterned_file("d/big", 3'000'001)
                              .sparse_file("d/holes", 10 << 20, {{1 << 20, 4096}})
                              .hard_link("again", "d/big")
                              .symlink("s", "../outside")
                              .build();
  const TempDir place(fast_place());
  const Done done = extracted(built, place / "t");
  CHECK(done.summary.entry_count == 5);
  CHECK(done.summary.data_bytes == 3'000'001 + 4096);
  const auto original = [&](std::string_view path) {
    const Node& node = *built.tree->find_path(path);
    std::string bytes(node.size_bytes, '\0');
    REQUIRE(built.store->read(content_no(built.tree->number_of(node)), 0,
                              std::as_writable_bytes(std::span(bytes))));
    return bytes;
  };
  CHECK(read_file(place / "t/d/big") == original("d/big"));
  CHECK(read_file(place / "t/d/holes") == original("d/holes"));
  struct stat holes{};
  REQUIRE(::stat((place / "t/d/holes").c_str(), &holes) == 0);
  CHECK(holes.st_blocks * 512 < 1 << 20);
  CHECK(fs::equivalent(place / "t/again", place / "t/d/big"));
  CHECK(fs::read_symlink(place / "t/s") == "../outside");
}

TEST_CASE("a directory of a tree, or one entry, is extracted alone") {
  const BuiltTree built = TreeBuilder{}
                              .file("a/b/c", "c")
                              .file("x", "x")
                              .hard_link("a/b/d", "x")
                              .hard_link("a/b/e", "x")
                              .build();
  const TempDir place(fast_place());
  CHECK(extracted(built, place / "b", "a/b").summary.entry_count == 3);
  CHECK(read_file(place / "b/c") == "c");
  CHECK(fs::equivalent(place / "b/d", place / "b/e"));
  CHECK_FALSE(fs::exists(place / "b/x"));
  CHECK(extracted(built, place / "one", "a/b/c").summary.entry_count == 1);
  CHECK(read_file(place / "one/c") == "c");
}

TEST_CASE("what is in the target stays, and no symlink in it leads out") {
  const BuiltTree built =
      TreeBuilder{}.file("d/inner/file", "new").file("file", "new").file("dir/x", "new").build();
  const TempDir place(fast_place());
  fs::create_directories(place / "elsewhere/inner");
  fs::create_directories(place / "t/dir");
  write_file(place / "t/dir/old", "old");
  fs::create_directory_symlink(place / "elsewhere", place / "t/d");
  fs::create_symlink(place / "elsewhere/file", place / "t/file");
  const Done done = extracted(built, place / "t");
  CHECK(done.summary.failure_count == 2);
  CHECK(fs::is_empty(place / "elsewhere/inner"));
  CHECK_FALSE(fs::exists(place / "elsewhere/file"));
  CHECK(read_file(place / "t/dir/old") == "old");
  CHECK(read_file(place / "t/dir/x") == "new");
  CHECK_THAT(done.log, Catch::Contains("d: cannot be made, and all below it is left out") &&
                           Catch::Contains("file: cannot be made: File exists"));
}

TEST_CASE("a file that cannot be read to its end is not left there") {
  class Failing final : public MemoryStore {
   public:
    Result<void> read(ContentNo, std::uint64_t offset, std::span<std::byte>) override {
      if (offset == 0) return {};
      return fail(Errc::unreadable, "block 7 is beyond the end");
    }
    Result<Pin> pin(ContentNo) override { return Pin{}; }
    Result<void> recheck(ContentNo, const PinnedFile&) override { return {}; }
    std::string name(ContentNo) const override { return ""; }
  };
  const BuiltTree built = TreeBuilder{}.patterned_file("f", 3 << 20).file("g", "1").build();
  Failing store;
  const TempDir place(fast_place());
  testing::CollectedLog log;
  ExtractOptions options;
  options.log = &log;
  const auto done = extract(*built.tree, store, kRootNode, (place / "t").string(), options);
  REQUIRE(done);
  CHECK(done->failure_count == 1);
  CHECK_THAT(log.text(), Catch::Contains("f: cannot be read: block 7 is beyond the end"));
  CHECK_FALSE(fs::exists(place / "t/f"));
  CHECK(fs::exists(place / "t/g"));
}

TEST_CASE("who is not root gives no file away, and makes none run as somebody else") {
  const BuiltTree built = TreeBuilder{}.file("sh", "x").mode(06755).owner(0, 0).build();
  const TempDir place(fs::temp_directory_path());
  fs::permissions(place.path(), fs::perms{0777});
  const bool was_root = ::geteuid() == 0;
  if (was_root) REQUIRE((::setegid(65534) == 0 && ::seteuid(65534) == 0));
  testing::CollectedLog log;
  ExtractOptions options;
  options.log = &log;
  const auto done = extract(*built.tree, *built.store, kRootNode, (place / "t").string(), options);
  if (was_root) REQUIRE((::seteuid(0) == 0 && ::setegid(0) == 0));
  REQUIRE(done);
  struct stat status{};
  REQUIRE(::stat((place / "t/sh").c_str(), &status) == 0);
  CHECK((status.st_mode & 07777) == 0755);
  CHECK(done->other_owner_count == 2);  // and the directory
  CHECK_THAT(log.text(), Catch::Contains("sh: its set-ID bits are not restored"));
}

TEST_CASE("a target that cannot be made is an error") {
  const BuiltTree built = TreeBuilder{}.file("f", "1").build();
  const TempDir place(fast_place());
  write_file(place / "file", "");
  for (const std::string target : {"file", "none/below"}) {
    const auto done = extract(*built.tree, *built.store, kRootNode, (place / target).string(), {});
    REQUIRE_FALSE(done);
    CHECK(done.error().code == Errc::io);
  }
}

}  // namespace mkvirtfs
