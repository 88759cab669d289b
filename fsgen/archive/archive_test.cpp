// SPDX-License-Identifier: BSD-3-Clause
// Archives that the world's programs make, against the directories that they were made of.
#include "fsgen/archive/archive.h"

#include <catch2/catch.hpp>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "block/host_files.h"
#include "fsgen/stream/file_source.h"
#include "fsgen/stream/testing/stream_data.h"
#include "fsgen/tree/scan.h"
#include "fsgen/tree/tree_builder.h"
#include "tests/support/foreign_tools.h"
#include "tests/support/materialise.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs::archive {
namespace {

using testing::MemorySource;

void run(const std::string& command) {
  const Ran ran = run_tool({"bash", "-c", "set -euo pipefail; " + command});
  INFO(command << "\n" << ran.output);
  REQUIRE(ran.status == 0);
}

struct Opened {
  Archive archive;
  Layer layer;
};

StreamOptions with_spool() {
  StreamOptions options;
  options.spool = std::make_shared<SpoolSpace>("/var/tmp", std::uint64_t{1} << 30);
  return options;
}

Result<Opened> open(std::shared_ptr<ByteSource> source, const ReadOptions& options = {},
                    const LayerOptions& layer_options = {}) {
  const StreamOptions stream_options = with_spool();
  Result<Archive> archive = read_archive(std::move(source), options, stream_options, null_log());
  if (!archive) return std::unexpected(archive.error());
  Result<ArchiveLayer> layer = make_layer(*archive, layer_options, stream_options, null_log());
  if (!layer) return std::unexpected(layer.error());
  return Opened{std::move(*archive), std::move(layer->layer)};
}

Opened open_file(const std::filesystem::path& path) {
  Result<std::shared_ptr<ByteSource>> source =
      open_file_source(path.string(), OnChange::error, null_log());
  REQUIRE(source);
  Result<Opened> opened = open(*source);
  INFO((opened ? "" : opened.error().what));
  REQUIRE(opened);
  return std::move(*opened);
}

std::string content(const Layer& layer, std::string_view path) {
  const Node* node = layer.tree->find_path(path);
  REQUIRE(node != nullptr);
  std::string bytes(node->size_bytes, '?');
  const auto no = static_cast<ContentNo>(node - layer.tree->nodes().data());
  const Result<void> read = layer.contents->read(no, 0, std::as_writable_bytes(std::span(bytes)));
  INFO((read ? "" : read.error().what));
  REQUIRE(read);
  return bytes;
}

Scan scan_of(const std::filesystem::path& directory) {
  Result<Scan> scan = scan_directory(directory.string(), {}, null_log());
  REQUIRE(scan);
  return std::move(*scan);
}

/// That every file of both reads the same, in pieces and at once.
void check_same_bytes(const Scan& scan, const Layer& layer) {
  const auto hosts = make_host_files(scan.files, OnChange::error, null_log());
  REQUIRE(scan.tree->node_count() == layer.tree->node_count());
  for (NodeNo no = 0; no < scan.tree->node_count(); ++no) {
    const Node& node = scan.tree->node(no);
    if (!node.is_regular()) continue;
    REQUIRE(layer.tree->node(no).size_bytes == node.size_bytes);
    const std::uint64_t size = std::min<std::uint64_t>(node.size_bytes, 4 << 20);
    std::string expected(size, '?');
    std::string found(size, '!');
    REQUIRE(hosts->read(ContentNo{no}, 0, std::as_writable_bytes(std::span(expected))));
    const auto out = std::as_writable_bytes(std::span(found));
    constexpr std::size_t kPiece = 70'001;
    for (std::size_t at = 0; at < out.size(); at += kPiece) {
      const auto part = out.subspan(at, std::min(kPiece, out.size() - at));
      REQUIRE(layer.contents->read(ContentNo{no}, at, part));
    }
    INFO(scan.tree->path(no));
    CHECK(found == expected);

    const Result<ContentStore::Pin> pin = layer.contents->pin(ContentNo{no});
    REQUIRE(pin);
    if (!pin->file) continue;
    REQUIRE(::pread(pin->file.fd(), found.data(), size, static_cast<off_t>(pin->file_offset)) ==
            static_cast<ssize_t>(size));
    CHECK(found == expected);
    CHECK(layer.contents->recheck(ContentNo{no}, pin->file));
  }
}

/// That both trees are one, and where they are not.
void check_same_tree(const Scan& scan, const Layer& layer) {
  const SourceTree& tree = *layer.tree;
  REQUIRE(tree.node_count() == scan.tree->node_count());
  for (NodeNo no = 0; no < tree.node_count(); ++no) {
    INFO(tree.path(no));
    CHECK(tree.path(no) == scan.tree->path(no));
    CHECK(tree.node(no).mode == scan.tree->node(no).mode);
    CHECK(tree.node(no).uid == scan.tree->node(no).uid);
    CHECK(tree.node(no).gid == scan.tree->node(no).gid);
    CHECK(tree.node(no).mtime() == scan.tree->node(no).mtime());
    Range dense;
    Range scanned_dense;
    const auto runs = tree.data_runs(no, dense);
    const auto scanned = scan.tree->data_runs(no, scanned_dense);
    CHECK(std::vector(runs.begin(), runs.end()) == std::vector(scanned.begin(), scanned.end()));
    const auto attributes = tree.xattrs(tree.node(no).xattrs);
    const auto scanned_attributes = scan.tree->xattrs(scan.tree->node(no).xattrs);
    CHECK(std::vector(attributes.begin(), attributes.end()) ==
          std::vector(scanned_attributes.begin(), scanned_attributes.end()));
  }
  CHECK(tree.id() == scan.tree->id());
}

bool is_pinned(const Layer& layer, std::string_view path) {
  const Node* node = layer.tree->find_path(path);
  REQUIRE(node != nullptr);
  const auto pin = layer.contents->pin(static_cast<ContentNo>(node - layer.tree->nodes().data()));
  REQUIRE(pin);
  return static_cast<bool>(pin->file);
}

/// Some of everything that every format keeps.
TreeBuilder plain_tree() {
  TreeBuilder builder;
  builder.root().mode(0750).mtime({1'500'000'000, 0});
  builder.directory("bin").mode(0711).mtime({1'600'000'000, 0});
  builder.patterned_file("bin/large", 3'000'001).mode(0755).mtime({1'600'000'001, 0});
  builder.file("bin/small", "seven b").mtime({1'600'000'002, 0});
  builder.file("bin/empty", "").mtime({1, 0});
  builder.hard_link("bin/twin", "bin/small").hard_link("another", "bin/large");
  builder.directory("empty").mtime({1'600'000'000, 0});
  builder.symlink("link", "bin/../bin/small").mtime({1'600'000'003, 0});
  builder.file("a name with \xff\xfe and blanks", "x").mtime({1'600'000'004, 0});
  builder.fifo("fifo").mtime({1'600'000'005, 0});
  return builder;
}

}  // namespace

TEST_CASE("tar and cpio of a directory are that directory") {
  const TempDir dir("/var/tmp");
  std::filesystem::create_directory(dir / "tree");
  testing::materialise(plain_tree().build(), dir / "tree");
  const Scan scan = scan_of(dir / "tree");
  const std::string cd = "cd " + (dir / "tree").string() + "; ";
  const std::string out = (dir / "packed").string();
  for (const char* command :
       {"tar -cf $O --format=gnu .", "tar -cf $O --format=posix .", "tar -cf $O --format=ustar .",
        "bsdtar -cf $O --format=pax .", "bsdtar -cf $O --format=gnutar .",
        "find . | cpio -o --quiet -H newc >$O", "find . | cpio -o --quiet -H odc >$O",
        "find . | cpio -o --quiet -H crc >$O", "bsdtar -cf $O --format=newc .",
        "bsdtar -cf $O --format=cpio .", "tar -cf - . | cat >$O", "tar -czf $O .",
        "bsdtar -cf - --format=newc . | gzip -1 >$O"}) {
    INFO(command);
    run("O=" + out + "; rm -f $O; " + cd + command);
    const Opened opened = open_file(out);
    CHECK(opened.layer.tree->id() == scan.tree->id());
    CHECK(opened.layer.implied_directories.empty());
    check_same_bytes(scan, opened.layer);
    const bool packed = std::string_view(command).contains('z');
    CHECK(is_pinned(opened.layer, "bin/large") == !packed);
  }
}

TEST_CASE("holes, attributes, ACLs, ids and times come through pax as they were") {
  const TempDir dir("/var/tmp");
  std::filesystem::create_directory(dir / "tree");
  TreeBuilder builder = plain_tree();
  builder.sparse_file("holes", 1 << 20, {{4096, 8192}, {65536, 4096}}).mtime({-1000, 0});
  builder.sparse_file("all hole", 100'000'000, {});
  builder.sparse_file("hole behind", 1 << 20, {{0, 4096}});
  builder.file("later", "x").mtime({5'000'000'000, 123'456'789}).owner(100'000, 4'000'000'000);
  builder.file("noted", "x").xattr("user.note", std::string("a\0b", 3)).xattr("user.empty", "");
  // owner rw-, user 1000 r--, group rwx, mask r-x, others nothing
  const std::string acl(
      "\2\0\0\0\1\0\6\0\xff\xff\xff\xff\2\0\4\0\xe8\3\0\0\4\0\7\0\xff\xff\xff\xff"
      "\x10\0\5\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff",
      44);
  builder.file("acl", "x").mode(0650).xattr("system.posix_acl_access", acl);
  builder.directory("inherits").xattr("system.posix_acl_default", acl);
  builder.device("null", 'c', {1, 3}).device("disk", 'b', {259, 70000});
  testing::materialise(builder.build(), dir / "tree");
  const Scan scan = scan_of(dir / "tree");
  const std::string cd = "cd " + (dir / "tree").string() + "; ";
  const std::string out = (dir / "packed").string();
  for (const char* command :
       {"bsdtar -cf $O --format=pax .",
        "tar -cf $O --format=posix --xattrs --xattrs-include='*' --acls --sparse .",
        "tar -czf $O --format=posix --sparse-version=0.1 --xattrs --xattrs-include='*' --acls -S "
        "."}) {
    INFO(command);
    run("O=" + out + "; rm -f $O; " + cd + command);
    const Opened opened = open_file(out);
    check_same_tree(scan, opened.layer);
    check_same_bytes(scan, opened.layer);
  }
}

TEST_CASE("a read fails when the archive was changed, and names the member") {
  const TempDir dir;
  std::filesystem::create_directory(dir / "tree");
  write_file(dir / "tree/f", "as it was");
  run("cd " + dir.path().string() + "; bsdtar -cf a.tar -C tree .");
  const Opened opened = open_file(dir / "a.tar");
  CHECK(content(opened.layer, "f") == "as it was");
  run("cd " + dir.path().string() + "; printf x >>a.tar");
  std::string bytes(9, '?');
  const Node* node = opened.layer.tree->find_path("f");
  const auto no = static_cast<ContentNo>(node - opened.layer.tree->nodes().data());
  const Result<void> read =
      opened.layer.contents->read(no, 0, std::as_writable_bytes(std::span(bytes)));
  REQUIRE_FALSE(read);
  CHECK(read.error().code == Errc::source_changed);
  CHECK_THAT(read.error().what, Catch::StartsWith("f: "));
}

}  // namespace mkvirtfs::archive
