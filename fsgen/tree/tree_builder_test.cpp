// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/tree/tree_builder.h"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "fsgen/tree/listing.h"
#include "fsgen/tree/memory_contents.h"
#include "tests/support/property.h"
#include "tests/support/random_tree.h"

using namespace mkvirtfs;

namespace {

std::string bytes_of(const BuiltTree& built, std::string_view path, std::uint64_t offset,
                     std::size_t size) {
  const Node* node = built.tree->find_path(path);
  REQUIRE(node != nullptr);
  const auto content = content_no(built.tree->number_of(*node));
  std::string out(size, '?');
  REQUIRE(built.store->read(content, offset, std::as_writable_bytes(std::span(out))));
  return out;
}

std::string complaint_about(std::string_view listing) {
  const auto parsed = TreeBuilder::parse(listing);
  if (parsed) return "";
  CHECK(parsed.error().code == Errc::usage);
  return parsed.error().what;
}

}  // namespace

TEST_CASE("a builder sorts, numbers and fills in parents") {
  const BuiltTree built = TreeBuilder{}
                              .file("b/x", "hello")
                              .mode(0600)
                              .owner(1, 2)
                              .directory("b")
                              .mode(0700)
                              .file("b!", "")
                              .symlink("a", "b/x")
                              .hard_link("b/again", "b/x")
                              .device("dev/null", 'c', {1, 3})
                              .root()
                              .mode(0711)
                              .xattr("user.root", "yes")
                              .build();
  CHECK(to_listing(*built.tree) ==
        "dir . mode=0711 owner=0:0 mtime=0 user.root=796573\n"
        "symlink a mode=0777 owner=0:0 mtime=0 to=b/x\n"
        "dir b mode=0700 owner=0:0 mtime=0\n"
        "file b! mode=0644 owner=0:0 mtime=0 size=0\n"
        "dir dev mode=0755 owner=0:0 mtime=0\n"
        "file b/again mode=0600 owner=1:2 mtime=0 size=5\n"
        "hardlink b/x to=b/again\n"
        "char dev/null mode=0644 owner=0:0 mtime=0 device=1:3\n");
  CHECK(built.tree->find_path("b/x")->link_count == 2);
  CHECK(bytes_of(built, "b/x", 1, 3) == "ell");
}

TEST_CASE("patterns are never zero, follow path and offset, and leave holes empty") {
  const BuiltTree built = TreeBuilder{}
                              .patterned_file("p", std::uint64_t{1} << 40)
                              .patterned_file("q", 100)
                              .sparse_file("s", 1000, {{10, 20}, {100, 50}, {990, 10}})
                              .sparse_file("hole", 1000, {})
                              .build();
  const std::string whole = bytes_of(built, "p", 12345, 1000);
  CHECK(std::ranges::count(whole, '\0') == 0);
  for (const std::size_t from : {0U, 1U, 3U, 7U, 8U, 500U}) {
    CHECK(bytes_of(built, "p", 12345 + from, 13) == whole.substr(from, 13));
  }
  CHECK(bytes_of(built, "p", (std::uint64_t{1} << 40) - 8, 8) != bytes_of(built, "p", 0, 8));
  CHECK(bytes_of(built, "q", 0, 64) != bytes_of(built, "p", 0, 64));

  std::string expected(1000, '\0');
  for (const auto& [from, count] : {std::pair{10, 20}, {100, 50}, {990, 10}}) {
    fill_pattern("s", static_cast<std::uint64_t>(from),
                 std::as_writable_bytes(std::span(expected))
                     .subspan(static_cast<std::size_t>(from), static_cast<std::size_t>(count)));
  }
  CHECK(bytes_of(built, "s", 0, 1000) == expected);
  CHECK(bytes_of(built, "s", 15, 120) == expected.substr(15, 120));
  CHECK(bytes_of(built, "s", 40, 30) == std::string(30, '\0'));
  CHECK(bytes_of(built, "hole", 0, 1000) == std::string(1000, '\0'));
}

TEST_CASE("a listing that was written reads back as the same tree") {
  std::string every_byte;
  for (int c = 1; c < 256; ++c) {
    if (c != '/') every_byte += static_cast<char>(c);
  }
  const BuiltTree built = TreeBuilder{}
                              .file(every_byte, "x")
                              .mtime({-1, 500'000'000})
                              .xattr("user.a=b c\n", std::string("\0\xff", 2))
                              .xattr("security.capability", "")
                              .symlink("d/link", every_byte + "/" + every_byte)
                              .mtime({15'000'000'000, 999'999'999})
                              .sparse_file("d/s", 1 << 20, {{4096, 1}, {8192, 4096}})
                              .sparse_file("d/hole", 77, {})
                              .hard_link("0", "d/s")
                              .device("d/block", 'b', {4095, 1048575})
                              .owner(4294967295, 65536)
                              .fifo("d/e/fifo")
                              .mode(07777)
                              .socket("d/e/socket")
                              .build();
  const std::string listing = to_listing(*built.tree);
  const auto parsed = TreeBuilder::parse(listing);
  REQUIRE(parsed);
  const BuiltTree again = parsed->build();
  CHECK(to_listing(*again.tree) == listing);
  CHECK(again.tree->id() == built.tree->id());
  CHECK(bytes_of(again, "0", 8192, 4096) == bytes_of(built, "d/s", 8192, 4096));
}

TEST_CASE("any tree's listing reads back as the same tree") {
  mkvirtfs::testing::check_property(50, [] {
    mkvirtfs::testing::RandomTreeOptions options;
    options.run_unit_bytes = 1;
    options.most_in_a_crowd = 100;
    const BuiltTree built = (*mkvirtfs::testing::random_tree(options)).build();
    const auto parsed = TreeBuilder::parse(to_listing(*built.tree));
    RC_ASSERT(parsed.has_value());
    RC_ASSERT(parsed->build().tree->id() == built.tree->id());
  });
}

TEST_CASE("a listing's defaults, quotes and escapes") {
  const auto parsed = TreeBuilder::parse(
      "# a comment\n"
      "\n"
      "   file \"with space\" content=\"a \\\"b\\\"\\n\\x00\" \n"
      "file deep/down size=2K\n"
      "file empty content=\n"
      "dir . mode=0700\n"
      "symlink s to=\"two words\" mtime=-7");
  REQUIRE(parsed);
  const BuiltTree built = parsed->build();
  CHECK(to_listing(*built.tree) ==
        "dir . mode=0700 owner=0:0 mtime=0\n"
        "dir deep mode=0755 owner=0:0 mtime=0\n"
        "file empty mode=0644 owner=0:0 mtime=0 size=0\n"
        "symlink s mode=0777 owner=0:0 mtime=-7 to=two\\x20words\n"
        "file with\\x20space mode=0644 owner=0:0 mtime=0 size=7\n"
        "file deep/down mode=0644 owner=0:0 mtime=0 size=2048\n");
  CHECK(bytes_of(built, "with space", 0, 7) == std::string("a \"b\"\n\0", 7));
}

TEST_CASE("a listing that makes no sense is refused with its line") {
  CHECK_THAT(complaint_about("dir a\nfile a/b\n"), Catch::StartsWith("tree listing, line 2: "));
  const std::vector<std::string> wrong = {
      "thing a",
      "file",
      "file /a size=1",
      "file a//b size=1",
      "file a/ size=1",
      "file . size=1",
      "file a/../b size=1",
      "file a\\x00b size=1",
      "file " + std::string(256, 'n') + " size=1",
      "file a size=1\nfile a size=1",
      "file a size=1\nfile a/b size=1",
      "file a/b size=1\nfile a size=1",
      "dir a\ndir a",
      "file a size=1 content=x",
      "file a content=x runs=0+1",
      "file a size=",
      "file a size=-1",
      "file a size=16E",
      "file a size=1 size=1",
      "file a size=1 nonsense=1",
      "file a size=1 to=b",
      "file a size=1 mode=10000",
      "file a size=1 mode=8",
      "file a size=1 mode",
      "file a size=1 owner=1",
      "file a size=1 owner=4294967296:0",
      "file a size=1 mtime=1.5",
      "file a size=1 mtime=x",
      "file a size=10 runs=",
      "file a size=10 runs=0+11",
      "file a size=10 runs=0+0",
      "file a size=10 runs=5+1,0+1",
      "file a size=10 runs=0+5,5+1",
      "file a size=10 runs=18446744073709551615+2",
      "file a size=1 user.x=0",
      "file a size=1 user.x=zz",
      "file a size=1 user.x=00 user.x=01",
      "file a size=1 user." + std::string(255, 'x') + "=00",
      "symlink a",
      "symlink a to=",
      "symlink a to=" + std::string(4096, 't'),
      "char a",
      "char a device=5",
      "block a device=4096:0",
      "block a device=0:1048576",
      "fifo a size=1",
      "hardlink a",
      "hardlink a to=b",
      "hardlink a to=a",
      "hardlink a to=d\ndir d",
      "hardlink a to=b mode=0644\nfile b size=1",
      "hardlink a to=b\nhardlink b to=c\nfile c size=1",
      "file a content=\"open",
      "file a content=\\q",
      "file a content=\\x1",
      "file \\",
  };
  for (const std::string& listing : wrong) {
    CAPTURE(listing);
    CHECK(complaint_about(listing) != "");
  }
}
