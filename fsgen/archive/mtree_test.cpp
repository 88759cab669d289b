// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/archive/mtree.h"

#include <catch2/catch.hpp>

#include <filesystem>
#include <span>
#include <string>
#include <utility>

#include "fsgen/archive/archive.h"
#include "fsgen/archive/testing/opened.h"
#include "fsgen/host/scan.h"
#include "fsgen/stream/testing/stream_data.h"
#include "fsgen/tree/listing.h"
#include "fsgen/tree/merge.h"
#include "fsgen/tree/testing/layer_bytes.h"
#include "fsgen/tree/tree_builder.h"
#include "tests/support/foreign_tools.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs::archive {
namespace {

using testing::bytes_at;
using testing::MemorySource;

/// The layer that a manifest is, whose contents are below `directory`.
Result<Layer> open(std::string text, const std::filesystem::path& directory) {
  ReadOptions options;
  options.manifest_directory = directory.string();
  Result<testing::Opened> opened =
      testing::open(std::move(text), "manifest", {.read = std::move(options)});
  if (!opened) return propagate(opened);
  return std::move(opened->layer);
}

std::string refusal(const std::string& lines, const std::filesystem::path& directory) {
  return testing::refusal(open("#mtree\n" + lines, directory));
}

}  // namespace

TEST_CASE("a manifest brings what it names contents or a type for") {
  const TempDir dir("/var/tmp");
  std::filesystem::create_directory(dir / "blobs");
  write_file(dir / "blobs/a b", "the bytes\n");
  const Result<Layer> layer = open(
      "#mtree v2.0\n"
      "# a remark\n"
      "/set type=file uid=0 gid=0 mode=0644 \\\n"
      "     time=1500000000.000000005\n"
      ". type=dir mode=0750\n"
      "bin type=dir mode=755\n"
      "  tool mode=4755 contents=blobs/a\\040b size=10 sha256digest=unasked\n"
      "  link type=link link=tool\\012\n"
      "..\n"
      "./dev/tty type=char device=native,5,0 mode=620 gid=5\n"
      "dev/disk type=block device=0x801 mode=660\n"
      "dev/pipe type=fifo\n"
      "/unset mode\n"
      "dev/sock type=socket time=-1.0",
      dir.path());
  INFO((layer ? "" : layer.error().what));
  REQUIRE(layer);
  const SourceTree& tree = *layer->tree;
  CHECK(tree.node(kRootNode).mode == (S_IFDIR | 0750));
  const Node* const tool = tree.find_path("bin/tool");
  REQUIRE(tool != nullptr);
  CHECK(tool->mode == (S_IFREG | 04755));
  CHECK(tool->mtime() == Timestamp{1'500'000'000, 5});
  CHECK(bytes_at(*layer, "bin/tool") == "the bytes\n");
  const auto number = [&](std::string_view path) { return tree.number_of(*tree.find_path(path)); };
  CHECK(tree.symlink_target(number("bin/link")) == "tool\n");
  CHECK(tree.device_number(number("dev/tty")) == DeviceNumber{5, 0});
  CHECK(tree.node(number("dev/tty")).gid == 5);
  CHECK(tree.device_number(number("dev/disk")) == DeviceNumber{8, 1});
  CHECK(S_ISFIFO(tree.node(number("dev/pipe")).mode));
  CHECK(S_ISSOCK(tree.node(number("dev/sock")).mode));
  CHECK(tree.node(number("dev/sock")).mtime() == Timestamp{-1, 0});
  CHECK(layer->implied_directories.size() == 1);  // dev
  CHECK(layer->overrides.empty());

  // What changes afterwards is no longer what it said.
  write_file(dir / "blobs/a b", "THE BYTES!\n");
  std::string bytes(10, '\0');
  const Result<void> changed = layer->contents->read(content_no(number("bin/tool")), 0,
                                                     std::as_writable_bytes(std::span(bytes)));
  REQUIRE_FALSE(changed);
  CHECK(changed.error().code == Errc::source_changed);
}

TEST_CASE("bsdtar's manifest of a tree gives another tree its attributes") {
  const TempDir dir("/var/tmp");
  const Ran ran = run_tool(
      {"bash", "-c",
       "set -e; cd " + dir.path().string() +
           "; mkdir -p tree/a/b 'tree/name with blanks'; echo 1 >tree/a/one; echo 2 >tree/a/b/two; "
           "printf x >tree/name\\ with\\ blanks/$'\\xff'; ln -s one tree/a/link; cp -r tree other; "
           "chmod 0700 tree/a; chmod 4711 tree/a/one; chmod 0440 tree/a/b/two; "
           "find tree -exec touch -h -d @1234567890.5 {} +; "
           "bsdtar -cf manifest --format=mtree "
           "--options='!all,type,mode,uid,gid,time,link,size' -C tree ."});
  INFO(ran.output);
  REQUIRE(ran.status == 0);
  const auto scanned = [&](const char* name) {
    Result<Scan> scan = scan_directory((dir / name).string(), {}, null_log());
    REQUIRE(scan);
    Layer layer;
    layer.tree = scan->tree;
    layer.contents = make_host_files(scan->files, OnChange::error, null_log());
    return layer;
  };
  const Layer wanted = scanned("tree");
  Result<Layer> manifest = open(read_file(dir / "manifest"), dir.path());
  INFO((manifest ? "" : manifest.error().what));
  REQUIRE(manifest);
  std::vector<PlacedLayer> layers;
  layers.push_back({scanned("other"), "", ""});
  CHECK(layers[0].layer.tree->id() != wanted.tree->id());
  layers.push_back({std::move(*manifest), "", ""});
  const Result<Layer> merged = merge_layers(std::move(layers));
  INFO((merged ? "" : merged.error().what));
  REQUIRE(merged);
  CHECK(to_listing(*merged->tree) == to_listing(*wanted.tree));
}

TEST_CASE("of directories a manifest may tell a part") {
  const TempDir dir("/var/tmp");
  Result<Layer> layer = open("#mtree\na type=dir mode=0700\n", dir.path());
  REQUIRE(layer);
  CHECK(layer->implied_directories.size() == 2);
  REQUIRE(layer->overrides.size() == 1);
  CHECK(layer->overrides[0].path == "a");
  CHECK(layer->overrides[0].permissions == 0700);
  CHECK_FALSE(layer->overrides[0].uid);
  std::vector<PlacedLayer> layers;
  layers.push_back({std::move(*layer), "", ""});
  const Result<Layer> merged = merge_layers(std::move(layers));
  REQUIRE(merged);
  REQUIRE(merged->tree->find_path("a") != nullptr);
  CHECK(merged->tree->find_path("a")->mode == (S_IFDIR | 0700));
}

TEST_CASE("what a manifest does not bring it changes, and what is optional may be missing") {
  const TempDir dir("/var/tmp");
  write_file(dir / "there", "12345");
  Result<Layer> layer = open(
      "#mtree\n"
      "f type=file mode=0600 uname=no-such-user-here uid=5\n"
      "l type=link uid=6\n"
      "tty type=char uid=7\n"
      "kept type=dir mode=0700 uid=1 nochange\n"
      "..\n"
      "gone type=dir mode=0700 optional\n"
      "  inside type=file uid=8 optional\n"
      "..\n"
      "contents contents=missing uid=9 optional\n"
      "brought contents=there optional mode=0640\n",
      dir.path());
  INFO((layer ? "" : layer.error().what));
  REQUIRE(layer);
  CHECK(to_listing(*layer->tree).find("gone") == std::string::npos);
  REQUIRE(layer->tree->find_path("brought") != nullptr);
  CHECK(layer->tree->find_path("brought")->mode == (S_IFREG | 0640));
  CHECK(layer->tree->find_path("contents") == nullptr);

  const BuiltTree built = TreeBuilder{}
                              .file("f", "")
                              .symlink("l", "f")
                              .device("tty", 'c', {5, 0})
                              .directory("kept")
                              .mode(0711)
                              .file("contents", "")
                              .build();
  Layer base;
  base.tree = built.tree;
  base.contents = built.store;
  const Result<Layer> merged = merge_layers({{base, "", ""}, {*layer, "", ""}});
  INFO((merged ? "" : merged.error().what));
  REQUIRE(merged);
  const SourceTree& tree = *merged->tree;
  CHECK(tree.find_path("f")->uid == 5);
  CHECK(tree.find_path("l")->uid == 6);
  CHECK(tree.find_path("l")->is_symlink());
  CHECK(tree.find_path("tty")->uid == 7);
  CHECK(tree.find_path("kept")->mode == (S_IFDIR | 0711));
  CHECK(tree.find_path("kept")->uid == 0);
  CHECK(tree.find_path("contents")->uid == 9);
  CHECK(tree.find_path("gone") == nullptr);

  // What is there as something else, or not at all.
  const auto refused = [&](const std::string& lines) {
    Result<Layer> other = open("#mtree\n" + lines, dir.path());
    REQUIRE(other);
    const Result<Layer> both = merge_layers({{base, "", ""}, {std::move(*other), "", ""}});
    REQUIRE_FALSE(both);
    return both.error().what;
  };
  CHECK(refused("f type=link uid=1") == "f is given attributes as a symlink, but is a file");
  CHECK(refused("kept type=file uid=1 optional") ==
        "kept is given attributes as a file, but is a directory");
  CHECK_THAT(refused("nothing nochange"), Catch::Contains("there is no such entry"));
}

TEST_CASE("what is left out of an image is not missed by a manifest") {
  const TempDir dir("/var/tmp");
  ReadOptions options;
  options.manifest_directory = dir.path().string();
  const auto source = std::make_shared<MemorySource>(
      "#mtree\nlog type=dir uid=1\n a.log type=file uid=1\n..\nvar/x type=file uid=1\nb uid=2\n",
      "manifest");
  const Result<Archive> archive = read_archive(source, options, {}, nullptr, null_log());
  REQUIRE(archive);
  LayerOptions layer_options;
  layer_options.entries.rules = {{false, "*.log"}, {false, "var/"}};
  const Result<ArchiveLayer> layer = make_layer(*archive, layer_options, {}, null_log());
  REQUIRE(layer);
  std::vector<std::string> changed;
  for (const AttributeOverride& change : layer->layer.overrides) changed.push_back(change.path);
  CHECK(changed == std::vector<std::string>{"log", "b"});
}

TEST_CASE("contents are looked for beside the manifest and nowhere else") {
  const TempDir dir("/var/tmp");
  write_file(dir / "outside", "secret");
  std::filesystem::create_directory(dir / "in");
  write_file(dir / "in/file", "12345");
  std::filesystem::create_symlink("../outside", dir / "in/link");
  const auto refused = [&](const std::string& line) { return refusal(line, dir / "in"); };
  CHECK_THAT(refused("f type=file contents=../outside\n"), Catch::StartsWith("manifest: line 2: "));
  CHECK_THAT(refused("\n\nf contents=link\n"), Catch::StartsWith("manifest: line 4: "));
  CHECK_THAT(refused("f contents=" + (dir / "in/file").string()), Catch::Contains("absolute"));
  CHECK_THAT(refused("f contents=missing"), Catch::Contains("missing"));
  CHECK_THAT(refused("f contents=."), Catch::Contains("no regular file"));
  CHECK(refused("f contents=file size=6") == "manifest: line 2: file has 5 bytes, not 6");
}

TEST_CASE("a manifest that cannot be understood is refused with its line") {
  const TempDir dir("/var/tmp");
  const auto refused = [&](const std::string& line) { return refusal(line, dir.path()); };
  CHECK(refused("# fine\n..\n") == "manifest: line 3: .. leaves a directory, and none was entered");
  CHECK(refused("a type=folder") == "manifest: line 2: type=folder cannot be understood");
  CHECK_THAT(refused("a mode=u+rwx type=dir"), Catch::Contains("mode=u+rwx"));
  CHECK_THAT(refused("a mode=17777 type=dir"), Catch::Contains("mode=17777"));
  CHECK_THAT(refused("/set uid=-1"), Catch::Contains("uid=-1"));
  CHECK_THAT(refused("a uid=4294967295 type=fifo"), Catch::Contains("4294967295"));
  CHECK_THAT(refused("a time=1.1000000000"), Catch::Contains("time="));
  CHECK(refused("a moed=0644") == "manifest: line 2: moed=0644 is no keyword of mtree(5)");
  CHECK(refused("\na type=dir uname=no-such-user-here") ==
        "manifest: line 3: this host knows no user no-such-user-here (uid=NUMBER is the way to "
        "name it)");
  CHECK_THAT(refused("/set gname=no-such-group-here\na type=dir"),
             Catch::StartsWith("manifest: line 3: this host knows no group no-such-group-here"));
  CHECK_THAT(refused("a type=char device=native,1"), Catch::Contains("device="));
  CHECK_THAT(refused("a type=char device=native,1,99999999999"), Catch::Contains("device="));
  CHECK_THAT(refused("../a type=fifo"), Catch::Contains(".."));
  CHECK_THAT(refused("a type=fifo\na/b type=fifo"), Catch::Contains("a/b"));
  CHECK_THAT(refused("a\\000b type=fifo"), Catch::Contains("NUL"));
  CHECK_THAT(refused(std::string(2 << 20, 'a')), Catch::Contains("is longer than"));
  // Nobody asked for manifests: a layer of a container image must not name files of this host.
  const auto source = std::make_shared<MemorySource>("#mtree\na type=fifo\n", "layer");
  CHECK_FALSE(read_archive(source, {}, {}, nullptr, null_log()));
}

TEST_CASE("a manifest that is cut off or changed anywhere is read or refused") {
  const TempDir dir("/var/tmp");
  write_file(dir / "file", "12345");
  const std::string whole =
      "#mtree\n/set type=dir mode=0755 uid=0 gid=0 time=1.5\n.\na\n  b type=file contents=file "
      "size=5\n  c\\040d type=link \\\n link=b\n..\nx/y type=char device=linux,1,3\n/unset all\nz "
      "mode=1\n";
  REQUIRE(open(whole, dir.path()));
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const Result<Layer> cut = open(whole.substr(0, size), dir.path());
    CHECK((cut || cut.error().what.find('\n') == std::string::npos));
  }
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (const char replaced : {'\0', '\n', '\\', '=', '/', '9', '\xff'}) {
      std::string changed = whole;
      changed[at] = replaced;
      const Result<Layer> other = open(changed, dir.path());
      CHECK((other || !other.error().what.empty()));
    }
  }
}

}  // namespace mkvirtfs::archive
