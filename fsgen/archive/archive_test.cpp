// SPDX-License-Identifier: BSD-3-Clause
// Archives that the world's programs make, against the directories that they were made of.
#include "fsgen/archive/archive.h"

#include <catch2/catch.hpp>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "block/host_files.h"
#include "fsgen/archive/testing/opened.h"
#include "fsgen/host/scan.h"
#include "fsgen/stream/file_source.h"
#include "fsgen/stream/testing/stream_data.h"
#include "fsgen/tree/testing/layer_bytes.h"
#include "fsgen/tree/tree_builder.h"
#include "tests/support/foreign_tools.h"
#include "tests/support/hinted_text.h"
#include "tests/support/materialise.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs::archive {
namespace {

using testing::bytes_at;
using testing::MemorySource;

using testing::open;
using testing::Opened;
using testing::OpenOptions;

void run(const std::string& command) { testing::run_shell(command); }

Opened open_file(const std::filesystem::path& path) {
  Result<std::shared_ptr<ByteSource>> source =
      open_file_source(path.string(), OnChange::error, null_log());
  REQUIRE(source);
  return testing::whole(open(*source));
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
  for (NodeNo no; no < scan.tree->node_count(); ++no) {
    const Node& node = scan.tree->node(no);
    if (!node.is_regular()) continue;
    REQUIRE(layer.tree->node(no).size_bytes == node.size_bytes);
    const std::uint64_t size = std::min<std::uint64_t>(node.size_bytes, 4 << 20);
    std::string expected(size, '?');
    std::string found(size, '!');
    REQUIRE(hosts->read(content_no(no), 0, std::as_writable_bytes(std::span(expected))));
    const auto out = std::as_writable_bytes(std::span(found));
    constexpr std::size_t kPiece = 70'001;
    for (std::size_t at = 0; at < out.size(); at += kPiece) {
      const auto part = out.subspan(at, std::min(kPiece, out.size() - at));
      REQUIRE(layer.contents->read(content_no(no), at, part));
    }
    INFO(scan.tree->path(no));
    CHECK(found == expected);

    const Result<ContentStore::Pin> pin = layer.contents->pin(content_no(no));
    REQUIRE(pin);
    if (!pin->file) continue;
    REQUIRE(::pread(pin->file.fd(), found.data(), size, static_cast<off_t>(pin->file_offset)) ==
            static_cast<ssize_t>(size));
    CHECK(found == expected);
    CHECK(layer.contents->recheck(content_no(no), pin->file));
  }
}

/// That both trees are one, and where they are not.
void check_same_tree(const Scan& scan, const Layer& layer) {
  const SourceTree& tree = *layer.tree;
  REQUIRE(tree.node_count() == scan.tree->node_count());
  for (NodeNo no; no < tree.node_count(); ++no) {
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
  const auto pin = layer.contents->pin(content_no(layer.tree->number_of(*node)));
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
  const BuiltTree built = plain_tree().build();
  if (!testing::may_materialise(built)) return;
  testing::materialise(built, dir / "tree");
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
  const BuiltTree built = builder.build();
  if (!testing::may_materialise(built)) return;
  testing::materialise(built, dir / "tree");
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
  CHECK(bytes_at(opened.layer, "f") == "as it was");
  run("cd " + dir.path().string() + "; printf x >>a.tar");
  std::string bytes(9, '?');
  const Node* node = opened.layer.tree->find_path("f");
  const auto no = content_no(opened.layer.tree->number_of(*node));
  const Result<void> read =
      opened.layer.contents->read(no, 0, std::as_writable_bytes(std::span(bytes)));
  REQUIRE_FALSE(read);
  CHECK(read.error().code == Errc::source_changed);
  CHECK_THAT(read.error().what, Catch::StartsWith("f: "));
}

TEST_CASE("every other format gives the bytes that were packed") {
  const TempDir dir("/var/tmp");
  std::filesystem::create_directory(dir / "tree");
  TreeBuilder builder;
  builder.directory("d")
      .patterned_file("d/large", 3'000'001)
      .file("small", "seven b")
      .file("e", "");
  builder.symlink("link", "d/large");
  const BuiltTree built = builder.build();
  if (!testing::may_materialise(built)) return;
  testing::materialise(built, dir / "tree");
  const Scan scan = scan_of(dir / "tree");
  struct Case {
    const char* command;
    bool pinned;
    bool spooled;
  };
  for (const Case& each : {Case{"zip -qry $O.zip . && mv $O.zip $O", false, false},
                           {"zip -qry0 $O.zip . && mv $O.zip $O", true, false},
                           {"bsdtar -cf - --format=zip . | cat >$O", false, false},
                           {"bsdtar -cf $O --format=zip .", false, false},
                           {"7z a -bd $O.7z . && mv $O.7z $O", true, true},
                           {"7z a -bd -mx=0 $O.7z . && mv $O.7z $O", true, true},
                           {"bsdtar -cf $O --format=xar .", true, true},
                           {"xorriso -as mkisofs -quiet -R -o $O .", true, false},
                           {"genisoimage -quiet -R -J -o $O .", true, false}}) {
    INFO(each.command);
    run("cd " + (dir / "tree").string() + "; O=" + (dir / "packed").string() + "; rm -f $O; { " +
        each.command + "; } >/dev/null");
    const Opened opened = open_file(dir / "packed");
    check_same_bytes(scan, opened.layer);
    CHECK(is_pinned(opened.layer, "d/large") == each.pinned);
    CHECK((opened.archive.spool != nullptr) == each.spooled);
    CHECK(opened.layer.tree->find_path("link")->is_symlink());
  }
}

TEST_CASE("encrypted members need their passphrase") {
  const TempDir dir;
  std::filesystem::create_directory(dir / "tree");
  write_file(dir / "tree/f", std::string(5000, 'x'));
  run("cd " + (dir / "tree").string() + "; zip -qr -P right ../a.zip .");
  const auto source = [&] {
    return *open_file_source((dir / "a.zip").string(), OnChange::error, null_log());
  };
  const Result<Opened> without = open(source());
  REQUIRE_FALSE(without);
  CHECK_THAT(hinted_text(without.error()),
             Catch::EndsWith(": member f, byte 0: is encrypted [passphrase-file]"));
  ReadOptions options;
  options.passphrases = {"wrong", "right"};
  const Result<Opened> with = open(source(), {.read = options});
  REQUIRE(with);
  CHECK(bytes_at(with->layer, "f") == std::string(5000, 'x'));
  options.passphrases = {"wrong"};
  CHECK_FALSE(open(source(), {.read = options}));
}

TEST_CASE("a wrong passphrase that passes zip's check does not hide the right one") {
  const TempDir dir;
  write_file(dir / "f", std::string(5000, 'x'));
  run("cd " + dir.path().string() + "; zip -q -P right a.zip f");
  const auto source = *open_file_source((dir / "a.zip").string(), OnChange::error, null_log());
  // Of 3000 wrong ones some dozen pass: the check is one byte.
  ReadOptions options;
  int passed = 0;
  for (int i = 0; i < 3000 && passed < 2; ++i) {
    const std::string wrong = "wrong" + std::to_string(i);
    options.passphrases = {wrong};
    const Result<Opened> without = open(source, {.read = options});
    REQUIRE_FALSE(without);
    if (without.error().what.find("passphrase") != std::string::npos) continue;
    ++passed;
    options.passphrases = {wrong, "right"};
    const Result<Opened> with = open(source, {.read = options});
    REQUIRE(with);
    CHECK(bytes_at(with->layer, "f") == std::string(5000, 'x'));
  }
  CHECK(passed == 2);
}

TEST_CASE("what was read of a compressed archive is kept for the next time") {
  const TempDir dir;
  std::filesystem::create_directory(dir / "tree");
  write_file(dir / "tree/f", "as it was");
  run("cd " + dir.path().string() + "; tar -czf a.tgz -C tree .");
  const IndexCache cache((dir / "made/for/it").string(), null_log());
  const auto read = [&] {
    const auto source = open_file_source((dir / "a.tgz").string(), OnChange::error, null_log());
    REQUIRE(source);
    const StreamOptions stream_options = testing::with_spool();
    Result<Archive> archive = read_archive(*source, {}, stream_options, &cache, null_log());
    REQUIRE(archive);
    const Result<ArchiveLayer> layer = make_layer(*archive, {}, stream_options, null_log());
    REQUIRE(layer);
    CHECK(bytes_at(layer->layer, "f") == "as it was");
    return archive->from_kept_index;
  };
  CHECK_FALSE(read());
  CHECK(read());
  const auto kept = [&] {
    return std::filesystem::directory_iterator(dir / "made/for/it")->path();
  };
  CHECK((std::filesystem::status(dir / "made/for/it").permissions() &
         std::filesystem::perms::others_all) == std::filesystem::perms::none);

  SECTION("unless it is damaged") {
    std::string bytes = read_file(kept());
    for (const std::size_t at : {std::size_t{0}, bytes.size() / 2, bytes.size() - 1}) {
      std::string damaged = bytes;
      damaged[at] = static_cast<char>(damaged[at] ^ 1);
      write_file(kept(), damaged);
      CHECK_FALSE(read());
      CHECK(read());
    }
    write_file(kept(), bytes.substr(0, bytes.size() - 1));
    CHECK_FALSE(read());
    write_file(kept(), "");
    CHECK_FALSE(read());
  }
  SECTION("unless the archive is another one") {
    run("touch -d @1 " + (dir / "a.tgz").string());
    CHECK_FALSE(read());
  }
  SECTION("unless others may write there") {
    std::filesystem::permissions(dir / "made/for/it", std::filesystem::perms::all);
    CHECK_FALSE(read());
    CHECK_FALSE(read());
  }
}

TEST_CASE("the log of members is kept even when the stream must be gone over again") {
  const TempDir dir;
  std::filesystem::create_directory(dir / "tree");
  std::string text;
  for (int i = 0; i < 60'000; ++i) text += std::to_string(i * 7919) + "\n";
  write_file(dir / "tree/a", text);
  write_file(dir / "tree/z", "at the end");
  for (const std::string packer : {"zstd -q", "lz4 -q", "compress", "xz -T1 -0"}) {
    INFO(packer);
    run("cd " + dir.path().string() + "; tar -cf - -C tree a z | " + packer + " -c >packed");
    const IndexCache cache((dir / packer).string(), null_log());
    StreamOptions options = testing::with_spool();
    options.span_bytes = 10'000;
    std::uint64_t spool_bytes = 0;
    for (const bool is_again : {false, true, true}) {
      const auto source = open_file_source((dir / "packed").string(), OnChange::error, null_log());
      REQUIRE(source);
      const Result<Archive> archive = read_archive(*source, {}, options, &cache, null_log());
      REQUIRE(archive);
      CHECK(archive->from_kept_index == is_again);
      const Result<ArchiveLayer> layer = make_layer(*archive, {}, options, null_log());
      REQUIRE(layer);
      CHECK(bytes_at(layer->layer, "z") == "at the end");
      CHECK((bytes_at(layer->layer, "a") == text));
      const std::uint64_t now = stream_facts(*archive->stream)->spool_bytes;
      if (!is_again) spool_bytes = now;
      CHECK(now == spool_bytes);
      CHECK((now == 0) == (packer == "zstd -q"));
    }
    // Where it may not be spooled again, that is reported as it was at first.
    options.spool = std::make_shared<SpoolSpace>("/tmp", 1000);
    const auto source = open_file_source((dir / "packed").string(), OnChange::error, null_log());
    REQUIRE(source);
    const Result<Archive> archive = read_archive(*source, {}, options, &cache, null_log());
    REQUIRE(archive.has_value() == (packer == "zstd -q"));
    if (!archive) CHECK(archive.error().code == Errc::no_space);
  }
}

TEST_CASE("only so many indexes are kept, and the longest unused go first") {
  const TempDir dir;
  const IndexCache cache((dir / "cache").string(), null_log());
  MemberLog log;
  Member member;
  member.path = "m";
  member.mode = S_IFDIR;
  REQUIRE(log.append(member));
  std::vector<std::shared_ptr<ByteSource>> sources;
  for (std::size_t i = 0; i < IndexCache::kMostFiles + 3; ++i) {
    const std::string path = (dir / std::to_string(i)).string();
    write_file(path, "x");
    sources.push_back(*open_file_source(path, OnChange::error, null_log()));
    cache.keep(*sources.back(), 0, {Compression::gzip, "tar", {}, log, {}, {}});
    for (const auto& kept : std::filesystem::directory_iterator(dir / "cache")) {
      // All of them a second older.
      std::filesystem::last_write_time(kept, kept.last_write_time() - std::chrono::seconds(1));
    }
  }
  CHECK_FALSE(cache.find(*sources[0], 0));
  CHECK_FALSE(cache.find(*sources[2], 0));
  CHECK(cache.find(*sources[3], 0));
  CHECK(cache.find(*sources.back(), 0));
}

TEST_CASE("a pipe is read to its end first") {
  const TempDir dir;
  std::filesystem::create_directory(dir / "tree");
  write_file(dir / "tree/f", "piped");
  const std::string fifo = (dir / "fifo").string();
  run("mkfifo " + fifo);
  const std::string command = "tar -czf " + fifo + " -C " + (dir / "tree").string() + " . &";
  REQUIRE(std::system(command.c_str()) == 0);
  const StreamOptions options = testing::with_spool();
  CHECK_FALSE(open_archive_file((dir / "nothing").string(), options, null_log()));
  const auto source = open_archive_file(fifo, options, null_log());
  REQUIRE(source);
  const Result<Opened> opened = open(*source);
  REQUIRE(opened);
  CHECK(bytes_at(opened->layer, "f") == "piped");
}

}  // namespace mkvirtfs::archive
