// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/tree/source_tree.h"

#include <catch2/catch.hpp>

#include <vector>

#include "fsgen/tree/listing.h"
#include "fsgen/tree/tree_builder.h"

using namespace mkvirtfs;

namespace {

NewNode directory() {
  NewNode node;
  node.mode = S_IFDIR | 0755;
  return node;
}

NewNode file(std::uint64_t size_bytes) {
  NewNode node;
  node.mode = S_IFREG | 0644;
  node.size_bytes = size_bytes;
  return node;
}

}  // namespace

TEST_CASE("a tree is numbered breadth first and finds its names") {
  TreeAssembler assembler(directory());
  assembler.open_directory(DirectoryNo{0});
  assembler.add("a", directory());
  const NodeNo b = assembler.add("b", file(3));
  assembler.open_directory(DirectoryNo{1});
  assembler.add_link("again", b);
  assembler.add("z", file(7));
  const SourceTree tree = std::move(assembler).finish();

  CHECK(tree.node_count() == 4);
  CHECK(tree.path(NodeNo{2}) == "b");
  CHECK(tree.path(NodeNo{3}) == "a/z");
  CHECK(tree.node(b).link_count == 2);
  REQUIRE(tree.find_path("a/again") != nullptr);
  CHECK(tree.find_path("a/again") == &tree.node(b));
  CHECK(tree.find_path("a/nothing") == nullptr);
  CHECK(tree.find_path("b/c") == nullptr);
}

TEST_CASE("sparse files keep their runs and dense ones store none") {
  TreeAssembler assembler(directory());
  assembler.open_directory(DirectoryNo{0});
  const std::vector<Range> runs = {{4096, 4096}, {65536, 100}};
  NewNode sparse = file(1 << 20);
  sparse.sparse = true;
  sparse.data_runs = runs;
  const NodeNo with_holes = assembler.add("s", sparse);
  const NodeNo without = assembler.add("t", file(10));
  const SourceTree tree = std::move(assembler).finish();
  Range dense;
  CHECK(tree.data_runs(with_holes, dense).size() == 2);
  REQUIRE(tree.data_runs(without, dense).size() == 1);
  CHECK(tree.data_runs(without, dense)[0] == Range{0, 10});
}

TEST_CASE("the id sees every attribute and nothing else") {
  const auto id_with = [](auto change) {
    TreeAssembler assembler(directory());
    assembler.open_directory(DirectoryNo{0});
    NewNode node = file(5);
    node.xattrs = assembler.intern({{"user.a", "1"}, {"user.b", "2"}});
    change(node);
    assembler.add("f", node);
    return std::move(assembler).finish().id();
  };
  const TreeId same = id_with([](NewNode&) {});
  CHECK(id_with([](NewNode&) {}) == same);
  CHECK(id_with([](NewNode& node) { node.mode ^= 1; }) != same);
  CHECK(id_with([](NewNode& node) { node.uid = 1; }) != same);
  CHECK(id_with([](NewNode& node) { node.mtime.nanoseconds = 1; }) != same);
  CHECK(id_with([](NewNode& node) { node.xattrs = 0; }) != same);
  CHECK(id_with([](NewNode& node) { node.sparse = true; }) != same);
}

TEST_CASE("an order of data is completed, cleaned, and forgotten when it says nothing") {
  // / has a (empty), b, c, d/ and e; d/ has f and, once more, b.
  using Order = std::vector<std::uint32_t>;
  const auto order_of = [](const Order& given) {
    TreeAssembler assembler(directory());
    assembler.open_directory(DirectoryNo{0});
    assembler.add("a", file(0));
    const NodeNo b = assembler.add("b", file(1));
    assembler.add("c", file(2));
    assembler.add("d", directory());
    assembler.add("e", file(3));
    assembler.open_directory(DirectoryNo{1});
    assembler.add_link("b", b);
    assembler.add("f", file(4));
    assembler.set_data_order({given.begin(), given.end()});
    const SourceTree tree = std::move(assembler).finish();
    return Order(tree.data_order().begin(), tree.data_order().end());
  };
  CHECK(order_of({}).empty());
  CHECK(order_of({6, 5, 3, 2}) == Order{6, 5, 3, 2});
  CHECK(order_of({5, 2}) == Order{5, 2, 3, 6});
  // The root, the empty file and the directory have no data; the second time says nothing new.
  CHECK(order_of({6, 0, 1, 4, 6, 3, 2, 3}) == Order{6, 3, 2, 5});
  CHECK(order_of({2, 3, 5, 6}).empty());
  CHECK(order_of({2}).empty());
}

TEST_CASE("the id does not see the order of data") {
  const TreeBuilder builder = TreeBuilder{}.file("a", "1").file("b", "2");
  const BuiltTree plain = builder.build();
  const BuiltTree ordered = TreeBuilder(builder).data_order({"b"}).build();
  REQUIRE(ordered.tree->data_order().size() == 2);
  CHECK(ordered.tree->id() == plain.tree->id());
  CHECK(to_listing(*ordered.tree) == to_listing(*plain.tree));
}

TEST_CASE("equal sets of attributes are stored once") {
  TreeAssembler assembler(directory());
  const XattrSetNo one = assembler.intern({{"user.b", "2"}, {"user.a", "1"}});
  CHECK(assembler.intern({{"user.a", "1"}, {"user.b", "2"}}) == one);
  CHECK(assembler.intern({{"user.a", "1"}}) != one);
  CHECK(assembler.intern({}) == 0);
}
