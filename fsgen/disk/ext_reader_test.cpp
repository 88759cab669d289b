// SPDX-License-Identifier: BSD-3-Clause
// Images of ours and of mke2fs give their trees back; debugfs and e2fsck are the judges of what is
// in the journal.
#include <catch2/catch.hpp>

#include <fmt/format.h>

#include <fstream>
#include <string>
#include <tuple>

#include "block/image.h"
#include "fsgen/disk/testing/format_views.h"
#include "fsgen/disk/testing/tree_view.h"
#include "fsgen/ext2/plan.h"
#include "tests/support/foreign_tools.h"
#include "tests/support/materialise.h"
#include "tests/support/property.h"
#include "tests/support/random_tree.h"
#include "tests/support/temp_dir.h"

using namespace mkvirtfs;
using namespace mkvirtfs::disk::testing;

namespace {

bool is_lost_found(const std::string& path) { return path == "lost+found"; }

std::string round_trip(const BuiltTree& source, const ext2::Options& options) {
  const auto image = ext2::plan(source.tree, options);
  if (!image) return image.error().what;
  ImageDevice device(*image, source.store);
  const TempDir place(fast_place());
  write_image(device, place / "image");
  const bool has_own = source.tree->find_path("lost+found") != nullptr;
  return differences(read_back(place / "image"), source, ext_view(options.inode_bytes),
                     all_attributes,
                     [&](const std::string& path) { return !has_own && is_lost_found(path); });
}

std::string pattern(std::size_t size, char seed) {
  std::string bytes(size, '\0');
  for (std::size_t i = 0; i < size; ++i) {
    bytes[i] = static_cast<char>(seed + static_cast<char>(i % 251));
  }
  return bytes;
}

/// An ext4 of mke2fs with the files `a` (8 blocks) and `b`.
void make_disk(const TempDir& place, const std::string& options) {
  std::filesystem::create_directory(place / "tree");
  write_file(place / "tree/a", pattern(32768, 'a'));
  write_file(place / "tree/b", pattern(5000, 'b'));
  must_run({"mke2fs", "-q", "-t", "ext4", "-b", "4096", "-O", options, "-d",
            (place / "tree").string(), (place / "disk").string(), "16M"});
}

std::string first_block_of(const TempDir& place, const std::string& file) {
  const Ran ran = run_tool({"debugfs", "-R", "bmap " + file + " 0", (place / "disk").string()});
  const std::size_t line = ran.output.find_last_of('\n', ran.output.size() - 2);
  return ran.output.substr(line == std::string::npos ? 0 : line + 1);
}

}  // namespace

TEST_CASE("random trees come back from every shape of ext") {
  for (const auto variant : {ext2::Variant::ext2, ext2::Variant::ext3, ext2::Variant::ext4}) {
    mkvirtfs::testing::check_property(20, [variant] {
      const mkvirtfs::testing::RandomTree tree = *mkvirtfs::testing::random_tree();
      ext2::Options options;
      options.variant = variant;
      options.block_bytes = *rc::gen::element(1024u, 2048u, 4096u).as("block size");
      options.inode_bytes = *rc::gen::element(128u, 256u).as("inode size");
      options.free = FreeBytes{1 << 20};
      const BuiltTree built = tree.build();
      const std::string found = round_trip(built, options);
      if (!found.empty()) RC_FAIL(found);
    });
  }
}

TEST_CASE("an image of mke2fs gives back the directory that it was made of") {
  const BuiltTree source =
      TreeBuilder{}
          .directory("d")
          .mode(0700)
          .patterned_file("d/big", 3 << 20)
          // It ends with data: mke2fs 1.47.0 loses a hole at the end with inline_data.
          .sparse_file("d/holes", (30 << 20) + 8192, {{8 << 20, 4096}, {30 << 20, 8192}})
          .file("d/small", "inline?")
          .file("d/medium", std::string(120, 'm'))
          .file("empty", "")
          .symlink("short", "d/big")
          .symlink("long", std::string(400, 'x'))
          .hard_link("d/again", "d/big")
          .fifo("pipe")
          .file("x", "1")
          .xattr("user.note", "value")
          .build();
  const TempDir place(fast_place());
  std::filesystem::create_directory(place / "tree");
  mkvirtfs::testing::materialise(source, place / "tree");
  const auto no_owner = [](const SourceTree& tree, NodeNo no) {
    const Node& node = tree.node(no);
    std::string text = fmt::format("{:06o} {} links {}", node.mode, node.size_bytes,
                                   node.is_directory() ? 1 : node.link_count);
    if (node.is_symlink()) text += std::string(tree.symlink_target(no));
    for (const Xattr& xattr : tree.xattrs(node.xattrs)) text += xattr.name + xattr.value;
    return no == kRootNode ? std::string("root") : text;
  };
  for (const std::string features : {"none", "^metadata_csum", "inline_data", "^extents,^64bit",
                                     "bigalloc", "^resize_inode,meta_bg", "ea_inode"}) {
    for (const std::string block_bytes : {"1024", "4096"}) {
      INFO(features << " " << block_bytes);
      std::vector<std::string> words = {"mke2fs", "-q",        "-F", "-t", "ext4",
                                        "-b",     block_bytes, "-I", "256"};
      if (features != "none") words.insert(words.end(), {"-O", features});
      words.insert(words.end(),
                   {"-d", (place / "tree").string(), (place / "disk").string(), "32M"});
      must_run(words);
      CHECK(differences(read_back(place / "disk"), source, no_owner, no_owner, is_lost_found) ==
            "");
    }
  }
}

TEST_CASE("what the journal still holds counts, as e2fsck would replay it") {
  for (const std::string options : {"^metadata_csum,^64bit", "metadata_csum,64bit"}) {
    INFO(options);
    const TempDir place(fast_place());
    make_disk(place, options);
    const std::uint64_t a = std::stoull(first_block_of(place, "/a"));
    // One block that begins with the journal's magic, one that is revoked later, one written twice.
    std::string news = std::string("\xc0\x3b\x39\x98", 4) + pattern(4092, 'n') +
                       pattern(4096, 'o') + pattern(4096, 'p');
    write_file(place / "news", news);
    write_file(place / "newer", pattern(4096, 'q'));
    const std::string csum = options.starts_with("metadata_csum") ? "jo -c -v 3\n" : "jo\n";
    write_file(place / "commands", fmt::format("{}jw -b {},{},{} {}\njw -r {}\njw -b {} {}\njc\n",
                                               csum, a, a + 1, a + 2, (place / "news").string(),
                                               a + 1, a + 2, (place / "newer").string()));
    must_run({"debugfs", "-w", "-f", (place / "commands").string(), (place / "disk").string()});
    std::filesystem::copy_file(place / "disk", place / "replayed");
    const Ran replayed =
        run_tool({"e2fsck", "-E", "journal_only", "-y", (place / "replayed").string()});
    INFO(replayed.output);
    must_run({"debugfs", "-R", fmt::format("dump /a {}", (place / "judge").string()),
              (place / "replayed").string()});
    const std::string judge = read_file(place / "judge");
    const std::string before = pattern(32768, 'a');
    REQUIRE(judge != before);
    const ReadBack back = read_back(place / "disk");
    CHECK(back.disk.problem_count == 0);
    CHECK(bytes_of(back, "a") == judge);
    CHECK(bytes_of(back, "b") == pattern(5000, 'b'));
    // The same as the replayed image, which has nothing in its journal.
    CHECK(bytes_of(read_back(place / "replayed"), "a") == judge);
    CHECK(judge.substr(0, 4096) == news.substr(0, 4096));
    CHECK(judge.substr(4096, 4096) == before.substr(4096, 4096));
    CHECK(judge.substr(8192, 4096) == pattern(4096, 'q'));
  }
}

TEST_CASE("chattr flags are left out, and counted") {
  const TempDir place(fast_place());
  make_disk(place, "^metadata_csum");
  const std::string disk = (place / "disk").string();
  CHECK(read_back(disk).log == "");
  must_run({"debugfs", "-w", "-R", "sif /b flags 0x80010", disk});
  CHECK_THAT(read_back(disk).log,
             Catch::Contains("chattr flags (i, a, d, c) of 1 entry are left out"));
  must_run({"debugfs", "-w", "-R", "sif /a flags 0x80040", disk});
  const ReadBack back = read_back(disk);
  CHECK_THAT(back.log, Catch::Contains("of 2 entries are left out"));
  CHECK(back.disk.problem_count == 0);
  CHECK(bytes_of(back, "b") == pattern(5000, 'b'));
}

TEST_CASE("damage is reported, and the rest is read") {
  const TempDir place(fast_place());
  make_disk(place, "^metadata_csum");
  const std::string disk = (place / "disk").string();
  SECTION("a block outside the file system") {
    must_run({"debugfs", "-w", "-R", "sif /a block[5] 0xfffffff", disk});
    const ReadBack back = read_back(disk);
    CHECK(back.disk.problem_count == 1);
    CHECK_THAT(back.disk.first_problem,
               Catch::Contains("(/a)") && Catch::Contains("outside the file system"));
    CHECK(bytes_of(back, "b") == pattern(5000, 'b'));
    const Node* a = back.layer.tree->find_path("a");
    REQUIRE(a != nullptr);
    CHECK(a->size_bytes == 32768);
    std::string bytes(1, '\0');
    const auto read = back.layer.contents->read(content_no(back.layer.tree->number_of(*a)), 0,
                                                std::as_writable_bytes(std::span(bytes)));
    REQUIRE_FALSE(read);
    CHECK(read.error().code == Errc::unreadable);
    CHECK_THAT(read.error().what, Catch::Contains("a: byte"));
  }
  SECTION("an entry that names no inode") {
    std::string bytes = read_file(disk);
    const std::size_t name = bytes.find(std::string("\x01\x01") + "b");
    REQUIRE(name != std::string::npos);
    bytes.replace(name - 6, 4, std::string("\x00\x09\x3d\x00", 4));
    write_file(disk, bytes);
    const ReadBack back = read_back(disk);
    CHECK(back.disk.problem_count == 1);
    CHECK_THAT(back.disk.first_problem, Catch::Contains("/b names inode 4000000"));
    CHECK(bytes_of(back, "a") == pattern(32768, 'a'));
  }
  SECTION("a directory with two names") {
    must_run({"debugfs", "-w", "-R", "mkdir /d", disk});
    must_run({"debugfs", "-w", "-R", "ln /d /d/loop", disk});
    const ReadBack back = read_back(disk);
    CHECK(back.disk.problem_count == 1);
    CHECK_THAT(back.disk.first_problem, Catch::Contains("a directory with a name already"));
    CHECK(back.layer.tree->find_path("d") != nullptr);
    CHECK(back.layer.tree->find_path("d/loop") == nullptr);
  }
  SECTION("its end is missing") {
    std::filesystem::resize_file(disk, 8 << 10);
    CHECK_THROWS_WITH(read_back(disk), Catch::Contains("disk"));
  }
}
