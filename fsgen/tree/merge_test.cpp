// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/tree/merge.h"

#include <catch2/catch.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "fsgen/tree/listing.h"
#include "fsgen/tree/tree_builder.h"
#include "tests/support/hinted_text.h"
#include "tests/support/property.h"

using namespace mkvirtfs;

namespace {

NodeNo number_of(const SourceTree& tree, std::string_view path) {
  const Node* node = tree.find_path(path);
  REQUIRE(node != nullptr);
  return tree.number_of(*node);
}

Layer layer_of(const TreeBuilder& builder, const std::vector<std::string>& implied = {}) {
  const BuiltTree built = builder.build();
  Layer layer;
  layer.tree = built.tree;
  layer.contents = built.store;
  for (const std::string& path : implied) {
    layer.implied_directories.push_back(number_of(*built.tree, path));
  }
  std::ranges::sort(layer.implied_directories);
  return layer;
}

std::vector<PlacedLayer> placed(std::vector<Layer> layers) {
  std::vector<PlacedLayer> all;
  for (Layer& layer : layers) all.push_back({std::move(layer), "", ""});
  return all;
}

Layer merged(std::vector<Layer> layers) {
  Result<Layer> result = merge_layers(placed(std::move(layers)));
  INFO((result ? std::string() : result.error().what));
  REQUIRE(result.has_value());
  return *result;
}

std::string bytes_of(const Layer& layer, NodeNo no) {
  std::string bytes(layer.tree->node(no).size_bytes, '?');
  const Result<void> read = layer.contents->read(
      content_no(no), 0, std::as_writable_bytes(std::span(bytes.data(), bytes.size())));
  return read ? bytes : read.error().what;
}

std::string bytes_at(const Layer& layer, std::string_view path) {
  return bytes_of(layer, number_of(*layer.tree, path));
}

std::string error_of(std::vector<PlacedLayer> layers) {
  const Result<Layer> result = merge_layers(std::move(layers));
  REQUIRE(!result.has_value());
  return hinted_text(result.error());
}

}  // namespace

TEST_CASE("directories merge, and the later layer's attributes count unless they are implied") {
  const Layer base = layer_of(TreeBuilder{}
                                  .directory("etc")
                                  .owner(1, 1)
                                  .file("etc/a", "base")
                                  .file("etc/b", "base")
                                  .directory("usr")
                                  .owner(2, 2));
  const Layer top =
      layer_of(TreeBuilder{}.directory("etc").owner(3, 3).file("etc/b", "top").file("usr/c", "top"),
               {"", "usr"});
  const Layer both = merged({base, top});
  CHECK(both.tree->find_path("etc")->uid == 3);
  CHECK(both.tree->find_path("usr")->uid == 2);
  CHECK(bytes_at(both, "etc/a") == "base");
  CHECK(bytes_at(both, "etc/b") == "top");
  CHECK(bytes_at(both, "usr/c") == "top");
  CHECK(both.implied_directories.empty());
  CHECK(both.contents->name(content_no(number_of(*both.tree, "usr/c"))) == "usr/c");
}

TEST_CASE("what is no directory replaces, and is replaced by one") {
  const Layer base = layer_of(
      TreeBuilder{}.file("gone/deep/file", "base").symlink("link", "gone").file("file", "base"));
  const Layer top =
      layer_of(TreeBuilder{}.file("gone", "top").directory("link").file("file/below", "top"));
  const Layer both = merged({base, top});
  CHECK(bytes_at(both, "gone") == "top");
  CHECK(both.tree->find_path("link")->is_directory());
  CHECK(bytes_at(both, "file/below") == "top");

  // What was replaced does not come back with the next directory.
  const Layer third = layer_of(TreeBuilder{}.directory("gone"));
  CHECK(merged({base, top, third}).tree->find_path("gone/deep") == nullptr);
}

TEST_CASE("whiteouts and opaque directories hide what is below them, not what stands beside") {
  const Layer base = layer_of(TreeBuilder{}
                                  .file("d/old", "base")
                                  .file("d/kept", "base")
                                  .directory("o")
                                  .owner(7, 7)
                                  .file("o/old", "base")
                                  .file("whole/x", "base"));
  Layer top = layer_of(TreeBuilder{}.file("d/old", "top").file("o/new", "top"), {"", "d", "o"});
  top.whiteouts = {"d/old", "whole", "never/there"};
  top.opaque_directories = {"o"};
  const Layer both = merged({base, top});
  CHECK(bytes_at(both, "d/old") == "top");
  CHECK(bytes_at(both, "d/kept") == "base");
  CHECK(both.tree->find_path("o/old") == nullptr);
  CHECK(bytes_at(both, "o/new") == "top");
  CHECK(both.tree->find_path("o")->uid == 7);
  CHECK(both.tree->find_path("whole") == nullptr);
  CHECK(both.tree->find_path("never") == nullptr);

  top.opaque_directories = {""};
  const Layer alone = merged({base, top});
  CHECK(alone.tree->find_path("d/kept") == nullptr);
  CHECK(bytes_at(alone, "o/new") == "top");
}

TEST_CASE("an outward link is one more name of what was there before its layer") {
  const Layer base =
      layer_of(TreeBuilder{}.file("a", "base").hard_link("a2", "a").symlink("s", "a"));
  Layer middle = layer_of(TreeBuilder{}.file("a", "middle").directory("d"), {""});
  middle.outward_links = {{"d/b", "a"}, {"t", "s"}};
  Layer top = layer_of(TreeBuilder{}, {""});
  top.outward_links = {{"c", "d/b"}};
  const Layer all = merged({base, middle, top});
  CHECK(bytes_at(all, "a") == "middle");
  CHECK(bytes_at(all, "c") == "base");
  CHECK(number_of(*all.tree, "c") == number_of(*all.tree, "a2"));
  CHECK(number_of(*all.tree, "c") == number_of(*all.tree, "d/b"));
  CHECK(all.tree->find_path("c")->link_count == 3);
  CHECK(number_of(*all.tree, "t") == number_of(*all.tree, "s"));

  middle.outward_links = {{"d/b", "nothing"}};
  CHECK(error_of(placed({base, middle})) == "d/b is a hard link to nothing, which is nowhere");
  CHECK(error_of({{base, "", "base.tar"}, {middle, "", "middle.tar"}}) ==
        "middle.tar: d/b is a hard link to nothing, which is nowhere");
  middle.outward_links = {{"d/b", "a/below"}};
  CHECK(error_of(placed({base, middle})) == "d/b is a hard link to a/below, which is nowhere");
  Layer directories = layer_of(TreeBuilder{}, {""});
  directories.outward_links = {{"b", "d"}};
  middle.outward_links.clear();
  CHECK(error_of(placed({middle, directories})) == "b is a hard link to d, which is a directory");
  middle.outward_links = {{"no/b", "a"}};
  CHECK(error_of(placed({base, middle})) == "no/b: a hard link to a cannot stand there");
  middle.outward_links = {{"d/b", "../a"}};
  CHECK(error_of(placed({base, middle})) == "../a: . and .. have no place in a path");
}

TEST_CASE("overrides change what stands at their path, under all its names") {
  const Layer base = layer_of(
      TreeBuilder{}.file("a", "1").hard_link("b", "a").directory("d").owner(5, 5).file("d/f", "2"));
  Layer manifest = layer_of(TreeBuilder{}, {""});
  manifest.overrides = {{"b", std::uint16_t{0600}, 11, std::nullopt, std::nullopt},
                        {"d", std::nullopt, std::nullopt, 12, Timestamp{99, 5}},
                        {"a", std::nullopt, std::nullopt, 13, std::nullopt},
                        {"", std::uint16_t{0700}, std::nullopt, std::nullopt, std::nullopt}};
  const Layer both = merged({base, manifest});
  const Node& a = *both.tree->find_path("a");
  CHECK(a.mode == (S_IFREG | 0600));
  CHECK(a.uid == 11);
  CHECK(a.gid == 13);
  CHECK(bytes_at(both, "b") == "1");
  const Node& d = *both.tree->find_path("d");
  CHECK(d.uid == 5);
  CHECK(d.gid == 12);
  CHECK(d.mtime() == Timestamp{99, 5});
  CHECK(both.tree->node(kRootNode).mode == (S_IFDIR | 0700));

  // A later layer knows better.
  const Layer later = layer_of(TreeBuilder{}.directory("d").file("a", "new"), {""});
  const Layer all = merged({base, manifest, later});
  CHECK(all.tree->find_path("d")->gid == 0);
  CHECK(all.tree->find_path("a")->uid == 0);
  CHECK(all.tree->find_path("b")->uid == 11);

  manifest.overrides = {{"d/nothing", std::nullopt, 1, std::nullopt, std::nullopt}};
  CHECK(error_of(placed({base, manifest})) ==
        "d/nothing is given attributes, but there is no such entry");
  manifest.overrides[0].is_optional = true;
  CHECK(merged({base, manifest}).tree->id() == base.tree->id());
  manifest.overrides = {{"d", std::uint16_t{0600}, {}, {}, {}, S_IFREG}};
  CHECK(error_of(placed({base, manifest})) ==
        "d is given attributes as a file, but is a directory");
}

TEST_CASE("a symlink is given an owner, but no permissions") {
  const Layer base = layer_of(TreeBuilder{}.symlink("l", "to"));
  Layer manifest = layer_of(TreeBuilder{}, {""});
  manifest.overrides = {{"l", std::uint16_t{0600}, 7, {}, {}, S_IFLNK}};
  const Layer both = merged({base, manifest});
  CHECK(both.tree->find_path("l")->mode == (S_IFLNK | 0777));
  CHECK(both.tree->find_path("l")->uid == 7);
}

TEST_CASE("a layer is placed below a path, of which missing directories are made") {
  const Layer base = layer_of(
      TreeBuilder{}.directory("etc").owner(4, 4).file("etc/a", "base").symlink("s", "etc"));
  const auto add = [&](const TreeBuilder& builder, std::string at,
                       const std::vector<std::string>& implied = {}) {
    return std::vector<PlacedLayer>{{base, "", ""},
                                    {layer_of(builder, implied), std::move(at), ""}};
  };
  Result<Layer> both = merge_layers(add(TreeBuilder{}.file("b", "top"), "/etc/", {""}));
  REQUIRE(both);
  CHECK(both->tree->find_path("etc")->uid == 4);
  CHECK(bytes_at(*both, "etc/a") == "base");
  CHECK(bytes_at(*both, "etc/b") == "top");

  both = merge_layers(add(TreeBuilder{}.owner(9, 9).file("b", "top"), "srv//x/y"));
  REQUIRE(both);
  CHECK(both->tree->find_path("srv")->mode == (S_IFDIR | 0755));
  CHECK(both->tree->find_path("srv/x")->uid == 0);
  CHECK(both->tree->find_path("srv/x/y")->uid == 9);
  CHECK(bytes_at(*both, "srv/x/y/b") == "top");
  CHECK(both->implied_directories ==
        std::vector<NodeNo>{number_of(*both->tree, "srv"), number_of(*both->tree, "srv/x")});

  CHECK(error_of(add(TreeBuilder{}, "s")) ==
        "at=/s: /s is a symlink in the sources before, and no directory");
  CHECK(error_of(add(TreeBuilder{}, "etc/a/b")) ==
        "at=/etc/a/b: /etc/a is a file in the sources before, and no directory");
  CHECK(error_of(add(TreeBuilder{}, "etc/../b")).starts_with("etc/../b is no place in a tree"));
}

TEST_CASE("whiteouts, links and overrides of a layer are where the layer is") {
  const Layer base =
      layer_of(TreeBuilder{}.file("in/a", "base").file("in/b", "base").file("a", "out"));
  Layer top = layer_of(TreeBuilder{}, {""});
  top.whiteouts = {"a"};
  top.outward_links = {{"c", "b"}};
  top.overrides = {{"b", std::nullopt, 3, std::nullopt, std::nullopt}};
  const Result<Layer> both = merge_layers({{base, "", ""}, {top, "in", ""}});
  REQUIRE(both);
  CHECK(bytes_at(*both, "a") == "out");
  CHECK(both->tree->find_path("in/a") == nullptr);
  CHECK(both->tree->find_path("in/c") == both->tree->find_path("in/b"));
  CHECK(both->tree->find_path("in/c")->uid == 3);
}

TEST_CASE("attributes, holes, devices and targets come through a merge") {
  const TreeBuilder one = TreeBuilder{}
                              .sparse_file("s", 1 << 20, {{4096, 4096}, {65536, 8192}})
                              .xattr("user.a", "1")
                              .device("c", 'c', {4, 64})
                              .symlink("l", "to");
  const TreeBuilder two =
      TreeBuilder{}.fifo("p").xattr("user.b", "2").file("q", "").xattr("user.a", "1");
  const TreeBuilder both = TreeBuilder{}
                               .sparse_file("s", 1 << 20, {{4096, 4096}, {65536, 8192}})
                               .xattr("user.a", "1")
                               .device("c", 'c', {4, 64})
                               .symlink("l", "to")
                               .fifo("p")
                               .xattr("user.b", "2")
                               .file("q", "")
                               .xattr("user.a", "1");
  const Layer result = merged({layer_of(one), layer_of(two)});
  const BuiltTree wanted = both.build();
  CHECK(to_listing(*result.tree) == to_listing(*wanted.tree));
  CHECK(result.tree->id() == wanted.tree->id());
}

TEST_CASE("data is in order layer by layer, if any layer says something of it") {
  const TreeBuilder base = TreeBuilder{}.file("a", "1").file("c", "1").file("e", "1");
  const TreeBuilder top = TreeBuilder{}.file("b", "2").file("c", "2").file("d", "2");
  const auto order = [](const Layer& layer) {
    std::string paths;
    for (const NodeNo no : layer.tree->data_order()) paths += layer.tree->path(no);
    return paths;
  };
  CHECK(order(merged({layer_of(base), layer_of(top)})).empty());
  const Layer ordered = layer_of(TreeBuilder(top).data_order({"d", "c"}));
  CHECK(order(merged({layer_of(base), ordered})) == "aedcb");
  const Layer reversed = layer_of(TreeBuilder(base).data_order({"e", "c", "a"}));
  CHECK(order(merged({reversed, layer_of(top)})) == "eabcd");
}

TEST_CASE("one layer in the root is itself") {
  Layer layer = layer_of(TreeBuilder{}.file("a", "1"));
  layer.whiteouts = {"b"};
  const Layer same = merged({layer});
  CHECK(same.tree == layer.tree);
  CHECK(same.contents == layer.contents);
  CHECK(same.whiteouts.empty());
}

namespace {

// A model of a disk that layers are unpacked to, as simple as can be.

struct Inode {
  char type = 'd';  // d, f, l
  std::uint32_t uid = 0;
  std::string bytes;  // of files; targets of symlinks
};
using Disk = std::map<std::string, std::shared_ptr<Inode>>;

bool is_below(std::string_view path, std::string_view directory) {
  return directory.empty() ? !path.empty()
                           : path.size() > directory.size() && path.starts_with(directory) &&
                                 path[directory.size()] == '/';
}

std::string parent_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

void remove_below(Disk& disk, const std::string& path) {
  std::erase_if(disk, [&](const auto& entry) { return is_below(entry.first, path); });
}

void put(Disk& disk, const std::string& path, const std::shared_ptr<Inode>& inode, bool implied) {
  const auto there = disk.find(path);
  const bool had_directory = there != disk.end() && there->second->type == 'd';
  if (inode->type != 'd') remove_below(disk, path);
  if (inode->type == 'd' && had_directory && implied) return;
  disk[path] = inode;
}

TreeBuilder builder_of(const Disk& disk) {
  TreeBuilder builder;
  std::map<const Inode*, std::string> names;
  for (const auto& [path, inode] : disk) {
    if (inode->type != 'd' && !names.emplace(inode.get(), path).second) {
      builder.hard_link(path, names.at(inode.get()));
      continue;
    }
    if (path.empty()) {
      builder.root();
    } else if (inode->type == 'd') {
      builder.directory(path);
    } else if (inode->type == 'f') {
      builder.file(path, inode->bytes);
    } else {
      builder.symlink(path, inode->bytes);
    }
    builder.owner(inode->uid, 0);
  }
  return builder;
}

struct Op {
  int kind;
  std::uint32_t path;
  std::uint32_t other;
};

std::string path_of(std::uint32_t code) {
  std::string path;
  for (std::uint32_t depth = code % 3 + 1; depth > 0; --depth) {
    code /= 3;
    if (!path.empty()) path += '/';
    path += static_cast<char>('a' + code % 3);
  }
  return path;
}

/// One random layer, and what it does to the disk.
class LayerMaker {
 public:
  LayerMaker(std::uint32_t number, Disk& disk) : number_(number), disk_(disk) {
    own_.emplace("", inode('d', ""));
    implied_.insert("");
  }

  void take(const Op& op) {
    const std::string path = path_of(op.path);
    switch (op.kind) {
      case 0:
        if (const auto there = own_.find(path);
            there != own_.end() ? there->second->type == 'd' : has_room(path)) {
          make_way(path);
          if (there == own_.end()) own_[path] = inode('d', "");
          implied_.erase(path);
        }
        break;
      case 1:
      case 2:
        if (has_room(path)) add(path, inode('f', fmt::format("{} of {}", path, number_)));
        break;
      case 3:
        if (has_room(path)) add(path, inode('l', fmt::format("to {}", number_)));
        break;
      case 4:
        if (const auto target = pick_leaf(own_, op.other); target && has_room(path)) {
          add(path, own_.at(*target));
        }
        break;
      case 5:
        whiteouts_.insert(path);
        break;
      case 6:
        if (const auto there = own_.find(path);
            there != own_.end() ? there->second->type == 'd' : has_room(path)) {
          make_way(path);
          if (there == own_.end()) {
            own_[path] = inode('d', "");
            implied_.insert(path);
          }
          opaque_.insert(path);
        }
        break;
      case 7:
        if (const auto target = pick_leaf(disk_, op.other); target && has_room(path)) {
          make_way(path);
          links_.emplace(path, *target);
        }
        break;
      case 8:
        overrides_.push_back(op.other);
        break;
      case 9:
        implied_.erase("");
        break;
      default:
        break;
    }
  }

  Layer finish() {
    Layer layer = layer_of(builder_of(own_), {implied_.begin(), implied_.end()});
    layer.whiteouts.assign(whiteouts_.begin(), whiteouts_.end());
    layer.opaque_directories.assign(opaque_.begin(), opaque_.end());
    for (const auto& [path, target] : links_) layer.outward_links.push_back({path, target});

    std::map<std::string, std::shared_ptr<Inode>> targets;
    for (const auto& [path, target] : links_) targets.emplace(path, disk_.at(target));
    for (const std::string& path : whiteouts_) {
      remove_below(disk_, path);
      disk_.erase(path);
    }
    for (const std::string& path : opaque_) {
      const auto there = disk_.find(path);
      if (there != disk_.end() && there->second->type == 'd') remove_below(disk_, path);
    }
    for (const auto& [path, inode] : own_) put(disk_, path, inode, implied_.contains(path));
    for (const auto& [path, inode] : targets) put(disk_, path, inode, false);
    for (const std::uint32_t pick : overrides_) {
      const auto entry = std::next(disk_.begin(), static_cast<std::ptrdiff_t>(pick % disk_.size()));
      entry->second->uid = pick + 1000;
      layer.overrides.push_back(
          {entry->first, std::nullopt, pick + 1000, std::nullopt, std::nullopt});
    }
    return layer;
  }

 private:
  std::shared_ptr<Inode> inode(char type, std::string bytes) const {
    return std::make_shared<Inode>(Inode{type, number_ + 1, std::move(bytes)});
  }
  /// Whether nothing stands there, and nothing but directories above.
  bool has_room(const std::string& path) const {
    if (own_.contains(path) || links_.contains(path)) return false;
    for (std::string above = parent_of(path); !above.empty(); above = parent_of(above)) {
      const auto there = own_.find(above);
      if (links_.contains(above) || (there != own_.end() && there->second->type != 'd')) {
        return false;
      }
    }
    return true;
  }
  void make_way(const std::string& path) {
    for (std::string above = parent_of(path); !above.empty(); above = parent_of(above)) {
      if (own_.emplace(above, inode('d', "")).second) implied_.insert(above);
    }
  }
  void add(const std::string& path, const std::shared_ptr<Inode>& what) {
    make_way(path);
    own_[path] = what;
  }
  static std::optional<std::string> pick_leaf(const Disk& disk, std::uint32_t pick) {
    std::vector<std::string> leaves;
    for (const auto& [path, inode] : disk) {
      if (inode->type != 'd') leaves.push_back(path);
    }
    if (leaves.empty()) return std::nullopt;
    return leaves[pick % leaves.size()];
  }

  std::uint32_t number_;
  Disk& disk_;
  Disk own_;
  std::set<std::string> implied_;
  std::set<std::string> whiteouts_;
  std::set<std::string> opaque_;
  std::map<std::string, std::string> links_;
  std::vector<std::uint32_t> overrides_;
};

rc::Gen<Op> any_op() {
  // The full ranges, whatever the size of the layer.
  const auto below = [](std::uint32_t end) {
    return rc::gen::resize(rc::kNominalSize, rc::gen::inRange(0u, end));
  };
  return rc::gen::map(rc::gen::tuple(below(10), below(81), below(100)), [](const auto& drawn) {
    const auto& [kind, path, other] = drawn;
    return Op{static_cast<int>(kind), path, other};
  });
}

}  // namespace

TEST_CASE("random layers merge to what unpacking one after the other leaves", "[one-thread]") {
  testing::check_property(1500, [] {
    const auto ops = *rc::gen::resize(
        12, rc::gen::nonEmpty(rc::gen::container<std::vector<std::vector<Op>>>(
                rc::gen::resize(24, rc::gen::container<std::vector<Op>>(any_op())))));
    Disk disk;
    std::vector<Layer> layers;
    for (const std::vector<Op>& of_layer : ops) {
      LayerMaker maker(static_cast<std::uint32_t>(layers.size()), disk);
      for (const Op& op : of_layer) maker.take(op);
      layers.push_back(maker.finish());
    }
    const BuiltTree wanted = builder_of(disk).build();
    const Result<Layer> result = merge_layers(placed(layers));
    if (!result) RC_FAIL(result.error().what);
    RC_ASSERT(to_listing(*result->tree) == to_listing(*wanted.tree));
    RC_ASSERT(result->tree->id() == wanted.tree->id());
    for (NodeNo no; no < wanted.tree->node_count(); ++no) {
      if (!wanted.tree->node(no).is_regular()) continue;
      RC_ASSERT(bytes_of(*result, no) == disk.at(wanted.tree->path(no))->bytes);
    }
    // Two at a time is the same as all at once.
    Layer step = layers.front();
    for (std::size_t at = 1; at < layers.size(); ++at) {
      const Result<Layer> next = merge_layers(placed({step, layers[at]}));
      if (!next) RC_FAIL(next.error().what);
      step = *next;
    }
    if (layers.size() > 1) RC_ASSERT(step.tree->id() == wanted.tree->id());
  });
}
