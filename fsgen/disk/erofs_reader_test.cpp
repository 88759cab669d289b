// SPDX-License-Identifier: BSD-3-Clause
// Images of ours and of mkfs.erofs give their trees back; fsck.erofs is the judge of what
// mkfs.erofs stored.
#include <catch2/catch.hpp>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdio>
#include <string>
#include <vector>

#include "block/image.h"
#include "fsgen/disk/testing/tree_view.h"
#include "fsgen/erofs/plan.h"
#include "tests/support/foreign_tools.h"
#include "tests/support/materialise.h"
#include "tests/support/property.h"
#include "tests/support/random_tree.h"
#include "tests/support/temp_dir.h"

using namespace mkvirtfs;
using namespace mkvirtfs::disk::testing;

namespace {

bool nothing(const std::string&) { return false; }

std::string round_trip(const BuiltTree& source, const erofs::Options& options) {
  const auto image = erofs::plan(source.tree, options);
  if (!image) return image.error().what;
  ImageDevice device(*image, source.store);
  const TempDir place(fast_place());
  write_image(device, place / "image");
  const ReadBack back = read_back(place / "image");
  return back.log + differences(back, source, all_attributes, all_attributes, nothing);
}

std::string words(std::size_t bytes) {
  std::string made;
  for (int i = 0; made.size() < bytes; ++i) made += fmt::format("line {}\n", i * i);
  made.resize(bytes);
  return made;
}

/// What mkfs.erofs stores in each of its ways. 1.5 does not find files with names of 255 bytes.
BuiltTree tree_for_mkfs() {
  TreeBuilder builder;
  builder.directory("d").mode(0700).mtime({1700000000, 123456789});
  builder.file("d/big", words(300'000)).mtime({-5, 7}).file("d/again", words(300'000));
  builder.file("d/inline", "short").xattr("user.note", "value").xattr("user.empty", "");
  builder.file("d/other", "short too").xattr("user.note", "value");
  builder.file("blocks", words(8192)).file("tail", words(8192 + 100)).file("empty", "");
  builder.file("nearly", words(4000)).file("odd", words(12'345));
  builder.symlink("link", "d/big").symlink("long", std::string(3000, 'x'));
  builder.hard_link("d/name", "d/big").fifo("pipe").file(std::string(254, 'n'), "long name");
  for (int i = 0; i < 600; ++i) builder.file(fmt::format("many/name-{:04}", i), "");
  return builder.build();
}

/// Without owners, which are this user's.
std::string view(const SourceTree& tree, NodeNo no) {
  const Node& node = tree.node(no);
  if (no == kRootNode) return "root";
  std::string text = fmt::format("{:06o} {} links {}", node.mode, node.size_bytes,
                                 node.is_directory() ? 1 : node.link_count);
  if (!node.is_directory()) text += fmt::format(" at {}.{:09}", node.mtime_s, node.mtime_ns);
  if (node.is_symlink()) text += std::string(tree.symlink_target(no));
  for (const Xattr& xattr : tree.xattrs(node.xattrs)) text += xattr.name + xattr.value;
  return text;
}

/// mkfs.erofs keeps chunks in a tmpfile(3), and cannot copy them to another file system.
std::filesystem::path place_of_mkfs() { return P_tmpdir; }

/// An image of mkfs.erofs.
std::string make_disk(const TempDir& place, const std::vector<std::string>& options) {
  std::filesystem::create_directory(place / "tree");
  mkvirtfs::testing::materialise(tree_for_mkfs(), place / "tree");
  const std::string disk = (place / "disk").string();
  std::vector<std::string> command = {"mkfs.erofs", "--quiet"};
  command.insert(command.end(), options.begin(), options.end());
  command.insert(command.end(), {disk, (place / "tree").string()});
  must_run(command);
  return disk;
}

}  // namespace

TEST_CASE("random trees come back from EROFS with blocks of any size") {
  mkvirtfs::testing::check_property(60, [] {
    const mkvirtfs::testing::RandomTree tree = *mkvirtfs::testing::random_tree();
    erofs::Options options;
    options.block_bytes =
        *rc::gen::element(512u, 1024u, 2048u, 4096u, 4096u, 16384u, 65536u).as("block size");
    options.tail_packing = *rc::gen::arbitrary<bool>().as("tails");
    options.label = "random";
    const std::string found = round_trip(tree.build(), options);
    if (!found.empty()) RC_FAIL(found);
  });
}

TEST_CASE("an image of mkfs.erofs gives back the directory that it was made of") {
  const BuiltTree source = tree_for_mkfs();
  for (const std::vector<std::string>& options :
       std::vector<std::vector<std::string>>{{},
                                             {"-Eforce-inode-extended"},
                                             {"-Enoinline_data"},
                                             {"--chunksize=4096"},
                                             {"--chunksize=65536", "-Eforce-chunk-indexes"},
                                             {"--chunksize=8192", "-Eforce-inode-blockmap"},
                                             {"-x0"},
                                             {"-x1000"}}) {
    INFO(fmt::format("{}", fmt::join(options, " ")));
    const TempDir place(place_of_mkfs());
    const ReadBack back = read_back(make_disk(place, options));
    CHECK(back.log == "");
    CHECK(back.disk.format == "EROFS");
    CHECK(differences(back, source, view, view, nothing) == "");
  }
}

TEST_CASE("fsck.erofs extracts what the reader finds") {
  const TempDir place(place_of_mkfs());
  const std::string disk = make_disk(place, {"-Eforce-inode-extended"});
  const std::filesystem::path out = place / "out";
  must_run({"fsck.erofs", "--extract=" + out.string(), "--preserve", disk});
  const ReadBack back = read_back(disk);
  const auto found = view_of(*back.layer.tree, view);
  std::size_t compared = 0;
  for (const auto& [path, seen] : found) {
    INFO(path);
    CHECK(std::filesystem::exists(std::filesystem::symlink_status(out / path)));
    if (!back.layer.tree->node(seen.node).is_regular()) continue;
    CHECK(bytes_of(back, path) == read_file(out / path));
    ++compared;
  }
  CHECK(compared > 600);
  const auto last = std::filesystem::recursive_directory_iterator();
  const auto extracted = std::distance(std::filesystem::recursive_directory_iterator(out), last);
  CHECK(static_cast<std::size_t>(extracted) + 1 == found.size());
}

TEST_CASE("compressed files are refused by name, all else of the image is read") {
  const BuiltTree source = tree_for_mkfs();
  for (const std::vector<std::string>& options :
       std::vector<std::vector<std::string>>{{"-zlz4"},
                                             {"-zlz4hc,9", "-C65536"},
                                             {"-zlz4", "-Elegacy-compress"},
                                             {"-zlz4", "-Eztailpacking"}}) {
    INFO(fmt::format("{}", fmt::join(options, " ")));
    const TempDir place(place_of_mkfs());
    const ReadBack back = read_back(make_disk(place, options));
    CHECK(back.disk.problem_count >= 3);
    CHECK_THAT(back.disk.first_problem, Catch::Contains("it is compressed"));
    CHECK_THAT(back.log, Catch::Contains("(/d/big): it is compressed"));
    CHECK(bytes_of(back, "d/inline") == "short");
    CHECK(view_of(*back.layer.tree, view).size() == view_of(*source.tree, view).size());
    const Node* big = back.layer.tree->find_path("d/big");
    REQUIRE(big != nullptr);
    CHECK(big->size_bytes == 300'000);
    std::string byte(1, '\0');
    CHECK_FALSE(back.layer.contents->read(content_no(back.layer.tree->number_of(*big)), 0,
                                          std::as_writable_bytes(std::span(byte))));
  }
}

TEST_CASE("damage of EROFS is reported, and the rest is read") {
  const BuiltTree source = TreeBuilder{}
                               .file("a", words(5000))
                               .file("b", words(9000))
                               .directory("d")
                               .file("d/c", "c")
                               .file("z", words(4096))
                               .build();
  const auto image = erofs::plan(source.tree, {});
  if (!image) FAIL(image.error().what);
  ImageDevice device(*image, source.store);
  const TempDir place(fast_place());
  const std::string disk = (place / "disk").string();
  write_image(device, disk);
  std::string bytes = read_file(disk);
  SECTION("the checksum of the superblock") {
    bytes[1024 + 64] = 'L';  // of the label
    write_file(disk, bytes);
    const ReadBack back = read_back(disk);
    CHECK(back.disk.problem_count == 1);
    CHECK_THAT(back.disk.first_problem,
               Catch::Contains("byte 1024: the checksum of its superblock is wrong"));
    CHECK(bytes_of(back, "d/c") == "c");
  }
  SECTION("a feature that is not known") {
    bytes[1024 + 80] = static_cast<char>(0x80);
    write_file(disk, bytes);
    CHECK_THROWS_WITH(read_back(disk), Catch::Contains("features that are not known: 0x80"));
  }
  SECTION("its end is missing") {
    std::filesystem::resize_file(disk, bytes.size() - 4096);
    const ReadBack back = read_back(disk);
    CHECK(back.disk.problem_count == 1);
    CHECK_THAT(back.disk.first_problem,
               Catch::Contains("(/d/c): it goes on behind the end of the disk"));
    CHECK(bytes_of(back, "b") == words(9000));
  }
  // The names of the root's entries, behind these, which have 12 bytes each.
  const std::size_t names = bytes.find("...abdz");
  REQUIRE(names != std::string::npos);
  SECTION("names in another order") {
    bytes.replace(names, 7, "...zbd~");
    write_file(disk, bytes);
    const ReadBack back = read_back(disk);
    CHECK(back.disk.problem_count == 1);
    CHECK_THAT(back.disk.first_problem, Catch::Contains("\"b\" stands behind \"z\""));
    CHECK(bytes_of(back, "z") == words(5000));
  }
  SECTION("a directory that is in itself") {
    const std::size_t entries = names - std::size_t{6} * 12;
    bytes.replace(entries + std::size_t{4} * 12, 8, bytes.substr(entries, 8));
    write_file(disk, bytes);
    const ReadBack back = read_back(disk);
    CHECK(back.disk.problem_count == 1);
    CHECK_THAT(back.disk.first_problem, Catch::Contains("a directory with a name already"));
    CHECK(back.layer.tree->find_path("d") == nullptr);
  }
}
