// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/tree/followed_symlinks.h"

#include <catch2/catch.hpp>
#include <span>
#include <string>
#include <vector>

#include "fsgen/tree/listing.h"
#include "fsgen/tree/tree_builder.h"
#include "tests/support/hinted_text.h"

using namespace mkvirtfs;

namespace {

Result<FollowedTree> followed(const TreeBuilder& builder) {
  const BuiltTree built = builder.build();
  Layer layer;
  layer.tree = built.tree;
  layer.contents = built.store;
  return follow_symlinks(layer);
}

Layer good(const TreeBuilder& builder) {
  Result<FollowedTree> made = followed(builder);
  INFO((made ? "" : made.error().what));
  REQUIRE(made);
  return std::move(made->layer);
}

std::string refusal(const TreeBuilder& builder) {
  const Result<FollowedTree> made = followed(builder);
  REQUIRE_FALSE(made);
  return hinted_text(made.error());
}

std::string bytes_at(const Layer& layer, std::string_view path) {
  const Node* const node = layer.tree->find_path(path);
  REQUIRE(node != nullptr);
  std::string bytes(node->size_bytes, '?');
  REQUIRE(layer.contents->read(content_no(layer.tree->number_of(*node)), 0,
                               std::as_writable_bytes(std::span(bytes))));
  return bytes;
}

}  // namespace

TEST_CASE("what symlinks lead to stands in their place: a file once more, a copy of a directory") {
  TreeBuilder builder;
  builder.file("real/file", "bytes")
      .owner(3, 4)
      .xattr("user.note", "n")
      .file("real/deep/er", "more");
  builder.sparse_file("real/holes", 1 << 20, {{4096, 100}}).fifo("real/pipe");
  builder.device("null", 'c', {1, 3}).hard_link("second", "real/file");
  TreeBuilder expected = builder;
  builder.symlink("to-file", "real/file").symlink("copy", "real").symlink("abs", "/real/file");
  builder.symlink("chain", "copy/deep/../file").symlink("real/deep/up", "../../null");
  // Of the copy, too, files have the numbers of those that are copied.
  expected.hard_link("to-file", "real/file").hard_link("abs", "real/file");
  expected.hard_link("chain", "real/file").hard_link("real/deep/up", "null");
  expected.hard_link("copy/file", "real/file").hard_link("copy/deep/er", "real/deep/er");
  expected.hard_link("copy/holes", "real/holes").hard_link("copy/pipe", "real/pipe");
  expected.hard_link("copy/deep/up", "null");
  const Layer layer = good(builder);
  CHECK(to_listing(*layer.tree) == to_listing(*expected.build().tree));
  CHECK(layer.tree->id() == expected.build().tree->id());
  for (const char* path : {"abs", "chain", "copy/file", "real/file", "second", "to-file"}) {
    CHECK(bytes_at(layer, path) == "bytes");
  }
  CHECK(bytes_at(layer, "copy/deep/er") == "more");
}

TEST_CASE("each symlink that is followed is listed, those in copies of directories, too") {
  TreeBuilder builder;
  builder.file("real/file", "bytes").symlink("real/up", "../other").file("other", "o");
  builder.symlink("copy", "real").symlink("chain", "copy/up");
  const Result<FollowedTree> made = followed(builder);
  REQUIRE(made);
  std::string text;
  for (const Difference& link : made->links) {
    text += link.kind + " " + link.path + " " + link.what + "\n";
  }
  CHECK(text ==
        "followed chain is a copy of /other\n"
        "followed copy is a copy of /real\n"
        "followed copy/up is a copy of /other\n"
        "followed real/up is a copy of /other\n");
}

TEST_CASE("files stand in the source's order of data, and a tree without symlinks stays itself") {
  TreeBuilder builder;
  builder.file("a", "1").file("b", "2").file("c", "3").data_order({"c", "a"});
  const BuiltTree plain = builder.build();
  Layer layer;
  layer.tree = plain.tree;
  layer.contents = plain.store;
  CHECK(follow_symlinks(layer)->layer.tree == plain.tree);
  CHECK(follow_symlinks(layer)->links.empty());
  const Layer linked = good(builder.symlink("0", "b"));
  std::string order;
  for (const NodeNo no : linked.tree->data_order()) order += linked.tree->path(no);
  CHECK(order == "ca0");
}

TEST_CASE("symlinks that lead nowhere are refused by name") {
  const auto [target, said] = GENERATE(table<std::string, std::string>({
      {"none", "d/link is a symlink to what is not in the source: none"},
      {"file/x", "d/link is a symlink to what is not in the source: file/x"},
      {"../..", "d/link is a symlink that leads out of the source: ../.."},
      {"link", "d/link is a symlink that leads in a circle: link"},
      {"..", "d/link is a symlink that leads in a circle: .."},
      {".", "d/link is a symlink that leads in a circle: ."},
  }));
  CHECK(refusal(TreeBuilder{}.file("d/file", "x").symlink("d/link", target)) ==
        said + " [symlinks=keep] [exclude]");
}

TEST_CASE("symlinks that multiply a tree come to an end") {
  TreeBuilder builder;
  builder.file("0/file", "x");
  for (int level = 1; level <= 24; ++level) {
    for (const char* name : {"/a", "/b"}) {
      builder.symlink(std::to_string(level) + name, "../" + std::to_string(level - 1));
    }
  }
  CHECK_THAT(refusal(builder), Catch::Contains("with all symlinks followed there are more than"));
}
