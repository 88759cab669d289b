// SPDX-License-Identifier: BSD-3-Clause
// Specs in, images out: what an embedder does, without a command line.
#include "compose/prepare.h"

#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "compose/source_base.h"
#include "support/mutex.h"
#include "support/sha256.h"
#include "support/text.h"
#include "tests/support/allocations.h"
#include "tests/support/foreign_tools.h"
#include "tests/support/hinted_text.h"
#include "tests/support/temp_dir.h"
#include "tests/toy_format/toy_formats.h"

namespace mkvirtfs {
namespace {

namespace fs = std::filesystem;

/// What was logged.
class KeptLog final : public LogSink {
 public:
  void write(LogLevel, std::string_view message) noexcept override {
    const MutexLock lock(mutex_);
    text_.append(message).append("\n");
  }
  std::string text() {
    const MutexLock lock(mutex_);
    return text_;
  }

 private:
  Mutex mutex_;
  std::string text_ GUARDED_BY(mutex_);
};

/// A place with a source in it: "source" has file, sub/inner and link.
struct Bench {
  Bench() : root(fs::temp_directory_path()) {
    fs::create_directories(root / "source/sub");
    write_file(root / "source/file", "contents");
    write_file(root / "source/sub/inner", std::string(5000, 'i'));
    fs::create_symlink("file", root / "source/link");
    fs::create_directory(root / "spool");
  }
  std::string at(std::string_view name) const { return (root / name).string(); }
  /// What a program makes of words; `place` is where it works.
  void run(const std::vector<std::string>& words) const {
    std::vector<std::string> all{"env", "-C", root.path().string()};
    all.insert(all.end(), words.begin(), words.end());
    const Ran ran = run_tool(all);
    INFO(ran.output);
    REQUIRE(ran.status == 0);
  }
  ImageSpec spec(std::string_view source = "source") const {
    return {.sources = {{.path = at(source)}}, .format = "ext4", .options = {{"free", "1M"}}};
  }
  ResourceOptions options() {
    return {.log = &log, .spool_directory = at("spool"), .reader_path = MKVIRTFS_READER};
  }
  Result<PreparedImage> prepare(const ImageSpec& spec) {
    Resources resources(options());
    return mkvirtfs::prepare(spec, resources);
  }
  PreparedImage made(const ImageSpec& spec) {
    Result<PreparedImage> prepared = prepare(spec);
    if (!prepared) FAIL(prepared.error().what);
    return std::move(*prepared);
  }
  Error refused(const ImageSpec& spec) {
    const Result<PreparedImage> prepared = prepare(spec);
    REQUIRE_FALSE(prepared);
    return prepared.error();
  }

  TempDir root;
  KeptLog log;
};

const Node& node(const PreparedImage& prepared, std::string_view path) {
  const Node* found = prepared.tree->find_path(path);
  CAPTURE(path);
  REQUIRE(found != nullptr);
  return *found;
}

bool has(const PreparedImage& prepared, std::string_view path) {
  return prepared.tree->find_path(path) != nullptr;
}

std::string all_bytes(BlockDevice& device) {
  std::string bytes(device.geometry().size_bytes, '\0');
  const Result<void> read = device.read(0, std::as_writable_bytes(std::span(bytes)));
  if (!read) FAIL(read.error().what);
  return bytes;
}

/// Where in the image the bytes of a file begin.
std::uint64_t place_of(const PreparedImage& prepared, std::string_view path) {
  const auto content =
      ContentNo{static_cast<std::uint32_t>(&node(prepared, path) - prepared.tree->nodes().data())};
  std::uint64_t place = 0;
  for_each_extent(*prepared.image, {0, prepared.image->size_bytes()}, [&](const Extent& extent) {
    if (extent.kind != ExtentKind::content || extent.content != content) return true;
    place = extent.offset;
    return false;
  });
  CAPTURE(path);
  REQUIRE(place != 0);
  return place;
}

Result<std::string> read_at(const PreparedImage& prepared, std::uint64_t offset,
                            std::size_t length) {
  std::string bytes(length, '\0');
  const Result<void> read = prepared.device->read(offset, std::as_writable_bytes(std::span(bytes)));
  if (!read) return propagate(read);
  return bytes;
}

bool has_remark(const PreparedImage& prepared, Remark::About about) {
  return std::ranges::find(prepared.report.remarks, about, &Remark::about) !=
         prepared.report.remarks.end();
}

}  // namespace

TEST_CASE("a directory becomes an ext4 device that e2fsck accepts") {
  Bench bench;
  ImageSpec spec = bench.spec();
  spec.options = {{"label", "root"}, {"free", "1M"}, {"journal"}};
  const PreparedImage prepared = bench.made(spec);
  CHECK(prepared.tree->node_count() == 5);
  CHECK(prepared.report.sources.size() == 1);
  CHECK(prepared.report.sources[0].kind == "directory");
  CHECK(prepared.report.remarks.empty());
  CHECK(prepared.report.scan_seconds > 0);
  CHECK(&prepared.device->image() == prepared.image.get());
  write_image(*prepared.device, bench.root / "image");
  const Ran checked = run_tool({"e2fsck", "-fn", bench.at("image")});
  INFO(checked.output);
  CHECK(checked.status == 0);
  CHECK_THAT(run_tool({"dumpe2fs", "-h", bench.at("image")}).output,
             Catch::Contains("root") && Catch::Contains("has_journal"));
}

TEST_CASE("the default format is the registry's, and an option may stand for its format") {
  Bench bench;
  ImageSpec spec{.sources = {{.path = bench.at("source")}}};
  CHECK(bench.made(spec).image->facts().front().name == "format");
  CHECK(std::get<std::string>(bench.made(spec).image->facts().front().value) == "ext2");
  write_file(bench.root / "source/user-data", "u");
  write_file(bench.root / "source/meta-data", "m");
  spec.options = {{"preset", "cidata"}};
  CHECK(all_bytes(*bench.made(spec).device).substr(32769, 5) == "CD001");
}

TEST_CASE("a registry with a format more makes that format") {
  Bench bench;
  ResourceOptions options = bench.options();
  options.formats = &toy::formats();
  Resources resources(options);
  ImageSpec spec = bench.spec();
  spec.format = "toy";
  spec.options = {{"label", "box"}};
  const auto prepared = prepare(spec, resources);
  REQUIRE(prepared);
  CHECK(all_bytes(*prepared->device).starts_with("TOY box"));
  CHECK(bench.refused(spec).code == Errc::usage);
}

TEST_CASE("errors are data: what kind, and of what") {
  Bench bench;
  CHECK(bench.refused({.format = "ext4"}).code == Errc::usage);
  const Error missing = bench.refused(bench.spec("missing"));
  CHECK(missing.code == Errc::unreadable);
  CHECK_THAT(missing.what, Catch::Contains("missing"));
  ImageSpec spec = bench.spec();
  spec.sources[0].at = "a/../b";
  CHECK(bench.refused(spec).at_fault.option == "at");
  CHECK(bench.refused(spec).at_fault.value == "a/../b");
  spec = bench.spec();
  spec.sources[0].at = "at";
  spec.sources.push_back({.path = bench.at("source"), .at = "at/file/below"});
  const Result<PreparedImage> blocked = bench.prepare(spec);
  REQUIRE_FALSE(blocked);
  CHECK(blocked.error().code == Errc::usage);
  spec = bench.spec();
  spec.options = {{"size", "64K"}};  // without the spare inodes that are there by default
  CHECK(has_remark(bench.made(spec), Remark::About::gave_way));
  spec.options = {{"size", "16K"}};
  const Result<PreparedImage> small = bench.prepare(spec);
  REQUIRE_FALSE(small);
  CHECK(small.error().code == Errc::does_not_fit);
  write_file(bench.root / "noise", "no archive at all");
  CHECK(bench.refused(bench.spec("noise")).code == Errc::unreadable);
}

TEST_CASE("a spec that cannot be is refused before a source is read") {
  Bench bench;
  for (const ImageSpec& wrong : std::vector<ImageSpec>{
           {.sources = {{.path = bench.at("missing")}}, .format = "ext9"},
           {.sources = {{.path = bench.at("missing")}}, .options = {{"size", "big"}}},
           {.sources = {{.path = bench.at("missing")}}, .format = "iso", .options = {{"journal"}}},
           {.sources = {{.path = bench.at("missing"), .at = ".."}}},
       }) {
    const Result<PreparedImage> prepared = bench.prepare(wrong);
    REQUIRE_FALSE(prepared);
    CHECK(prepared.error().code == Errc::usage);
  }
}

TEST_CASE("sources are laid over each other, each at its place") {
  Bench bench;
  fs::create_directories(bench.root / "over/sub");
  write_file(bench.root / "over/file", "replaced");
  bench.run({"tar", "-C", "source", "-cf", "source.tar", "."});
  ImageSpec spec = bench.spec();
  spec.sources.push_back({.path = bench.at("over")});
  spec.sources.push_back({.path = bench.at("source.tar"), .at = "/deep/er"});
  const PreparedImage prepared = bench.made(spec);
  CHECK(node(prepared, "file").size_bytes == 8);
  CHECK(read_at(prepared, place_of(prepared, "file"), 8).value() == "replaced");
  CHECK(has(prepared, "sub/inner"));
  CHECK(read_at(prepared, place_of(prepared, "deep/er/file"), 8).value() == "contents");
  REQUIRE(prepared.report.sources.size() == 3);
  CHECK(prepared.report.sources[2].kind == "archive");
  CHECK(prepared.report.sources[2].access == "direct");
}

TEST_CASE("rules, owners, modes and attributes are as the spec of a source says") {
  Bench bench;
  fs::permissions(bench.root / "source/file", fs::perms{0754});
  ::setxattr(bench.at("source/file").c_str(), "user.key", "value", 5, 0);
  ImageSpec spec = bench.spec();
  SourceSpec& source = spec.sources[0];
  CHECK(node(bench.made(spec), "file").mode == (S_IFREG | 0754));
  CHECK(node(bench.made(spec), "file").xattrs != 0);
  source.mode_mask = 0707;
  source.xattrs = false;
  source.owner_uid = 12;
  source.owner_gid = 34;
  source.rules = {{.include = true, .glob = "sub/inner"}, {.glob = "inner"}, {.glob = "link"}};
  const PreparedImage prepared = bench.made(spec);
  CHECK(node(prepared, "file").mode == (S_IFREG | 0704));
  CHECK(node(prepared, "file").xattrs == 0);
  CHECK(node(prepared, "file").uid == 12);
  CHECK(node(prepared, "file").gid == 34);
  CHECK(has(prepared, "sub/inner"));
  CHECK_FALSE(has(prepared, "link"));
  CHECK(prepared.report.passed_over.excluded_count == 1);
  source.owner_uid.reset();
  source.owner_gid.reset();
  source.uid_map = {{.from = ::getuid(), .to = 77}};
  source.gid_map = {{.from = ::getgid(), .to = 88}};
  const PreparedImage mapped = bench.made(spec);
  CHECK(node(mapped, "file").uid == 77);
  CHECK(node(mapped, "file").gid == 88);
}

TEST_CASE("the root has the owner and the mode that the format's options say") {
  Bench bench;
  ImageSpec spec = bench.spec();
  const auto root_of = [&] { return node(bench.made(spec), ""); };
  const Node before = root_of();
  spec.options = {{"free", "1M"}, {"root-owner", "12:34"}, {"root-mode", "1750"}};
  CHECK(root_of().uid == 12);
  CHECK(root_of().gid == 34);
  CHECK(root_of().mode == (S_IFDIR | 01750));
  CHECK(node(bench.made(spec), "file").uid == ::getuid());
  // Of several sources, one of them below another's directory.
  spec.sources.push_back({.path = bench.at("source"), .at = "sub"});
  CHECK(root_of().uid == 12);
  CHECK(node(bench.made(spec), "sub").uid == ::getuid());
  spec.sources.pop_back();
  spec.options = {{"free", "1M"}, {"root-owner", ":34"}};
  CHECK(root_of().uid == before.uid);
  CHECK(root_of().gid == 34);
  CHECK(root_of().mode == before.mode);
  spec.format = "iso";
  spec.options = {{"root-mode", "0700"}};
  CHECK(root_of().mode == (S_IFDIR | 0700));
  const auto refusal = [&] {
    const auto prepared = bench.prepare(spec);
    REQUIRE_FALSE(prepared);
    return hinted_text(prepared.error());
  };
  spec.options = {{"root-mode", "0788"}};
  CHECK(refusal() == "root-mode=0788: not an octal number up to 7777");
  spec.options = {{"root-owner", "no-such-user"}};
  CHECK(refusal() == "root-owner=no-such-user: there is no user no-such-user here");
}

TEST_CASE("later times become SOURCE_DATE_EPOCH, and the environment has no say in it") {
  Bench bench;
  ::setenv("SOURCE_DATE_EPOCH", "1000000000", 1);
  ImageSpec spec = bench.spec();
  CHECK(node(bench.made(spec), "file").mtime_s > 1'600'000'000);
  ::unsetenv("SOURCE_DATE_EPOCH");
  spec.source_date_epoch_s = 1'500'000'000;
  CHECK(node(bench.made(spec), "file").mtime_s == 1'500'000'000);
}

TEST_CASE("what cannot be read is an error, or is left out and reported") {
  Bench bench;
  fs::permissions(bench.root.path(), fs::perms{0755});
  fs::permissions(bench.root / "source/sub", fs::perms{0});
  const ImageSpec strict = bench.spec();
  ImageSpec lax = strict;
  lax.sources[0].skip_unreadable = true;
  const bool was_root = ::geteuid() == 0;
  if (was_root) REQUIRE((::setegid(65534) == 0 && ::seteuid(65534) == 0));
  const Result<PreparedImage> refused = bench.prepare(strict);
  const Result<PreparedImage> skipped = bench.prepare(lax);
  if (was_root) REQUIRE((::seteuid(0) == 0 && ::setegid(0) == 0));
  fs::permissions(bench.root / "source/sub", fs::perms{0755});
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == Errc::unreadable);
  REQUIRE(skipped);
  CHECK(skipped->report.passed_over.unreadable_count == 1);
  CHECK(has_remark(*skipped, Remark::About::unreadable));
}

TEST_CASE("mounted file systems are entered when the spec says so") {
  // What every host has: a file system below another.
  Bench bench;
  ImageSpec spec{
      .sources = {{.path = "/dev", .rules = {{.include = true, .glob = "/shm/"}, {.glob = "**"}}}},
      .format = "ext4"};
  const PreparedImage without = bench.made(spec);
  const bool is_mount = without.report.passed_over.mount_points_not_entered != 0;
  CHECK(is_mount == has_remark(without, Remark::About::mounts_not_entered));
  spec.sources[0].one_file_system = false;
  CHECK(bench.made(spec).report.passed_over.mount_points_not_entered == 0);
}

TEST_CASE("a file that changes is read as the rules say") {
  Bench bench;
  ImageSpec spec = bench.spec();
  ChangeRules& rules = spec.sources[0].changes;
  const PreparedImage strict = bench.made(spec);
  rules = {OnChange::zero, ChangeCheck::ctime};
  const PreparedImage zero = bench.made(spec);
  rules = {OnChange::error, ChangeCheck::mtime};
  const PreparedImage lax = bench.made(spec);
  const std::uint64_t place = place_of(strict, "file");
  fs::permissions(bench.root / "source/file", fs::perms{0600});
  const Result<std::string> changed = read_at(strict, place, 8);
  REQUIRE_FALSE(changed);
  CHECK(changed.error().code == Errc::source_changed);
  CHECK(read_at(zero, place, 8).value() == std::string(8, '\0'));
  CHECK(read_at(lax, place, 8).value() == "contents");
  CHECK_THAT(bench.log.text(), Catch::Contains("file"));
}

TEST_CASE("a source's file systems can be written back first") {
  Bench bench;
  ImageSpec spec = bench.spec();
  spec.sources[0].sync_within = std::chrono::seconds(60);
  CHECK(has(bench.made(spec), "file"));
  bench.run({"tar", "-C", "source", "-cf", "source.tar", "."});
  spec.sources[0].path = bench.at("source.tar");
  CHECK(has(bench.made(spec), "file"));
}

TEST_CASE("the image does not depend on threads") {
  Bench bench;
  ImageSpec spec = bench.spec();
  const std::string id = bench.made(spec).image->volume_id();
  spec.sources[0].threads = 1;
  CHECK(bench.made(spec).image->volume_id() == id);
  spec.sources[0].threads = 16;
  CHECK(bench.made(spec).image->volume_id() == id);
  ResourceOptions options = bench.options();
  options.threads = 2;
  Resources resources(options);
  CHECK(prepare(bench.spec(), resources)->image->volume_id() == id);
}

TEST_CASE("what the run itself writes is left out, and remarked") {
  Bench bench;
  Resources resources(bench.options());
  resources.outputs().add_path(bench.at("source/disk.img"));
  write_file(bench.root / "source/disk.img", "old");
  const auto prepared = prepare(bench.spec(), resources);
  REQUIRE(prepared);
  CHECK_FALSE(has(*prepared, "disk.img"));
  CHECK(has_remark(*prepared, Remark::About::output));
}

TEST_CASE("a rule that no entry of any source matches is a remark, once") {
  Bench bench;
  ImageSpec spec = bench.spec();
  spec.sources.push_back(spec.sources.front());
  spec.sources[0].rules = {
      {false, "no such name"}, {false, "*"}, {true, bench.at("source") + "/x"}};
  spec.sources[1].rules = {{false, "no such name"}, {false, "neither"}, {false, "*"}};
  const PreparedImage prepared = bench.made(spec);
  std::vector<std::string> found;
  for (const Remark& remark : prepared.report.remarks) {
    if (remark.about != Remark::About::unmatched_rule) continue;
    found.push_back(remark.at_fault.option + " " + remark.at_fault.value + ": " + remark.what);
  }
  CHECK(found == std::vector<std::string>{
                     "exclude no such name: no entry matches",
                     "include " + bench.at("source") +
                         "/x: no entry matches (paths begin below the source, as in /x)",
                     "exclude neither: no entry matches"});
  CHECK_THAT(bench.log.text(), Catch::Contains("exclude=no such name: no entry matches\n"));
}

TEST_CASE("remarks go to their handler, or to the log") {
  Bench bench;
  ImageSpec spec = bench.spec();
  spec.format = "fat";
  const PreparedImage logged = bench.made(spec);
  REQUIRE(has_remark(logged, Remark::About::differences));
  CHECK_THAT(bench.log.text(), Catch::StartsWith(logged.report.remarks.front().what + "\n"));
  std::vector<Remark> handed;
  ResourceOptions options = bench.options();
  options.log = &null_log();
  options.on_remark = [&](const Remark& remark) { handed.push_back(remark); };
  Resources resources(options);
  const auto prepared = prepare(spec, resources);
  REQUIRE(prepared);
  REQUIRE(handed.size() == prepared->report.remarks.size());
  CHECK(handed.front().what == prepared->report.remarks.front().what);
  CHECK(handed.front().what.find("--") == std::string::npos);
}

TEST_CASE("an archive is read as its spec says") {
  Bench bench;
  bench.run({"tar", "-C", "source", "-czf", "source.tgz", "file", "sub", "link"});
  ImageSpec spec = bench.spec("source.tgz");
  ArchiveSpec& archive = spec.sources[0].archive;
  const PreparedImage plain = bench.made(spec);
  CHECK(plain.report.sources[0].compression == "gzip");
  CHECK(plain.report.sources[0].access == "indexed");
  CHECK_FALSE(plain.report.sources[0].kept_index);
  CHECK(read_at(plain, place_of(plain, "file"), 8).value() == "contents");

  const auto with = [&](auto&& change) {
    ImageSpec changed = spec;
    change(changed.sources[0].archive);
    return changed;
  };
  CHECK(bench.refused(with([](ArchiveSpec& a) { a.most_members = 2; })).code == Errc::does_not_fit);
  CHECK(bench.refused(with([](ArchiveSpec& a) { a.most_bytes = 100; })).code == Errc::does_not_fit);
  // The index is kept in the directory of the spec, and found there.
  archive.index_directory = bench.at("indexes");
  CHECK_FALSE(bench.made(spec).report.sources[0].kept_index);
  CHECK(bench.made(spec).report.sources[0].kept_index);
  // So with that of the resources.
  archive.index_directory.reset();
  ResourceOptions options = bench.options();
  options.index_directory = bench.at("indexes");
  Resources resources(options);
  CHECK(prepare(spec, resources)->report.sources[0].kept_index);
  archive.index_directory = "";
  CHECK_FALSE(prepare(spec, resources)->report.sources[0].kept_index);
}

TEST_CASE("an image of a file system is a source, known by its magic numbers") {
  Bench bench;
  const PreparedImage old = bench.made(bench.spec());
  write_file(bench.root / "old.img", all_bytes(*old.device));
  const PreparedImage again = bench.made(bench.spec("old.img"));
  CHECK(again.report.sources[0].kind == "disk image");
  CHECK(again.report.sources[0].format == "ext4");
  CHECK(again.report.sources[0].access == "direct");
  const auto link = static_cast<std::uint32_t>(&node(again, "link") - again.tree->nodes().data());
  CHECK(again.tree->symlink_target(NodeNo{link}) == "file");
  CHECK(read_at(again, place_of(again, "file"), 8).value() == "contents");
  CHECK(read_at(again, place_of(again, "sub/inner"), 5000).value() == std::string(5000, 'i'));

  // As another format, and a directory of it alone.
  ImageSpec fat = bench.spec("old.img");
  fat.format = "fat32";
  fat.options = {{"symlinks", "skip"}};
  CHECK(has(bench.made(fat), "sub/inner"));
  const PreparedImage part = bench.made(bench.spec("old.img//sub"));
  CHECK(has(part, "inner"));
  CHECK_FALSE(has(part, "file"));

  // Under and over other layers.
  fs::create_directory(bench.root / "over");
  write_file(bench.root / "over/file", "over");
  ImageSpec layers = bench.spec("old.img");
  layers.sources.push_back({.path = bench.at("over")});
  const PreparedImage merged = bench.made(layers);
  CHECK(read_at(merged, place_of(merged, "file"), 4).value() == "over");
  CHECK(has(merged, "sub/inner"));

  // What the spec says wins over the magic numbers.
  ImageSpec other = bench.spec("old.img");
  other.sources[0].format = SourceFormat::fat;
  CHECK(bench.refused(other).code == Errc::unreadable);
  other.sources[0].format = SourceFormat::ext;
  CHECK(has(bench.made(other), "sub/inner"));
  other.sources[0].format = SourceFormat::archive;
  CHECK(archive::is_no_archive(bench.refused(other)));
}

TEST_CASE("a FAT image is a source") {
  Bench bench;
  fs::remove(bench.root / "source/link");
  ImageSpec spec = bench.spec();
  spec.format = "fat";
  spec.options = {};
  const PreparedImage old = bench.made(spec);
  write_file(bench.root / "old.img", all_bytes(*old.device));
  const PreparedImage again = bench.made(bench.spec("old.img"));
  CHECK(again.report.sources[0].kind == "disk image");
  CHECK(read_at(again, place_of(again, "sub/inner"), 5000).value() == std::string(5000, 'i'));
}

TEST_CASE("a damaged image is an error that names the place, or what it concerns is left out") {
  Bench bench;
  const PreparedImage old = bench.made(bench.spec());
  write_file(bench.root / "old.img", all_bytes(*old.device));
  // Its first block lies far behind the image.
  bench.run({"debugfs", "-w", "-R", "set_inode_field /sub/inner flags 0", "old.img"});
  bench.run({"debugfs", "-w", "-R", "set_inode_field /sub/inner block[0] 0x7fffffff", "old.img"});

  const ImageSpec strict = bench.spec("old.img");
  const Error error = bench.refused(strict);
  CHECK(error.code == Errc::unreadable);
  INFO(error.what);
  CHECK(error.what.find("old.img: byte ") != std::string::npos);
  CHECK(error.what.find("inode ") != std::string::npos);
  CHECK(hinted_text(error).find("skip-unreadable") != std::string::npos);

  ImageSpec lax = strict;
  lax.sources[0].skip_unreadable = true;
  const PreparedImage skipped = bench.made(lax);
  CHECK(has(skipped, "file"));
  CHECK(has(skipped, "sub"));
  CHECK_FALSE(has(skipped, "sub/inner"));
  CHECK(skipped.report.passed_over.unreadable_count == 1);
  CHECK(has_remark(skipped, Remark::About::unreadable));
}

TEST_CASE("the order of an archive's data is its own, or that of the names") {
  Bench bench;
  bench.run({"tar", "-C", "source", "-cf", "source.tar", "sub/inner", "file"});
  ImageSpec spec = bench.spec("source.tar");
  const PreparedImage as_archive = bench.made(spec);
  CHECK(place_of(as_archive, "sub/inner") < place_of(as_archive, "file"));
  spec.sources[0].archive.data_order = archive::DataOrder::name;
  const PreparedImage by_name = bench.made(spec);
  CHECK(place_of(by_name, "file") < place_of(by_name, "sub/inner"));
}

TEST_CASE("names that lead out, symlinks in the way and zeroes are treated as the spec says") {
  Bench bench;
  bench.run({"tar", "-C", "source/sub", "-Pcf", "unsafe.tar", "../file"});
  ImageSpec spec = bench.spec("unsafe.tar");
  CHECK(bench.refused(spec).code == Errc::unreadable);
  spec.sources[0].archive.unsafe_names = archive::UnsafeNames::strip;
  CHECK(has(bench.made(spec), "file"));

  fs::create_directories(bench.root / "below/usr/lib");
  fs::create_directory_symlink("usr/lib", bench.root / "below/lib");
  fs::create_directories(bench.root / "above/lib");
  write_file(bench.root / "above/lib/so", "x");
  bench.run({"tar", "-C", "above", "-cf", "above.tar", "lib/so"});
  spec = bench.spec("below");
  spec.sources.push_back({.path = bench.at("above.tar")});
  CHECK(has(bench.made(spec), "usr/lib/so"));
  spec.sources[1].archive.layer_symlinks = LayerSymlinks::replace;
  CHECK(has(bench.made(spec), "lib/so"));
  spec.sources[1].archive.layer_symlinks = LayerSymlinks::error;
  CHECK_FALSE(bench.prepare(spec));

  bench.run({"sh", "-c", "tar -C source -cf two.tar file; tar -C source -c link >> two.tar"});
  spec = bench.spec("two.tar");
  CHECK_FALSE(has(bench.made(spec), "link"));
  spec.sources[0].archive.ignores_zeros = true;
  CHECK(has(bench.made(spec), "link"));

  bench.run({"sh", "-c",
             "tar -C source --format=pax --pax-option=globexthdr.name=g,uid=4321 -cf global.tar "
             "file"});
  spec = bench.spec("global.tar");
  const std::uint32_t applied = node(bench.made(spec), "file").uid;
  spec.sources[0].archive.pax_globals = archive::PaxGlobals::ignore;
  CHECK(applied == 4321);
  CHECK(node(bench.made(spec), "file").uid == ::getuid());
}

TEST_CASE("encrypted members are read with the passphrases of the spec or of its file") {
  Bench bench;
  bench.run({"sh", "-c", "cd source && zip -qrP secret ../source.zip file"});
  ImageSpec spec = bench.spec("source.zip");
  CHECK_FALSE(bench.prepare(spec));
  spec.sources[0].archive.passphrases = {"wrong", "secret"};
  CHECK(has(bench.made(spec), "file"));
  spec.sources[0].archive.passphrases.clear();
  write_file(bench.root / "phrases", "wrong\nsecret\n");
  spec.sources[0].archive.passphrase_file = bench.at("phrases");
  CHECK(has(bench.made(spec), "file"));
  spec.sources[0].archive.passphrase_file = bench.at("none");
  CHECK(bench.refused(spec).code == Errc::unreadable);
}

TEST_CASE("spools lie where the spec or the resources say, and take no more than they may") {
  Bench bench;
  bench.run({"bsdtar", "-C", "source", "-cf", "source.7z", "--format=7zip", "file", "sub"});
  ImageSpec spec = bench.spec("source.7z");
  ArchiveSpec& archive = spec.sources[0].archive;
  const PreparedImage prepared = bench.made(spec);
  CHECK(prepared.report.sources[0].access == "spooled");
  CHECK(prepared.report.sources[0].spool_bytes != 0);
  CHECK(has_remark(prepared, Remark::About::spool));
  archive.spool_directory = "";
  CHECK(bench.prepare(spec).error().code == Errc::unsupported);
  archive.spool_directory = bench.at("missing/spools");
  CHECK_FALSE(bench.prepare(spec));
  archive.spool_directory.reset();
  archive.spool_limit_bytes = 100;
  CHECK(bench.prepare(spec).error().code == Errc::no_space);
  archive.spool_limit_bytes.reset();
  archive.reader_memory_bytes = 1;
  CHECK_FALSE(bench.prepare(spec));
  ResourceOptions options = bench.options();
  options.reader_path = "";
  Resources resources(options);
  archive.reader_memory_bytes = ArchiveSpec().reader_memory_bytes;
  CHECK(prepare(spec, resources).error().code == Errc::unsupported);
}

TEST_CASE("an archive that unpacks to much more than itself is refused") {
  Bench bench;
  std::ofstream(bench.root / "source/zeroes") << std::string(std::size_t{80} << 20, '\0');
  bench.run({"tar", "-C", "source", "-czf", "bomb.tgz", "zeroes"});
  ImageSpec spec = bench.spec("bomb.tgz");
  spec.sources[0].archive.most_ratio = 10;
  CHECK_FALSE(bench.prepare(spec));
  spec.sources[0].archive.most_ratio = 0;
  spec.sources[0].archive.index_memory_bytes = std::uint64_t{1} << 20;
  spec.sources[0].archive.cache_memory_bytes = std::uint64_t{1} << 20;
  CHECK(has(bench.made(spec), "zeroes"));
}

namespace {

std::string digest_of(std::string_view bytes) {
  Sha256 sha;
  sha.update(std::as_bytes(std::span(bytes)));
  const auto digest = sha.finish();
  return hex({reinterpret_cast<const char*>(digest.data()), digest.size()});
}

/// An OCI layout of one layer, which is a tar that is not compressed.
class Layout {
 public:
  explicit Layout(const Bench& bench) : directory_(bench.root / "layout") {
    fs::create_directories(directory_ / "blobs/sha256");
    bench.run({"tar", "-C", "source", "-cf", "layer.tar", "file"});
    const std::string layer = add(read_file(bench.root / "layer.tar"));
    const std::string config = add(
        R"({"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:)" +
        layer + "\"]}}");
    const std::string kind = "application/vnd.oci.image.";
    const std::string manifest =
        add(R"({"schemaVersion":2,"mediaType":")" + kind + R"(manifest.v1+json","config":)" +
            descriptor(kind + "config.v1+json", config) + R"(,"layers":[)" +
            descriptor(kind + "layer.v1.tar", layer) + "]}");
    write_file(directory_ / "index.json", R"({"schemaVersion":2,"manifests":[)" +
                                              descriptor(kind + "manifest.v1+json", manifest) +
                                              "]}");
    write_file(directory_ / "oci-layout", R"({"imageLayoutVersion":"1.0.0"})");
    layer_ = directory_ / "blobs/sha256" / layer;
  }

  std::string source() const { return "oci:" + directory_.string(); }
  const fs::path& layer() const { return layer_; }

 private:
  std::string add(const std::string& bytes) const {
    std::string digest = digest_of(bytes);
    write_file(directory_ / "blobs/sha256" / digest, bytes);
    return digest;
  }
  std::string descriptor(const std::string& type, const std::string& digest) const {
    return R"({"mediaType":")" + type + R"(","digest":"sha256:)" + digest + R"(","size":)" +
           std::to_string(fs::file_size(directory_ / "blobs/sha256" / digest)) + "}";
  }

  fs::path directory_;
  fs::path layer_;
};

}  // namespace

TEST_CASE("a container image is its root file system, for the platform that the spec names") {
  Bench bench;
  const Layout layout(bench);
  ImageSpec spec = bench.spec();
  spec.sources[0].path = layout.source();
  spec.sources[0].platform = oci::Platform{"linux", "amd64", ""};
  const PreparedImage prepared = bench.made(spec);
  CHECK(has(prepared, "file"));
  CHECK(prepared.report.sources[0].kind == "container image");
  CHECK(prepared.report.sources[0].platform == "linux/amd64");
  CHECK(prepared.report.sources[0].layer_count == 1);
  spec.sources[0].platform = oci::Platform{"linux", "s390x", ""};
  CHECK_FALSE(bench.prepare(spec));

  // A layer with other bytes is noticed only where it is verified.
  spec.sources[0].platform = oci::Platform{"linux", "amd64", ""};
  std::string bytes = read_file(layout.layer());
  bytes[512] = 'C';
  write_file(layout.layer(), bytes);
  CHECK(bench.refused(spec).code == Errc::unreadable);
  spec.sources[0].verify_layers = false;
  CHECK(has(bench.made(spec), "file"));

  // As a directory it is blobs, and a remark.
  spec.sources[0].path = bench.at("layout");
  CHECK(has_remark(bench.made(spec), Remark::About::container_image));
}

TEST_CASE("an archive that may change is remarked when the rules would bear it in files") {
  Bench bench;
  bench.run({"tar", "-C", "source", "-cf", "source.tar", "file"});
  ImageSpec spec = bench.spec("source.tar");
  CHECK(bench.made(spec).report.remarks.empty());
  spec.sources[0].changes = {OnChange::stale, ChangeCheck::ctime};
  CHECK(has_remark(bench.made(spec), Remark::About::archive_changes));
}

TEST_CASE("a device for an overlay that stays knows what it was made of") {
  Bench bench;
  ImageSpec spec = bench.spec();
  CHECK(dynamic_cast<PreparedDevice*>(bench.made(spec).device.get()) == nullptr);
  spec.keep_base = true;
  spec.given_options = {"fs=ext4"};
  const PreparedImage prepared = bench.made(spec);
  const auto* const device = dynamic_cast<PreparedDevice*>(prepared.device.get());
  REQUIRE(device != nullptr);
  const BaseHead head = device->base().head({});
  CHECK(head.options == spec.given_options);
  REQUIRE(head.sources.size() == 1);
  CHECK(head.sources[0].word == bench.at("source"));
  SourceBaseEntries entries(device->base());
  BaseEntry entry;
  std::size_t count = 0;
  while (entries.next(entry).value()) ++count;
  CHECK(count == prepared.tree->node_count());
}

TEST_CASE("what is canceled ends with ECANCELED, and so does the wait for a pipe") {
  Bench bench;
  std::atomic<bool> cancel = true;
  ResourceOptions options = bench.options();
  options.cancel = &cancel;
  Resources resources(options);
  CHECK(resources.is_canceled());
  const auto prepared = prepare(bench.spec(), resources);
  REQUIRE_FALSE(prepared);
  CHECK(prepared.error().os_errno == ECANCELED);
  cancel = false;
  CHECK(prepare(bench.spec(), resources));

  REQUIRE(::mkfifo(bench.at("pipe").c_str(), 0600) == 0);
  std::jthread canceler([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    cancel = true;
  });
  const auto waited = prepare(bench.spec("pipe"), resources);
  REQUIRE_FALSE(waited);
  CHECK(waited.error().os_errno == ECANCELED);
}

TEST_CASE("two owners of resources share nothing") {
  Bench bench;
  bench.run({"bsdtar", "-C", "source", "-cf", "source.7z", "--format=7zip", "file", "sub"});
  KeptLog other_log;
  Resources one(bench.options());
  ResourceOptions options = bench.options();
  options.log = &other_log;
  options.spool_limit_bytes = 100;
  Resources other(options);
  CHECK(one.cache(1 << 20) == one.cache(1 << 20));
  const auto cache = one.cache(1 << 20);
  CHECK(one.cache(1 << 20) == cache);
  CHECK(one.cache(2 << 20) != cache);
  CHECK(other.cache(1 << 20) != cache);
  const auto spools = one.spool_space(bench.at("spool"), 100);
  CHECK(other.spool_space(bench.at("spool"), 100) != spools);
  CHECK(one.spool_space(bench.at("spool"), 100) == spools);

  const auto prepared = prepare(bench.spec("source.7z"), one);
  REQUIRE(prepared);
  CHECK_FALSE(prepare(bench.spec("source.7z"), other));
  CHECK(other_log.text().empty());
  one.outputs().add_path(bench.at("source/file"));
  CHECK(has(*prepare(bench.spec(), other), "file"));
  CHECK_FALSE(has(*prepare(bench.spec(), one), "file"));
}

TEST_CASE("several images are made at once with the same resources") {
  Bench bench;
  bench.run({"tar", "-C", "source", "-czf", "source.tgz", "file", "sub", "link"});
  Resources resources(bench.options());
  std::vector<std::string> ids(6);
  {
    std::vector<std::jthread> threads;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      threads.emplace_back([&, i] {
        const auto prepared = prepare(bench.spec(i % 2 == 0 ? "source" : "source.tgz"), resources);
        if (prepared) ids[i] = prepared->image->volume_id();
      });
    }
  }
  CHECK_FALSE(ids[0].empty());
  CHECK_FALSE(ids[1].empty());
  for (std::size_t i = 2; i < ids.size(); ++i) CHECK(ids[i] == ids[i % 2]);
}

TEST_CASE("a device outlives the resources that made it") {
  Bench bench;
  bench.run({"tar", "-C", "source", "-czf", "source.tgz", "file", "sub", "link"});
  PreparedImage prepared;
  {
    Resources resources(bench.options());
    prepared = prepare(bench.spec("source.tgz"), resources).value();
  }
  CHECK(read_at(prepared, place_of(prepared, "file"), 8).value() == "contents");
}

TEST_CASE("a lack of memory is an error that says so, wherever it comes") {
  Bench bench;
  bench.run({"tar", "-C", "source", "-czf", "source.tgz", "file", "sub", "link"});
  ImageSpec spec = bench.spec();
  spec.sources[0].threads = 2;
  spec.sources.push_back({.path = bench.at("source.tgz"), .at = "in", .threads = 2});
  Resources resources(bench.options());
  REQUIRE(prepare(spec, resources));
  std::size_t refused = 0;
  for (std::size_t calls = 0;; calls += 1 + calls / 32) {
    CAPTURE(calls);
    fail_allocation_after(calls);
    const Result<PreparedImage> prepared = prepare(spec, resources);
    if (!has_allocation_failed()) {
      CHECK(prepared);
      break;
    }
    if (prepared) continue;  // it was memory for something that can be done without
    ++refused;
    CHECK(prepared.error().os_errno == ENOMEM);
    CHECK_THAT(prepared.error().what,
               Catch::Contains("out of memory") || Catch::Contains("Cannot allocate memory"));
  }
  CHECK(refused > 20);
}

}  // namespace mkvirtfs
