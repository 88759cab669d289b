// SPDX-License-Identifier: BSD-3-Clause
// Images of ours, of genisoimage and of xorriso give their trees back; bsdtar is the judge.
#include <catch2/catch.hpp>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "block/image.h"
#include "fsgen/archive/archive.h"
#include "fsgen/disk/testing/format_views.h"
#include "fsgen/disk/testing/tree_view.h"
#include "fsgen/image/duplicates.h"
#include "fsgen/iso9660/plan.h"
#include "fsgen/stream/file_source.h"
#include "fsgen/stream/spool.h"
#include "tests/support/foreign_tools.h"
#include "tests/support/materialise.h"
#include "tests/support/property.h"
#include "tests/support/random_tree.h"
#include "tests/support/temp_dir.h"

using namespace mkvirtfs;
using namespace mkvirtfs::disk::testing;

namespace {

bool nothing(const std::string&) { return false; }

template <typename Predicate>
bool any_name(const SourceTree& tree, Predicate is_meant) {
  for (const Directory& directory : tree.directories()) {
    for (const Entry entry : tree.entries(directory)) {
      if (is_meant(tree.name(directory, entry))) return true;
    }
  }
  return false;
}

/// Whether one of U+0300 to U+036F may be in a name.
bool has_combining_marks(const SourceTree& tree) {
  return any_name(tree, [](std::string_view name) {
    return name.find_first_of("\xcc\xcd") != std::string_view::npos;
  });
}

/// What libarchive finds in an image that is otherwise from what our reader finds; empty: nothing.
std::string differences_from_libarchive(const std::string& image, const View& view) {
  const auto source = open_file_source(image, OnChange::error, null_log());
  if (!source) return source.error().what;
  archive::ReadOptions options;
  options.in_process = true;
  StreamOptions stream;
  stream.spool = std::make_shared<SpoolSpace>("/var/tmp", std::uint64_t{1} << 30);
  options.spool = stream.spool;
  const auto judge = archive::read_archive(*source, options, stream, nullptr, null_log());
  if (!judge) return judge.error().what;
  auto layer = archive::make_layer(*judge, {}, stream, null_log());
  if (!layer) return layer.error().what;
  const BuiltTree expected{layer->layer.tree, layer->layer.contents};
  const ReadBack back = read_back(image);
  return back.log + differences(back, expected, view, view, nothing);
}

}  // namespace

TEST_CASE("random trees come back from ISO 9660 with Rock Ridge") {
  mkvirtfs::testing::RandomTreeOptions trees;
  trees.xattrs = false;
  mkvirtfs::testing::check_property(60, [&] {
    const mkvirtfs::testing::RandomTree tree = *mkvirtfs::testing::random_tree(trees);
    iso9660::Options options;
    options.level = *rc::gen::element(1u, 2u, 3u).as("level");
    options.joliet = *rc::gen::element(iso9660::Joliet::none, iso9660::Joliet::standard);
    options.deep =
        *rc::gen::element(iso9660::DeepDirectories::keep, iso9660::DeepDirectories::relocate);
    options.label = "RANDOM";
    const BuiltTree source = tree.build();
    const auto image = iso9660::plan(source.tree, options);
    if (!image) {
      // Files of more than 4 GiB need level 3.
      if (options.level == 3) RC_FAIL(image.error().what);
      return;
    }
    ImageDevice device(*image, source.store);
    const TempDir place(fast_place());
    write_image(device, place / "image");
    const ReadBack back = read_back(place / "image");
    const std::string found =
        back.log + differences(back, source, iso_view, all_attributes, nothing);
    if (!found.empty()) RC_FAIL(found);
  });
}

TEST_CASE("libarchive finds the same in images of genisoimage and xorriso") {
  const TempDir place("/var/tmp");
  std::filesystem::create_directory(place / "tree");
  TreeBuilder builder;
  builder.file("a", "1").hard_link("b", "a").file("empty", "").file("Mixed Case.text", "2");
  builder.file(std::string(200, 'n') + ".txt", "long").file("two", std::string(5000, '2'));
  builder.symlink("link", "d/../a").symlink("absolute", "/etc//passwd").fifo("pipe");
  builder.directory("d").mode(0700).mtime({1700000000, 0}).file("d/f", "f").mode(04755);
  builder.directory("e1/e2/e3/e4/e5/e6/e7/e8/e9").file("e1/e2/e3/e4/e5/e6/e7/e8/e9/f", "deep");
  builder.file("e1/e2/e3/e4/e5/e6/e7/e8/g", "deep").file("gr\xc3\xbc\xc3\x9f", "umlaut");
  builder.symlink("long", std::string(120, 'x') + "/" + std::string(100, 'y'));
  for (int i = 0; i < 300; ++i) builder.file(fmt::format("many/name {:04}", i), "x");
  mkvirtfs::testing::materialise(builder.build(), place / "tree");
  const std::string image = (place / "image").string();
  const std::string tree = (place / "tree").string();
  const std::vector<std::string> genisoimage = {"genisoimage", "-quiet"};
  const std::vector<std::string> xorriso = {"xorriso", "-as", "mkisofs", "-quiet"};
  using Words = std::vector<std::string>;
  for (const auto& [program, options] : std::vector<std::pair<Words, Words>>{
           {genisoimage, {"-R"}},
           {genisoimage, {"-R", "-J"}},
           {genisoimage, {"-r", "-D"}},
           {genisoimage, {"-D"}},
           {genisoimage, {"-D", "-J", "-input-charset", "UTF-8"}},
           {genisoimage, {"-D", "-iso-level", "4"}},
           {genisoimage, {"-D", "-l", "-joliet-long", "-input-charset", "UTF-8"}},
           {xorriso, {"-R"}},
           {xorriso, {"-R", "-J", "-joliet-long"}},
           {xorriso, {"--norock"}},
           {xorriso, {"--norock", "-J"}},
           {xorriso, {"-R", "--hardlinks"}}}) {
    Words command = program;
    command.insert(command.end(), options.begin(), options.end());
    command.insert(command.end(), {"-o", image, tree});
    INFO(fmt::format("{}", fmt::join(command, " ")));
    std::filesystem::remove(image);
    must_run(command);
    CHECK(differences_from_libarchive(image, all_attributes) == "");
  }
}

TEST_CASE("libarchive finds the same in random trees without Rock Ridge, and without Joliet") {
  mkvirtfs::testing::RandomTreeOptions trees;
  trees.xattrs = false;
  trees.most_in_a_crowd = 500;
  trees.most_file_bytes = 1 << 18;
  trees.most_sparse_bytes = 1 << 20;
  // To libarchive the last second of 1969 is none.
  const auto view = [](const SourceTree& tree, NodeNo no) {
    std::string text = all_attributes(tree, no);
    const std::string_view last = " -1.000000000 ";
    const std::size_t at = text.find(last);
    return at == std::string::npos ? text : text.replace(at, last.size(), " 0.000000000 ");
  };
  int compared = 0;
  mkvirtfs::testing::check_property(60, [&] {
    const mkvirtfs::testing::RandomTree tree = *mkvirtfs::testing::random_tree(trees);
    iso9660::Options options;
    options.joliet_characters =
        *rc::gen::element(iso9660::JolietCharacters::ucs2, iso9660::JolietCharacters::utf16);
    const BuiltTree source = tree.build();
    // libarchive takes 103 characters of a name, with its ";1", of which it leaves the ';' then.
    const bool is_cut =
        any_name(*source.tree, [](std::string_view name) { return name.size() > 101; });
    options.joliet = is_cut ? iso9660::Joliet::standard : iso9660::Joliet::longer;
    const auto planned = iso9660::plan(source.tree, options);
    if (!planned) RC_FAIL(planned.error().what);
    ImageDevice device(*planned, source.store);
    const TempDir place(fast_place());
    const std::string image = (place / "image").string();
    write_image(device, image);
    std::string bytes = read_file(image);
    const auto remove = [&](std::string_view text) {
      const std::size_t at = bytes.find(text);
      if (at == std::string::npos) RC_FAIL("nothing to remove");
      bytes.replace(at, text.size(), std::string(text.size(), ' '));
    };
    remove(std::string_view("SP\x07\x01\xbe\xef", 6));
    const bool has_joliet = *rc::gen::arbitrary<bool>().as("Joliet");
    if (!has_joliet) remove("%/E");
    // libarchive composes names of Joliet; Linux and we take them as they are.
    if (has_joliet && has_combining_marks(*source.tree)) return;
    ++compared;
    write_file(image, bytes);
    const ReadBack back = read_back(image);
    if (back.disk.format != (has_joliet ? "ISO 9660 with Joliet" : "ISO 9660")) {
      RC_FAIL(back.disk.format);
    }
    const std::string found = differences_from_libarchive(image, view);
    if (!found.empty()) RC_FAIL(found);
  });
  CHECK(compared >= 20);
}

TEST_CASE("devices of genisoimage and xorriso have their numbers") {
  const BuiltTree source = TreeBuilder{}
                               .device("console", 'c', {5, 1})
                               .device("disk", 'b', {8, 17})
                               .device("large", 'c', {4, 300})
                               .device("null", 'c', {0, 7})
                               .build();
  if (!mkvirtfs::testing::may_materialise(source)) return;
  const TempDir place("/var/tmp");
  std::filesystem::create_directory(place / "tree");
  mkvirtfs::testing::materialise(source, place / "tree");
  const std::string image = (place / "image").string();
  for (const std::vector<std::string>& program : std::vector<std::vector<std::string>>{
           {"genisoimage", "-quiet"}, {"xorriso", "-as", "mkisofs", "-quiet"}}) {
    INFO(program.front());
    std::vector<std::string> command = program;
    command.insert(command.end(), {"-R", "-o", image, (place / "tree").string()});
    std::filesystem::remove(image);
    must_run(command);
    CHECK(differences(read_back(image), source, all_attributes, all_attributes, nothing) == "");
  }
}

TEST_CASE("files of zisofs are refused by name, all else of the image is read") {
  const TempDir place("/var/tmp");
  std::filesystem::create_directory(place / "tree");
  write_file(place / "tree/text", std::string(100'000, 'x'));
  write_file(place / "tree/short", "short");
  const std::string disk = (place / "disk").string();
  must_run({"xorriso", "-outdev", disk, "-zisofs", "level=6:block_size=32k", "-map",
            (place / "tree").string(), "/", "-set_filter_r", "--zisofs", "/", "--", "-commit"});
  const ReadBack back = read_back(disk);
  CHECK(back.disk.problem_count == 1);
  CHECK_THAT(back.disk.first_problem, Catch::Contains("the record of /text: it is compressed"));
  CHECK(bytes_of(back, "short") == "short");
}

TEST_CASE("files in one place are one file only where Rock Ridge counts links") {
  const BuiltTree source = TreeBuilder{}
                               .file("a", "same")
                               .file("b", "same")
                               .hard_link("c", "a")
                               .fifo("p")
                               .hard_link("q", "p")
                               .build();
  iso9660::Options options;
  auto duplicates = find_duplicates(*source.tree, *source.store);
  REQUIRE(duplicates);
  REQUIRE_FALSE(duplicates->empty());
  options.duplicates = std::move(*duplicates);
  const auto image = iso9660::plan(source.tree, options);
  REQUIRE(image);
  ImageDevice device(*image, source.store);
  const TempDir place(fast_place());
  write_image(device, place / "image");
  CHECK(differences(read_back(place / "image"), source, all_attributes, all_attributes, nothing) ==
        "");
}

TEST_CASE("damage of ISO 9660 is reported, and the rest is read") {
  const BuiltTree source = TreeBuilder{}
                               .file("a", std::string(5000, 'a'))
                               .file("b", "b")
                               .directory("d")
                               .file("d/c", "c")
                               .build();
  const auto image = iso9660::plan(source.tree, {});
  REQUIRE(image);
  ImageDevice device(*image, source.store);
  const TempDir place(fast_place());
  const std::string disk = (place / "disk").string();
  write_image(device, disk);
  std::string bytes = read_file(disk);
  // The record of a file whose identifier is this.
  const auto record_of = [&](std::string_view identifier) {
    const std::size_t at = bytes.find(identifier);
    REQUIRE(at != std::string::npos);
    return at - 33;
  };
  const auto read_changed = [&] {
    write_file(disk, bytes);
    return read_back(disk);
  };
  SECTION("a file behind the end of the disk") {
    bytes[record_of("A.;1") + 5] = 1;
    const ReadBack back = read_changed();
    CHECK(back.disk.problem_count == 1);
    CHECK_THAT(back.disk.first_problem,
               Catch::Contains("the record of /a: it goes on behind the end of the disk"));
    CHECK(bytes_of(back, "d/c") == "c");
  }
  SECTION("an interleaved file") {
    bytes[record_of("A.;1") + 26] = 1;
    CHECK_THAT(read_changed().disk.first_problem, Catch::Contains("/a: its bytes are interleaved"));
  }
  SECTION("a record that is too long") {
    bytes[record_of("B.;1")] = '\xff';
    bytes[record_of("B.;1") + 32] = '\xff';
    const ReadBack back = read_changed();
    CHECK(back.disk.problem_count == 1);
    CHECK_THAT(back.disk.first_problem, Catch::Contains("directory /: a record"));
    CHECK(bytes_of(back, "a") == std::string(5000, 'a'));
  }
  SECTION("a directory that is in itself") {
    const std::size_t root = 16 * 2048 + 156;
    // The volume's number stands before the length of the name; path tables have none.
    const std::string end_of_record("\x01\0\0\x01\x01\x44", 6);
    const std::size_t at = bytes.find(end_of_record) - 28;
    bytes.replace(at + 2, 16, bytes.substr(root + 2, 16));
    const ReadBack back = read_changed();
    CHECK(back.disk.problem_count == 1);
    CHECK_THAT(back.disk.first_problem, Catch::Contains("/d: it is a directory with a name"));
    CHECK(bytes_of(back, "b") == "b");
  }
  SECTION("a mode of no type") {
    const std::size_t at = bytes.find("PX", record_of("B.;1"));
    bytes[at + 5] = 0;
    const ReadBack back = read_changed();
    CHECK_THAT(back.disk.first_problem, Catch::Contains("/b: its mode 000244 is of no type"));
    CHECK(back.layer.tree->find_path("b") == nullptr);
  }
  SECTION("the volume descriptor") {
    bytes[16 * 2048 + 129] = 9;
    CHECK_THROWS_WITH(read_changed(), Catch::Contains("blocks of 2304 bytes"));
  }
}
