// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/archive/layer_tree.h"
#include "tests/support/hinted_text.h"

#include <catch2/catch.hpp>
#include <string>

namespace mkvirtfs::archive {
namespace {

/// An archive's members, written down one after the other.
class Members {
 public:
  Members& directory(std::string_view path, std::uint16_t permissions = 0755) {
    Member member;
    member.path = path;
    member.mode = static_cast<std::uint16_t>(S_IFDIR | permissions);
    return add(member);
  }
  Members& file(std::string_view path, std::uint64_t size = 0, std::uint64_t offset = 0) {
    Member member;
    member.path = path;
    member.mode = S_IFREG | 0644;
    member.size_bytes = size;
    member.place = size == 0 ? MemberPlace::nowhere : MemberPlace::stored;
    member.data_offset = offset;
    return add(member);
  }
  Members& symlink(std::string_view path, std::string_view target) {
    Member member;
    member.path = path;
    member.mode = S_IFLNK | 0644;
    member.link_target = target;
    return add(member);
  }
  Members& link(std::string_view path, std::string_view target) {
    Member member;
    member.path = path;
    member.is_hard_link = true;
    member.link_target = target;
    return add(member);
  }
  Members& add(const Member& member) {
    REQUIRE(log.append(member));
    return *this;
  }

  Result<LayerTree> tree(const LayerOptions& options = {}) const {
    return make_layer_tree(log, "test.tar", options, null_log());
  }
  LayerTree good(const LayerOptions& options = {}) const {
    Result<LayerTree> made = tree(options);
    INFO((made ? "" : made.error().what));
    REQUIRE(made);
    return std::move(*made);
  }
  std::string refusal(const LayerOptions& options = {}) const {
    const Result<LayerTree> made = tree(options);
    REQUIRE_FALSE(made);
    return hinted_text(made.error());
  }

  MemberLog log;
};

/// All paths with the offset of their bytes: "bin/ bin/sh@512 lib->usr/lib".
std::string paths_of(const LayerTree& made) {
  const SourceTree& tree = *made.layer.tree;
  std::string text;
  for (const Directory& directory : tree.directories()) {
    for (const Entry entry : tree.entries(directory)) {
      std::string path = tree.path(directory.node);
      if (!path.empty()) path += '/';
      path += tree.name(directory, entry);
      const Node& node = tree.node(entry.node);
      if (node.is_directory()) path += '/';
      if (node.is_symlink()) path += "->" + std::string(tree.symlink_target(entry.node));
      if (node.is_regular()) path += "@" + std::to_string(made.places.offset(entry.node));
      text += (text.empty() ? "" : " ") + path;
    }
  }
  return text;
}

}  // namespace

TEST_CASE("members become what extracting them would leave") {
  Members members;
  members.directory("./")
      .directory("./bin/", 0700)
      .file("./bin/sh", 7, 512)
      .symlink("lib", "usr/lib");
  members.file("usr/lib//x", 1, 1024);
  const LayerTree made = members.good();
  CHECK(paths_of(made) == "bin/ lib->usr/lib usr/ bin/sh@512 usr/lib/ usr/lib/x@1024");
  const SourceTree& tree = *made.layer.tree;
  CHECK(tree.find_path("bin")->mode == (S_IFDIR | 0700));
  CHECK(tree.find_path("lib")->mode == (S_IFLNK | 0777));
  CHECK(tree.find_path("usr/lib")->mode == (S_IFDIR | 0755));
  CHECK(made.layer.implied_directories ==
        std::vector{NodeNo{3}, NodeNo{5}});  // usr and usr/lib, but not the root
}

TEST_CASE("of several members with one name the last wins, and directories keep their entries") {
  Members members;
  members.directory("d", 0700).file("d/a", 1, 512).file("d/a", 2, 1024);
  members.directory("d", 0750).symlink("s", "1").file("s", 3, 2048).file("e").directory("e");
  const LayerTree made = members.good();
  CHECK(paths_of(made) == "d/ e/ s@2048 d/a@1024");
  CHECK(made.layer.tree->find_path("d")->mode == (S_IFDIR | 0750));
  CHECK(made.layer.tree->find_path("d/a")->size_bytes == 2);
}

TEST_CASE("hard links share what they named when they came") {
  Members members;
  members.file("a", 1, 512).link("b", "a").file("a", 2, 1024).link("c", "/a").link("d", "./d2");
  members.link("d2", "b").file("late", 5, 4096);
  const LayerTree made = members.good();
  CHECK(paths_of(made) == "a@1024 b@512 c@1024 d@512 d2@512 late@4096");
  CHECK(made.layer.tree->find_path("b")->link_count == 3);
  CHECK(made.layer.tree->find_path("a")->link_count == 2);
}

TEST_CASE("a hard link may bring the bytes of its group") {
  Members members;
  members.file("a");
  Member last;
  last.path = "b";
  last.mode = S_IFREG | 0600;
  last.is_hard_link = true;
  last.link_target = "a";
  last.size_bytes = 9;
  last.place = MemberPlace::stored;
  last.data_offset = 700;
  members.add(last);
  const LayerTree made = members.good();
  CHECK(paths_of(made) == "a@700 b@700");
  CHECK(made.layer.tree->find_path("a")->size_bytes == 9);
  CHECK(made.layer.tree->find_path("a")->mode == (S_IFREG | 0600));
}

TEST_CASE("hard links to nothing, to directories and in circles are refused") {
  CHECK(Members().link("a", "b").refusal() ==
        "test.tar: member a is a hard link to b, which the archive does not hold");
  CHECK_THAT(Members().directory("d").link("a", "d").refusal(), Catch::Contains("a directory"));
  CHECK_THAT(Members().link("a", "b").link("b", "a").refusal(), Catch::Contains("a link back"));
  CHECK_THAT(Members().link("a", "a").refusal(), Catch::Contains("a link back"));
  CHECK_THAT(Members().link("a", "../b").refusal(), Catch::Contains("\"..\""));
}

TEST_CASE("hard links out of a layer are reported, when layers are below") {
  LayerOptions options;
  options.outward_links = true;
  Members members;
  members.link("a", "d/b").link("c", "/x").file("f");
  const LayerTree made = members.good(options);
  CHECK(paths_of(made) == "f@0");
  REQUIRE(made.layer.outward_links.size() == 2);
  CHECK(made.layer.outward_links[0].path == "a");
  CHECK(made.layer.outward_links[0].target == "d/b");
  CHECK(made.layer.outward_links[1].target == "x");
}

TEST_CASE("what lies below something that is no directory is refused") {
  CHECK(Members().file("a").file("a/b").refusal() ==
        "test.tar: member a/b lies below a, which is a file");
  CHECK(Members().symlink("s", "../../etc").file("s/through").refusal() ==
        "test.tar: member s/through lies below s, which is a symlink");
  CHECK_THAT(Members().link("l", "a").file("l/b").refusal(), Catch::Contains("lies below l"));
  CHECK(Members().file("d/x").file("d").refusal() ==
        "test.tar: member d is no directory, but others lie below it");
  CHECK_THAT(Members().file("/").refusal(), Catch::Contains("names the root"));
}

TEST_CASE("in one archive only links that GNU tar follows are followed") {
  // Relative, without "..", to a directory that is there already, over other such links, too.
  Members members;
  members.directory("usr/lib/").symlink("lib", "usr/lib").symlink("lib64", "./lib/");
  members.file("lib64/foo", 1, 512).directory("lib/sub").file("lib/sub/bar", 1, 1024);
  members.link("lib/hard", "lib64/foo");
  CHECK(paths_of(members.good()) ==
        "lib->usr/lib lib64->./lib/ usr/ usr/lib/ usr/lib/foo@512 usr/lib/hard@512 usr/lib/sub/ "
        "usr/lib/sub/bar@1024");
  const auto refused = [](std::string_view target) {
    return Members().directory("d").directory("a/b").symlink("a/s", target).file("a/s/x").refusal();
  };
  const std::string documented = "test.tar: member a/s/x lies below a/s, which is a symlink";
  CHECK(refused("/d") == documented);
  CHECK(refused("../d") == documented);
  CHECK(refused("missing") == documented);
  CHECK(Members().symlink("s", "d").file("s/x").directory("d").refusal() ==
        "test.tar: member s/x lies below s, which is a symlink");
  CHECK_THAT(Members().file("f").symlink("s", "f").file("s/x").refusal(),
             Catch::Contains("lies below f, which is a file"));
  CHECK_THAT(Members().symlink("a", "b").symlink("b", "a").file("a/x").refusal(),
             Catch::Contains("without an end"));
  // A directory that is named takes the link's place.
  CHECK(paths_of(Members().directory("d").symlink("s", "d").directory("s").file("s/x").good()) ==
        "d/ s/ s/x@0");
}

namespace {

/// Layers below that are a list of paths: "d/" is a directory, "s->target" a symlink, "f" a file.
class ListBelow final : public LayersBelow {
 public:
  explicit ListBelow(std::vector<std::string> entries) : entries_(std::move(entries)) {}

  Standing look(std::string_view path) const override {
    for (const std::string_view entry : entries_) {
      if (!entry.starts_with(path)) continue;
      const std::string_view rest = entry.substr(path.size());
      if (rest == "/") return {Standing::Kind::directory, {}};
      if (rest.empty()) return {Standing::Kind::other, {}};
      if (rest.starts_with("->")) return {Standing::Kind::symlink, rest.substr(2)};
    }
    return {};
  }

 private:
  std::vector<std::string> entries_;
};

LayerOptions over(const LayersBelow& below, LayerSymlinks symlinks = LayerSymlinks::follow) {
  LayerOptions options;
  options.outward_links = true;
  options.below = &below;
  options.layer_symlinks = symlinks;
  return options;
}

}  // namespace

TEST_CASE("an implied parent follows the symlinks of the layers below, as in a chroot") {
  const ListBelow below({"usr/", "usr/lib/", "usr/lib/real", "lib->usr/lib", "abs->/usr/lib",
                         "out->../../../usr", "usr/up->../abs", "gone->/run/gone/x", "loop->loop",
                         "file->usr/lib/real"});
  const auto of = [&](std::string_view path) {
    return paths_of(Members().file(path, 1, 512).good(over(below)));
  };
  CHECK(of("lib/foo") == "usr/ usr/lib/ usr/lib/foo@512");
  CHECK(of("abs/foo") == "usr/ usr/lib/ usr/lib/foo@512");
  CHECK(of("out/foo") == "usr/ usr/foo@512");
  CHECK(of("usr/up/foo") == "usr/ usr/lib/ usr/lib/foo@512");
  CHECK(of("gone/foo") == "run/ run/gone/ run/gone/x/ run/gone/x/foo@512");
  CHECK(of("lib") == "lib@512");  // the last component is never followed
  CHECK_THAT(Members().file("loop/x").refusal(over(below)), Catch::Contains("without an end"));
  CHECK_THAT(Members().file("file/x").refusal(over(below)), Catch::Contains("no directory"));

  // What the layer names itself is what there is.
  CHECK(paths_of(Members().directory("lib").file("lib/foo").good(over(below))) == "lib/ lib/foo@0");
  CHECK(paths_of(Members().file("lib/foo").directory("lib").file("lib/bar").good(over(below))) ==
        "lib/ usr/ lib/bar@0 usr/lib/ usr/lib/foo@0");
  const LayerTree links = Members().link("lib/hard", "abs/real").good(over(below));
  REQUIRE(links.layer.outward_links.size() == 1);
  CHECK(links.layer.outward_links[0].path == "usr/lib/hard");
  CHECK(links.layer.outward_links[0].target == "usr/lib/real");

  CHECK(paths_of(Members().file("lib/foo").good(over(below, LayerSymlinks::replace))) ==
        "lib/ lib/foo@0");
  CHECK(Members().file("lib/foo").refusal(over(below, LayerSymlinks::error)) ==
        "test.tar: member lib/foo lies below lib, which is a symlink to usr/lib in the layers "
        "before [layer-symlinks=follow] [layer-symlinks=replace]");
}

TEST_CASE("as many symlinks are followed as the kernel follows") {
  std::vector<std::string> chain = {"s0->d"};
  for (int i = 1; i <= 40; ++i) {
    chain.push_back("s" + std::to_string(i) + "->s" + std::to_string(i - 1));
  }
  const ListBelow below(chain);
  CHECK(paths_of(Members().file("s39/x").good(over(below))) == "d/ d/x@0");
  CHECK_THAT(Members().file("s40/x").refusal(over(below)), Catch::Contains("without an end"));
}

TEST_CASE("symlinks do not lead out of where an archive is placed") {
  const ListBelow below(
      {"etc/", "etc/in->/etc/real", "etc/out->/usr", "etc/up->..", "etc/back->x/.."});
  LayerOptions options = over(below);
  options.at = "/etc/";
  CHECK(paths_of(Members().file("in/x").good(options)) == "real/ real/x@0");
  CHECK(paths_of(Members().file("back/y").good(options)) == "x/ y@0");
  CHECK(Members().file("out/x").refusal(options) ==
        "test.tar: member out/x lies below out, a symlink that leads out of /etc "
        "[layer-symlinks=replace]");
  CHECK(Members().file("up/x").refusal(options) ==
        "test.tar: member up/x lies below a symlink that leads out of /etc "
        "[layer-symlinks=replace]");
}

TEST_CASE("attributes of a path go where its symlinks lead") {
  const ListBelow below({"usr/", "usr/lib/", "usr/lib/real", "lib->usr/lib"});
  Member change;
  change.path = "lib/real";
  change.changes_only = true;
  change.mode = S_IFREG | 0600;
  Members members;
  members.add(change);
  const LayerTree made = members.good(over(below));
  REQUIRE(made.layer.overrides.size() == 1);
  CHECK(made.layer.overrides[0].path == "usr/lib/real");
}

TEST_CASE(
    "an owner that no file can have is refused, but not before owners are mapped and entries are "
    "left out") {
  Member member;
  member.path = "f";
  member.mode = S_IFREG | 0644;
  member.uid = 4294967295;
  Members members;
  members.add(member).file("g");
  CHECK(members.refusal() ==
        "test.tar: member f belongs to 4294967295:0, which no file can [owner] [map-uid] [map-gid] "
        "[exclude]");
  LayerOptions options;
  options.entries.owner_uid = 7;
  CHECK(members.good(options).layer.tree->find_path("f")->uid == 7);
  options = {};
  options.entries.uid_map = {{4294967295, 8, 1}};
  CHECK(members.good(options).layer.tree->find_path("f")->uid == 8);
  options = {};
  options.entries.rules = {{false, "f"}};
  CHECK(paths_of(members.good(options)) == "g@0");
}

TEST_CASE("extended attributes that ext cannot hold by name are counted and named") {
  Member member;
  member.path = "f";
  member.mode = S_IFREG | 0644;
  member.xattrs = {{"com.apple.quarantine", "1"}, {"user.kept", "2"}, {"system.nfs4_acl", "3"}};
  Members members;
  members.add(member).file("g");
  const LayerTree made = members.good();
  const SourceTree& tree = *made.layer.tree;
  CHECK(tree.unshown_counts() == SourceTree::UnshownCounts{0, 1});
  CHECK(tree.lost_xattrs(NodeNo{1}) == "com.apple.quarantine, system.nfs4_acl");
  CHECK(tree.lost_xattrs(NodeNo{2}) == "");
  CHECK(tree.xattrs(tree.node(NodeNo{1}).xattrs).size() == 1);
  LayerOptions options;
  options.entries.xattrs = false;
  CHECK(members.good(options).layer.tree->lost_xattrs(NodeNo{1}) != "");
  options.entries.lists_lost_xattrs = false;
  CHECK(members.good(options).layer.tree->lost_xattrs(NodeNo{1}) == "");
}

TEST_CASE("names stay below the root") {
  CHECK(paths_of(Members().file("/etc/x").file("//y").file("./z/./").good()) ==
        "etc/ y@0 z@0 etc/x@0");
  CHECK_THAT(Members().file("a/../b").refusal(), Catch::EndsWith(" [unsafe-names=strip]"));
  LayerOptions strip;
  strip.unsafe_names = UnsafeNames::strip;
  CHECK(paths_of(Members().file("../../etc/passwd").good(strip)) == "etc/ etc/passwd@0");
  CHECK_THAT(Members().file(std::string(256, 'n')).refusal(), Catch::Contains("256 bytes"));
  CHECK_THAT(Members().file(std::string_view("a\0b", 3)).refusal(), Catch::Contains("NUL"));
  std::string deep;
  while (deep.size() < 4096) deep += "d/";
  CHECK_THAT(Members().file(deep).refusal(), Catch::Contains("4095 is the most"));
}

TEST_CASE("attributes that no file can have are refused") {
  CHECK_THAT(Members().symlink("s", "").refusal(), Catch::Contains("symlink to nowhere"));
  CHECK_THAT(Members().symlink("s", std::string(4096, 'x')).refusal(),
             Catch::Contains("4095 is the most"));
  Member device;
  device.path = "null";
  device.mode = S_IFCHR | 0666;
  device.device = {4096, 0};
  CHECK_THAT(Members().add(device).refusal(), Catch::Contains("device 4096:0"));
  Member file;
  file.path = "f";
  file.mode = S_IFREG;
  file.size_bytes = 1;
  CHECK_THAT(Members().add(file).refusal(), Catch::Contains("no bytes"));
}

TEST_CASE("rules and owners apply as to a directory") {
  Members members;
  Member file;
  file.path = "a/keep";
  file.mode = S_IFREG | 04777;
  file.uid = 1000;
  file.gid = 1001;
  file.mtime = {2'000'000'000, 5};
  file.xattrs = {{"user.note", "x"}, {"btrfs.compression", "zstd"}};
  members.add(file).file("a/drop").directory("b").file("b/x").link("c", "b/x");
  LayerOptions options;
  options.entries.rules = {{false, "drop"}, {false, "b/"}};
  options.entries.owner_uid = 7;
  options.entries.gid_map = {{1001, 8, 1}};
  options.entries.mode_mask = 0755;
  options.entries.newest_mtime_s = 1'000'000'000;
  const LayerTree made = members.good(options);
  CHECK(paths_of(made) == "a/ c@0 a/keep@0");
  CHECK(made.excluded_count == 2);
  const Node& kept = *made.layer.tree->find_path("a/keep");
  CHECK(kept.mode == (S_IFREG | 0755));
  CHECK(kept.uid == 7);
  CHECK(kept.gid == 8);
  CHECK(kept.mtime() == Timestamp{1'000'000'000, 0});
  CHECK(made.layer.tree->xattrs(kept.xattrs).size() == 1);
  options.entries.xattrs = false;
  CHECK(members.good(options).layer.tree->find_path("a/keep")->xattrs == 0);
}

TEST_CASE("entries that bring nothing say what others are to become") {
  Members members;
  Member change;
  change.path = "./etc/shadow";
  change.mode = S_IFREG | 0640;
  change.changes_only = true;
  change.is_optional = true;
  change.gid = 42;
  change.has_uid = false;
  change.has_mtime = false;
  members.add(change);
  const LayerTree made = members.good();
  CHECK(paths_of(made).empty());
  REQUIRE(made.layer.overrides.size() == 1);
  const AttributeOverride& override = made.layer.overrides[0];
  CHECK(override.path == "etc/shadow");
  CHECK(override.permissions == 0640);
  CHECK_FALSE(override.uid);
  CHECK(override.gid == 42);
  CHECK_FALSE(override.mtime);
  CHECK(override.type == S_IFREG);
  CHECK(override.is_optional);
}

TEST_CASE("a subtree has the names and attributes below it, whatever stands beside it") {
  Members members;
  members.directory("root", 0700).file("root/etc/one", 1, 512).file("beside/file", 2, 1024);
  members.link("root/in", "beside/file").link("beside/out", "root/etc/one");
  members.symlink("root/up", "../beside").link("root/later", "beside/last");
  members.file("beside/last", 3, 2048).file("rooted", 1, 4096).directory("root/var");
  LayerOptions options;
  options.subtree = "/root/";
  const LayerTree made = members.good(options);
  CHECK(paths_of(made) == "etc/ in@1024 later@2048 up->../beside var/ etc/one@512");
  const SourceTree& tree = *made.layer.tree;
  CHECK(tree.node(kRootNode).mode == (S_IFDIR | 0700));
  CHECK(tree.find_path("etc/one")->link_count == 1);  // its other name is beside
  CHECK(made.layer.implied_directories == std::vector{NodeNo{1}});
  options.entries.rules = {{.glob = "/etc"}, {.glob = "root"}, {.glob = "/root/var"}};
  CHECK(paths_of(members.good(options)) == "in@1024 later@2048 up->../beside var/");
  options.entries.rules.clear();

  const auto refusal = [&](const std::string& subtree) {
    options.subtree = subtree;
    return members.refusal(options);
  };
  CHECK(refusal("roots") == "test.tar holds no directory roots");
  CHECK(refusal("root/etc/two/x") == "test.tar holds no directory root/etc/two");
  CHECK(refusal("rooted") == "test.tar: rooted is no directory");
  CHECK(refusal("root/up/x") == "test.tar: root/up is a symlink to ../beside");
  CHECK(refusal("root/../beside") == "test.tar//root/../beside: . and .. have no place in a path");
  options.subtree = "beside";
  CHECK(paths_of(members.good(options)) == "file@1024 last@2048 out@512");
}

TEST_CASE("links and changes of a subtree are those below it") {
  Members members;
  Member change;
  change.mode = S_IFREG | 0640;
  change.changes_only = true;
  for (const char* path : {"root/etc/passwd", "other", "rooted/x"}) {
    change.path = path;
    members.add(change);
  }
  members.directory("root").link("root/a", "root/etc/below").link("other", "root/etc/below");
  LayerOptions options;
  options.subtree = "root";
  options.outward_links = true;
  const LayerTree made = members.good(options);
  REQUIRE(made.layer.overrides.size() == 1);
  CHECK(made.layer.overrides[0].path == "etc/passwd");
  REQUIRE(made.layer.outward_links.size() == 1);
  CHECK(made.layer.outward_links[0].path == "a");
  CHECK(made.layer.outward_links[0].target == "etc/below");
  CHECK(members.link("root/b", "etc/below").refusal(options) ==
        "test.tar: member root/b is a hard link to etc/below, which the archive does not hold");
}

TEST_CASE("a subtree over other layers sees them where it will stand") {
  const ListBelow below({"in/", "in/usr/", "in/lib->usr", "usr->nowhere"});
  Members members;
  members.file("root/usr/x", 1, 512).file("usr/y", 1, 1024);
  LayerOptions options = over(below);
  options.at = "in";
  options.subtree = "root";
  CHECK(paths_of(members.good(options)) == "usr/ usr/x@512");
  members.file("root/lib/z", 1, 2048);
  CHECK(members.refusal(options) ==
        "test.tar: member root/lib/z lies below root/lib, which is a symlink to usr in the layers "
        "before [layer-symlinks=replace]");
  options.layer_symlinks = LayerSymlinks::replace;
  CHECK(paths_of(members.good(options)) == "lib/ usr/ lib/z@2048 usr/x@512");
}

TEST_CASE("many entries in one directory are found again") {
  Members members;
  for (int i = 0; i < 5000; ++i) members.file("d/" + std::to_string(i), 1, 512);
  for (int i = 0; i < 5000; ++i) members.link("l/" + std::to_string(i), "d/" + std::to_string(i));
  const LayerTree made = members.good();
  CHECK(made.layer.tree->node_count() == 5003);
  CHECK(made.layer.tree->find_path("l/4999")->link_count == 2);
}

TEST_CASE("a log of members opens again from its bytes, and nothing else does") {
  Members members;
  Member member;
  member.path = "sparse";
  member.mode = S_IFREG | 0644;
  member.mtime = {-5, 999'999'999};
  member.size_bytes = 1 << 20;
  member.is_sparse = true;
  member.stored_runs = {{4096, 100}, {8192, 1}};
  member.xattrs = {{"user.a", std::string_view("\0\1", 2)}};
  member.place = MemberPlace::stored;
  member.data_offset = 12345;
  members.add(member).link("l", "sparse").symlink("s", "t");

  const std::span<const std::byte> bytes = members.log.bytes();
  const Result<MemberLog> again = MemberLog::open({bytes.begin(), bytes.end()});
  REQUIRE(again);
  CHECK(again->member_count() == 3);
  Member read;
  CHECK(again->path(again->read(0, read)) == "l");
  CHECK(read.path == "sparse");
  CHECK(read.mtime == member.mtime);
  CHECK(read.stored_runs == member.stored_runs);
  CHECK(read.xattrs == member.xattrs);
  CHECK(read.data_offset == 12345);

  for (std::size_t size = 1; size < bytes.size(); ++size) {
    const Result<MemberLog> cut =
        MemberLog::open({bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size)});
    CHECK((!cut || cut->member_count() < 3));
  }
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    for (const unsigned flip : {1u, 0x80u, 0xffu}) {
      std::vector<std::byte> changed(bytes.begin(), bytes.end());
      changed[at] ^= static_cast<std::byte>(flip);
      const Result<MemberLog> other = MemberLog::open(changed);
      if (!other) continue;  // what still opens must be a log that can be read
      const Result<LayerTree> made = make_layer_tree(*other, "test", {}, null_log());
      CHECK((!made || made->places.size() == made->layer.tree->node_count()));
    }
  }
}

}  // namespace mkvirtfs::archive
