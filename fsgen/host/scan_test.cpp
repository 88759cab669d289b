// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/host/scan.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <linux/fs.h>
#include <rapidcheck.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "fsgen/host/scan_walk.h"
#include "fsgen/tree/listing.h"
#include "fsgen/tree/tree_builder.h"
#include "tests/support/foreign_tools.h"
#include "tests/support/hinted_text.h"
#include "tests/support/materialise.h"
#include "tests/support/no_threads.h"
#include "tests/support/privileges.h"
#include "tests/support/property.h"
#include "tests/support/random_tree.h"
#include "tests/support/temp_dir.h"

using namespace mkvirtfs;
using mkvirtfs::testing::materialise;
using mkvirtfs::testing::may_materialise;
using mkvirtfs::testing::skipped;

namespace {

namespace fs = std::filesystem;

Scan scan(const fs::path& path, const ScanOptions& options = {}, const ScanTuning& tuning = {}) {
  auto scanned = scan_directory(path.string(), options, null_log(), tuning);
  if (!scanned) FAIL(scanned.error().what);
  return std::move(*scanned);
}

std::string listing_of(const fs::path& path, const ScanOptions& options = {},
                       const ScanTuning& tuning = {}) {
  return to_listing(*scan(path, options, tuning).tree);
}

Error error_of(const fs::path& path, const ScanOptions& options = {},
               const ScanTuning& tuning = {}) {
  const auto scanned = scan_directory(path.string(), options, null_log(), tuning);
  REQUIRE_FALSE(scanned);
  return scanned.error();
}

/// The names alone, one path a line.
std::string names_of(const SourceTree& tree) {
  std::string out;
  for (const Directory& directory : tree.directories()) {
    std::string parent = tree.path(directory.node);
    if (!parent.empty()) parent += '/';
    for (const Entry entry : tree.entries(directory)) {
      out += parent + std::string(tree.name(directory, entry)) + "\n";
    }
  }
  return out;
}

std::string read_through(const HostFileTable& files, const SourceTree& tree,
                         std::string_view path) {
  const Node* node = tree.find_path(path);
  REQUIRE(node != nullptr);
  const auto fd = files.open(content_no(tree.number_of(*node)));
  if (!fd) return fmt::format("errno {}", fd.error().os_errno);
  std::string content(4096, '\0');
  const ssize_t size = ::read(fd->get(), content.data(), content.size());
  REQUIRE(size >= 0);
  content.resize(static_cast<std::size_t>(size));
  return content;
}

std::size_t count_open_files() {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

/// Gives up root's privileges while it lives.
class AsNobody {
 public:
  AsNobody() {
    REQUIRE(::setgroups(0, nullptr) == 0);
    REQUIRE(::setegid(65534) == 0);
    REQUIRE(::seteuid(65534) == 0);
  }
  ~AsNobody() {
    if (::seteuid(0) != 0 || ::setegid(0) != 0) std::abort();
  }
  AsNobody(const AsNobody&) = delete;
  AsNobody& operator=(const AsNobody&) = delete;
};

/// Whether this process may take on the rights of others, as root, also of a user name space, may.
bool may_be_nobody() {
  if (::geteuid() == 0) return true;
  skipped("what another user may read");
  return false;
}

/// Every way to go about a scan must come to the same tree.
std::vector<std::pair<ScanOptions, ScanTuning>> all_ways() {
  std::vector<std::pair<ScanOptions, ScanTuning>> ways(6);
  ways[0].first.threads = 1;
  ways[1].first.threads = 5;
  ways[2].second.names_a_task = 3;
  ways[2].first.threads = 3;
  ways[3].second.most_open_directories = 1;
  ways[4].second.use_openat2 = false;
  ways[5].second.use_own_directory = false;
  return ways;
}

}  // namespace

TEST_CASE("root skips nothing") {
  // What others skip is noted, and counted by scripts/run-tests: interop: skips.
  if (!mkvirtfs::testing::is_root()) return;
  CHECK_THROWS_WITH(skipped("devices"), "as root nothing is skipped: devices");
}

TEST_CASE("a scan shows what is there, for every user and at every place") {
  if (!mkvirtfs::testing::is_root()) {
    skipped("trees of any owner with devices and trusted attributes");
    return;
  }
  mkvirtfs::testing::RandomTreeOptions options;
  options.most_path_bytes = 9000;  // beyond PATH_MAX
  options.most_in_a_crowd = 200;
  mkvirtfs::testing::check_property(25, [&] {
    const auto random = *mkvirtfs::testing::random_tree(options);
    const BuiltTree built = random.build();
    const std::string expected = to_listing(*built.tree);
    const TreeId id = built.tree->id();

    const TempDir first;
    materialise(built, first.path());
    for (const auto& [scan_options, tuning] : all_ways()) {
      const Scan scanned = scan(first.path(), scan_options, tuning);
      RC_ASSERT(to_listing(*scanned.tree) == expected);
      RC_ASSERT(scanned.tree->id() == id);
    }
    const TempDir second;
    materialise(built, second.path(), /*backwards=*/true);
    RC_ASSERT(listing_of(second.path()) == expected);
  });
}

TEST_CASE("a copy made by cp -a scans the same") {
  TreeBuilder builder;
  builder.file("etc/shadow", "secret").mode(0600).owner(0, 42).mtime({1, 5});
  builder.symlink("etc/link", "shadow").mtime({77, 88});
  builder.sparse_file("var/sparse", 1 << 20, {{0, 4096}, {65536, 8192}}).mtime({1'700'000'000, 1});
  builder.hard_link("home/other", "var/sparse");
  builder.device("dev/disk", 'b', {8, 257}).fifo("dev/fifo").mode(0622).socket("dev/log");
  builder.file("bin/ping", "elf").mode(04755).xattr("user.note", "kept");
  for (int i = 0; i < 1000; ++i) builder.file(fmt::format("many/{:x}", i * 7919 % 100003), "");
  const BuiltTree built = builder.build();
  if (!may_materialise(built)) return;
  const TempDir dir;
  fs::create_directory(dir / "a");
  fs::create_directories(dir / "elsewhere/b");
  materialise(built, dir / "a");
  const Ran copied = run_tool({"cp", "-a", "--", (dir / "a").string() + "/.", dir / "elsewhere/b"});
  INFO(copied.output);
  REQUIRE(copied.status == 0);
  const Scan a = scan(dir / "a");
  const Scan b = scan(dir / "elsewhere/b");
  CHECK(to_listing(*a.tree) == to_listing(*built.tree));
  CHECK(to_listing(*b.tree) == to_listing(*a.tree));
  CHECK(b.tree->id() == a.tree->id());
}

TEST_CASE("a hole is found in a file whose attributes have a block of their own") {
  // ext4 counts that block with the data, which then looks as if it were complete.
  TreeBuilder builder;
  builder.sparse_file("a", 10'945, {{0, 4096}, {8192, 2753}});
  for (const char* name : {"user.first", "user.second", "user.third"}) {
    builder.xattr(name, std::string(60, 'x'));
  }
  const BuiltTree built = builder.build();
  const TempDir dir;
  materialise(built, dir.path());
  CHECK(listing_of(dir.path()) == to_listing(*built.tree));
}

TEST_CASE("a preallocated file is a hole but for what was written, from 1 MiB on") {
  const TempDir dir;
  const auto preallocate = [&](const char* name, off_t bytes) {
    UniqueFd file(::open((dir / name).c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    if (::fallocate(file.get(), 0, 0, bytes) != 0) file.reset();
    return file;
  };
  const UniqueFd untouched = preallocate("untouched", 100 << 20);
  const UniqueFd written = preallocate("written", 1 << 20);
  if (!untouched || !written) {
    WARN("skipped: the file system of " << dir.path() << " has no fallocate(2)");
    return;
  }
  const std::string page(4096, 'x');
  REQUIRE(::pwrite(written.get(), page.data(), page.size(), 512 << 10) == 4096);
  write_file(dir / "dense", std::string(2 << 20, 'y'));
  const Scan scanned = scan(dir.path());
  const auto runs_of = [&](const char* name) {
    const auto no = scanned.tree->number_of(*scanned.tree->find_path(name));
    Range dense;
    const auto runs = scanned.tree->data_runs(no, dense);
    return std::vector<Range>(runs.begin(), runs.end());
  };
  CHECK(runs_of("untouched").empty());
  CHECK(runs_of("written") == std::vector<Range>{{512 << 10, 4096}});
  CHECK(runs_of("dense") == std::vector<Range>{{0, 2 << 20}});
}

namespace {

/// What a path is, as an output of the run that stands under one name, or under all.
RunOutput output_at(const fs::path& path, bool all_names = false) {
  RunOutput output;
  struct stat status;
  if (::lstat(path.c_str(), &status) == 0) {
    output.device = status.st_dev;
    output.inode = status.st_ino;
  }
  if (all_names) return output;
  output.name = path.filename().string();
  REQUIRE(::stat(path.parent_path().c_str(), &status) == 0);
  output.directory_device = status.st_dev;
  output.directory_inode = status.st_ino;
  return output;
}

}  // namespace

TEST_CASE("outputs of the run are no part of the tree") {
  const TempDir dir;
  fs::create_directories(dir / "src/sub");
  write_file(dir / "src/sub/disk.img", "old");
  write_file(dir / "src/log", "line");
  write_file(dir / "src/file", "x");
  fs::create_hard_link(dir / "src/sub/disk.img", dir / "src/kept");
  fs::create_hard_link(dir / "src/log", dir / "src/sub/log2");
  fs::create_directory(dir / "elsewhere");
  ScanOptions options;
  options.outputs = {output_at(dir / "src/sub/disk.img"), output_at(dir / "src/log", true),
                     output_at(dir / "src/not-yet"), output_at(dir / "elsewhere/not-yet")};
  const Scan scanned = scan(dir / "src", options);
  CHECK(scanned.report.outputs_met == std::vector<bool>{true, true, true, false});
  CHECK(scanned.tree->node_count() == 4);  // the root, sub, file, kept
  CHECK(scanned.tree->find_path("sub/disk.img") == nullptr);
  CHECK(scanned.tree->find_path("log") == nullptr);
  CHECK(scanned.tree->find_path("sub/log2") == nullptr);
  // A hard link to what will be replaced is a file of the source, with one name.
  REQUIRE(scanned.tree->find_path("kept") != nullptr);
  CHECK(scanned.tree->find_path("kept")->link_count == 1);
  CHECK(read_through(*scanned.files, *scanned.tree, "kept") == "old");

  // What is excluded anyway changes no time of the image's.
  options.entries.rules = {{false, "/sub"}};
  CHECK_FALSE(scan(dir / "src", options).report.outputs_met[0]);
}

TEST_CASE("a source that is no directory is refused in plain words") {
  const TempDir dir;
  write_file(dir / "file", "");
  fs::create_symlink("nowhere", dir / "dangling");
  CHECK(error_of(dir / "nothing").what == (dir / "nothing").string() + " does not exist");
  CHECK(error_of(dir / "dangling").what == (dir / "dangling").string() + " does not exist");
  CHECK(error_of(dir / "file").what == (dir / "file").string() + " is not a directory");
  CHECK(error_of("").code == Errc::unreadable);
  CHECK(error_of(dir / std::string(5000, 'x')).code == Errc::unreadable);

  fs::create_directory(dir / "real");
  fs::create_directory_symlink("real", dir / "way");
  CHECK(scan(dir / "way").tree->node_count() == 1);
}

TEST_CASE("the process keeps its working directory, its descriptors and the source its times") {
  const TempDir dir;
  const fs::path before = fs::current_path();
  fs::create_directory(dir / "sub");
  write_file(dir / "sub/file", "content");
  UniqueFd(::open((dir / "holes").c_str(), O_CREAT | O_WRONLY, 0600)).get();
  fs::resize_file(dir / "holes", 1 << 20);
  const std::array<timespec, 2> times = {timespec{1000, 0}, timespec{2000, 0}};
  const std::vector<std::string> paths = {dir / "sub/file", dir / "holes", dir / "sub",
                                          dir.path().string()};
  for (const std::string& path : paths) {
    REQUIRE(::utimensat(AT_FDCWD, path.c_str(), times.data(), 0) == 0);
  }
  const std::size_t open_files = count_open_files();
  {
    const Scan scanned = scan(dir.path());
    CHECK(read_through(*scanned.files, *scanned.tree, "sub/file") == "content");
  }
  CHECK(count_open_files() == open_files);
  CHECK(fs::current_path() == before);
  for (const std::string& path : paths) {
    struct stat status{};
    REQUIRE(::stat(path.c_str(), &status) == 0);
    CAPTURE(path);
    CHECK(status.st_atim.tv_sec == 1000);
    CHECK(status.st_mtim.tv_sec == 2000);
  }
}

TEST_CASE("trees deeper than PATH_MAX are scanned and their files found again") {
  TreeBuilder builder;
  std::string path;
  for (int depth = 0; depth < 60; ++depth) {
    path += (depth == 0 ? "" : "/") + std::string(200, static_cast<char>('a' + depth % 26));
    builder.file(path + "/file", std::to_string(depth));
    builder.directory(path + "/z/z");  // so that several directories wait at each depth
  }
  const BuiltTree built = builder.build();
  if (!may_materialise(built)) return;
  const TempDir dir(fast_place());
  materialise(built, dir.path());
  for (const auto& [options, tuning] : all_ways()) {
    const Scan scanned = scan(dir.path(), options, tuning);
    CHECK(names_of(*scanned.tree) == names_of(*built.tree));
    CHECK(read_through(*scanned.files, *scanned.tree, path + "/file") == "59");
  }
}

TEST_CASE("a very deep chain and a very wide level take few descriptors") {
  const TempDir dir(fast_place());
  constexpr int kDepth = 700;
  UniqueFd at(::open(dir.path().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  for (int i = 0; i < kDepth; ++i) {
    REQUIRE(::mkdirat(at.get(), "d", 0755) == 0);
    at = UniqueFd(::openat(at.get(), "d", O_PATH | O_DIRECTORY | O_CLOEXEC));
  }
  for (int i = 0; i < kDepth; ++i) fs::create_directories(dir / fmt::format("wide/{}/x", i));

  rlimit limit{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
  rlimit low = limit;
  low.rlim_cur = count_open_files() + 64;
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &low) == 0);
  const auto scanned = scan_directory(dir.path().string(), {}, null_log());
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
  if (!scanned) FAIL(scanned.error().what);
  CHECK(scanned->tree->node_count() == 1 + kDepth + 1 + 2 * kDepth);

  // The library's recursive removal is not made for such depths.
  run_tool({"rm", "-rf", dir / "d"});
}

TEST_CASE("where the host starts no thread, the caller's scans") {
  const TempDir dir;
  fs::create_directories(dir / "a/b");
  write_file(dir / "a/b/file", "content");
  REQUIRE(::setxattr((dir / "a").c_str(), "user.test", "value", 5, 0) == 0);
  const std::string expected = listing_of(dir.path());
  const fs::path here = fs::current_path();
  const mkvirtfs::testing::NoThreads no_threads;
  ScanOptions options;
  options.threads = 16;
  CHECK(listing_of(dir.path(), options) == expected);
  CHECK(fs::current_path() == here);
}

TEST_CASE("one huge directory is shared among threads and comes out sorted") {
  const TempDir dir(fast_place());
  std::string expected;
  for (int i = 10000; i < 14000; ++i) {
    write_file(dir / fmt::format("file-{}", i), "");
    expected += fmt::format("file-{}\n", i);
  }
  ScanTuning tuning;
  tuning.names_a_task = 500;
  ScanOptions options;
  for (const unsigned threads : {1u, 2u, 7u}) {
    options.threads = threads;
    CHECK(names_of(*scan(dir.path(), options, tuning).tree) == expected);
  }
  CHECK(names_of(*scan(dir.path()).tree) == expected);
}

TEST_CASE("more nodes than fit are an error, exactly as many are none") {
  const TempDir dir;
  for (int i = 0; i < 9; ++i) write_file(dir / std::to_string(i), "");
  ScanTuning tuning;
  tuning.most_nodes = 10;
  CHECK(scan(dir.path(), {}, tuning).tree->node_count() == 10);
  tuning.most_nodes = 9;
  const Error error = error_of(dir.path(), {}, tuning);
  CHECK(error.code == Errc::does_not_fit);
  CHECK_THAT(error.what, Catch::StartsWith(dir.path().string() + ": "));
}

TEST_CASE("rules take and leave out") {
  const TempDir dir;
  for (const char* path : {"src/a.c", "src/a.o", "src/keep.o", "build/x", "doc/build/y", "tmp/z",
                           "doc/tmp/w", ".git/HEAD", "doc/file", "doc/tmpfile"}) {
    fs::create_directories((dir / path).parent_path());
    write_file(dir / path, "");
  }
  const auto left = [&](std::vector<PathRule> rules, std::uint64_t excluded) {
    ScanOptions options;
    options.entries.rules = std::move(rules);
    const Scan scanned = scan(dir.path(), options);
    CHECK(scanned.report.excluded_count == excluded);
    return names_of(*scanned.tree);
  };
  CHECK(left({{true, "keep.*"}, {false, "*.o"}, {false, ".git"}, {false, "build"}, {false, "/tmp"}},
             4 + 1) ==
        "doc\nsrc\ndoc/file\ndoc/tmp\ndoc/tmpfile\nsrc/a.c\nsrc/keep.o\ndoc/tmp/w\n");
  CHECK(left({{false, "doc/**"}, {false, "s*"}, {false, "b[!x]*/"}, {false, "[.t]*/"}}, 8) ==
        "doc\n");
  CHECK(left({{true, "doc/"}, {true, "doc/file"}, {false, "**"}}, 7) == "doc\ndoc/file\n");

  ScanOptions options;
  options.entries.rules = {{false, "/"}};
  CHECK(error_of(dir.path(), options).code == Errc::usage);
  options.entries.rules = {{false, ""}};
  CHECK(error_of(dir.path(), options).code == Errc::usage);
}

TEST_CASE("owners, modes and times are changed as asked, inside ACLs too") {
  // user::rwx user:1005:rwx group::r-x group:2000:rwx mask::rwx other::rwx
  const std::string acl(
      "\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x02\0\x07\0\xed\x03\0\0\x04\0\x05\0\xff\xff\xff\xff"
      "\x08\0\x07\0\xd0\x07\0\0\x10\0\x07\0\xff\xff\xff\xff\x20\0\x07\0\xff\xff\xff\xff",
      52);
  const BuiltTree built = TreeBuilder{}
                              .file("a", "")
                              .owner(1005, 2000)
                              .mode(06777)
                              .mtime({1000, 500})
                              .xattr("system.posix_acl_access", acl)
                              .symlink("l", "a")
                              .owner(7, 2000)
                              .mtime({2001, 7})
                              .root()
                              .owner(1000, 0)
                              .mtime({2000, 1})
                              .build();
  if (!may_materialise(built)) return;
  const TempDir dir;
  materialise(built, dir.path());
  ScanOptions options;
  options.entries.uid_map = {{1000, 100000, 10}, {1005, 1, 1}, {0, 5, 1}};
  options.entries.gid_map = {{2000, 2, 1}};
  options.entries.mode_mask = 0755;
  options.entries.newest_mtime_s = 2000;
  CHECK(listing_of(dir.path(), options) ==
        "dir . mode=0755 owner=100000:0 mtime=2000\n"
        "file a mode=0755 owner=100005:2 mtime=1000.000000500 size=0 system.posix_acl_access="
        "0200000001000700ffffffff02000700a586010004000500ffffffff080007000200000010000500ffffffff"
        "20000500ffffffff\n"
        "symlink l mode=0777 owner=7:2 mtime=2000 to=a\n");

  options = {};
  options.entries.owner_uid = 0;
  options.entries.owner_gid = 33;
  options.entries.xattrs = false;
  CHECK(listing_of(dir.path(), options) ==
        "dir . mode=0755 owner=0:33 mtime=2000.000000001\n"
        "file a mode=6777 owner=0:33 mtime=1000.000000500 size=0\n"
        "symlink l mode=0777 owner=0:33 mtime=2001.000000007 to=a\n");

  options = {};
  options.entries.uid_map = {{4294967295, 0, 2}};
  CHECK(error_of(dir.path(), options).code == Errc::usage);
  options.entries.uid_map = {{0, 0, 0}};
  CHECK(error_of(dir.path(), options).code == Errc::usage);
  options.entries.uid_map = {};
  options.entries.mode_mask = 010000;
  CHECK(error_of(dir.path(), options).code == Errc::usage);
}

TEST_CASE("unreadable entries are an error that names them all, or are counted") {
  if (!may_be_nobody()) return;
  const TempDir dir;
  REQUIRE(::chmod(dir.path().c_str(), 0755) == 0);
  TreeBuilder builder;
  builder.file("open", "")
      .mode(0644)
      .file("closed", "")
      .mode(0600)
      .file("sub/group", "")
      .mode(0640);
  builder.file("mine", "")
      .mode(0400)
      .owner(65534, 0)
      .file("not-mine", "")
      .mode(0044)
      .owner(65534, 0);
  builder.file("our-group", "").mode(0040).owner(0, 65534);
  builder.file("not-our-group", "").mode(0604).owner(0, 65534);
  builder.file("hole", "").mode(0200).directory("no-list/inside").directory("no-list").mode(0711);
  builder.file("no-search/file", "").directory("no-search").mode(0744);
  builder.symlink("dangling", "nowhere").fifo("fifo").mode(0);
  // user::rw- user:65534:--- group::r-- mask::r-- other::r--
  builder.file("by-acl", "")
      .mode(0644)
      .xattr("system.posix_acl_access",
             std::string(
                 "\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\0\0\xfe\xff\0\0\x04\0\x04\0\xff\xff"
                 "\xff\xff\x10\0\x04\0\xff\xff\xff\xff\x20\0\x04\0\xff\xff\xff\xff",
                 44));
  const BuiltTree built = builder.build();
  if (!may_materialise(built)) return;
  materialise(built, dir.path());
  REQUIRE(::chmod(dir.path().c_str(), 0755) == 0);

  const std::string kDenied = ": Permission denied";
  const std::vector<std::string> expected = {"by-acl" + kDenied,         "closed" + kDenied,
                                             "hole" + kDenied,           "no-list/" + kDenied,
                                             "no-search/file" + kDenied, "not-mine" + kDenied,
                                             "not-our-group" + kDenied,  "sub/group" + kDenied};
  for (const bool xattrs : {true, false}) {
    for (const bool use_own_directory : {true, false}) {
      ScanOptions options;
      options.entries.xattrs = xattrs;
      ScanTuning tuning;
      tuning.use_own_directory = use_own_directory;
      CAPTURE(xattrs, use_own_directory);
      const AsNobody nobody;
      const Error error = error_of(dir.path(), options, tuning);
      CHECK(error.code == Errc::unreadable);
      CHECK_THAT(error.what,
                 Catch::StartsWith(dir.path().string() + ": 8 entries cannot be read: "));
      for (const std::string& one : expected) CHECK_THAT(error.what, Catch::Contains(one));
      CHECK(error.what.find('\n') == std::string::npos);

      options.skip_unreadable = true;
      const Scan scanned = scan(dir.path(), options, tuning);
      CHECK(scanned.report.unreadable_count == 8);
      CHECK(scanned.report.unreadable_paths == expected);
      CHECK(names_of(*scanned.tree) ==
            "dangling\nfifo\nmine\nno-list\nno-search\nopen\nour-group\nsub\n");
    }
  }
  CHECK(scan(dir.path()).report.unreadable_count == 0);  // root may
}

TEST_CASE("an error about very many names stays bounded") {
  if (!may_be_nobody()) return;
  const TempDir dir(fast_place());
  REQUIRE(::chmod(dir.path().c_str(), 0755) == 0);
  for (int i = 1000; i < 1600; ++i) {
    write_file(dir / std::to_string(i), "");
    REQUIRE(::chmod((dir / std::to_string(i)).c_str(), 0) == 0);
  }
  ScanTuning tuning;
  tuning.names_a_task = 100;
  const AsNobody nobody;
  const Error error = error_of(dir.path(), {}, tuning);
  CHECK_THAT(error.what, Catch::Contains("600 entries cannot be read: 1000: Permission denied; "));
  CHECK_THAT(error.what, Catch::EndsWith("; 1099: Permission denied; and 500 more"));
  CHECK_THAT(hinted_text(error), Catch::EndsWith(" [as root] [exclude] [skip-unreadable]"));
}

TEST_CASE("an unreadable root is named") {
  if (!may_be_nobody()) return;
  const TempDir dir;  // mkdtemp makes it for its owner alone
  const AsNobody nobody;
  const Error error = error_of(dir.path());
  CHECK(error.code == Errc::unreadable);
  CHECK_THAT(error.what,
             Catch::Contains(dir.path().string()) && Catch::EndsWith("Permission denied"));
}

TEST_CASE("mount points are not entered unless asked") {
  const TempDir dir;
  fs::create_directories(dir / "tree/mnt");
  fs::create_directories(dir / "tree/bind");
  write_file(dir / "tree/mnt/below", "");
  write_file(dir / "tree/file", "below");
  fs::create_directory(dir / "other");
  write_file(dir / "other/seen", "");
  write_file(dir / "other-file", "bound");
  bool mounted = false;
  // A mount name space belongs to a thread; the scan's threads are born into that of their parent.
  std::thread([&] {
    const fs::path tree = dir / "tree";
    mounted =
        ::unshare(CLONE_NEWNS) == 0 &&
        ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
        ::mount("none", (tree / "mnt").c_str(), "tmpfs", 0, nullptr) == 0 &&
        ::mount((dir / "other").c_str(), (tree / "bind").c_str(), nullptr, MS_BIND, nullptr) == 0 &&
        ::mount((dir / "other-file").c_str(), (tree / "file").c_str(), nullptr, MS_BIND, nullptr) ==
            0;
    if (!mounted) return;
    write_file(tree / "mnt/in-tmpfs", "content");
    for (const bool use_openat2 : {true, false}) {
      ScanTuning tuning;
      tuning.use_openat2 = use_openat2;
      CAPTURE(use_openat2);
      const Scan kept_out = scan(tree, {}, tuning);
      CHECK(names_of(*kept_out.tree) == "bind\nmnt\n");
      CHECK(kept_out.report.mount_points_not_entered == 3);

      ScanOptions options;
      options.one_file_system = false;
      const Scan let_in = scan(tree, options, tuning);
      CHECK(names_of(*let_in.tree) == "bind\nfile\nmnt\nbind/seen\nmnt/in-tmpfs\n");
      CHECK(let_in.report.mount_points_not_entered == 0);
      CHECK(read_through(*let_in.files, *let_in.tree, "file") == "bound");
      CHECK(read_through(*let_in.files, *let_in.tree, "mnt/in-tmpfs") == "content");
    }
    // A file that is covered after it was scanned is not read through the mount.
    REQUIRE(::umount((tree / "file").c_str()) == 0);
    const Scan before = scan(tree);
    CHECK(read_through(*before.files, *before.tree, "file") == "below");
    REQUIRE(::mount((dir / "other-file").c_str(), (tree / "file").c_str(), nullptr, MS_BIND,
                    nullptr) == 0);
    CHECK(read_through(*before.files, *before.tree, "file") == fmt::format("errno {}", EXDEV));
    REQUIRE(::umount((tree / "file").c_str()) == 0);
    REQUIRE(::umount((tree / "bind").c_str()) == 0);
    REQUIRE(::umount((tree / "mnt").c_str()) == 0);
  }).join();
  if (!mounted) skipped("mounts");
}

TEST_CASE("hard links are found across directories") {
  const TempDir dir;
  fs::create_directories(dir / "z/deep");
  write_file(dir / "z/deep/first", "one");
  fs::create_hard_link(dir / "z/deep/first", dir / "b");
  fs::create_hard_link(dir / "z/deep/first", dir / "z/a");
  write_file(dir / "a", "two");
  fs::create_hard_link(dir / "a", dir / "z/other");
  // One whose other name lies outside.
  const TempDir outside;
  write_file(dir / "z/lone", "three");
  fs::create_hard_link(dir / "z/lone", outside / "name");
  const Scan scanned = scan(dir.path());
  const SourceTree& tree = *scanned.tree;
  REQUIRE(tree.find_path("b") != nullptr);
  CHECK(tree.find_path("b") == tree.find_path("z/deep/first"));
  CHECK(tree.find_path("b") == tree.find_path("z/a"));
  CHECK(tree.find_path("b")->link_count == 3);
  CHECK(tree.find_path("a") == tree.find_path("z/other"));
  CHECK(tree.find_path("z/lone")->link_count == 1);
  CHECK(read_through(*scanned.files, tree, "z/other") == "two");
}

TEST_CASE("files are known by their identity and can be opened again") {
  const TempDir dir;
  fs::create_directories(dir / "a/b");
  write_file(dir / "a/b/file", "content");
  const Scan scanned = scan(dir.path());
  const Node* node = scanned.tree->find_path("a/b/file");
  REQUIRE(node != nullptr);
  const auto no = content_no(scanned.tree->number_of(*node));
  struct stat status{};
  REQUIRE(::stat((dir / "a/b/file").c_str(), &status) == 0);
  CHECK(scanned.files->identity(no) == identity_of(status));
  CHECK(scanned.files->path(no) == "a/b/file");
  CHECK(read_through(*scanned.files, *scanned.tree, "a/b/file") == "content");

  // The directory is kept open by now; a new one in its place is found all the same.
  fs::rename(dir / "a/b", dir / "old");
  CHECK(read_through(*scanned.files, *scanned.tree, "a/b/file") == "content");
  fs::remove(dir / "old/file");
  CHECK(read_through(*scanned.files, *scanned.tree, "a/b/file") == fmt::format("errno {}", ENOENT));
  fs::create_directory(dir / "a/b");
  write_file(dir / "a/b/file", "new");
  CHECK(read_through(*scanned.files, *scanned.tree, "a/b/file") == "new");

  // A symlink on the way, or a FIFO at its end, is neither followed nor waited for.
  fs::rename(dir / "a", dir / "elsewhere");
  fs::create_directory_symlink("elsewhere", dir / "a");
  const Scan again = scan(dir.path());
  fs::remove(dir / "elsewhere/b/file");
  fs::create_symlink("/etc/passwd", dir / "elsewhere/b/file");
  CHECK(read_through(*again.files, *again.tree, "elsewhere/b/file") ==
        fmt::format("errno {}", ELOOP));
  fs::remove(dir / "elsewhere/b/file");
  REQUIRE(::mkfifo((dir / "elsewhere/b/file").c_str(), 0600) == 0);
  CHECK(read_through(*again.files, *again.tree, "elsewhere/b/file") == "");
}

TEST_CASE("many threads open many files in many directories at once") {
  const TempDir dir(fast_place());
  TreeBuilder builder;
  for (int d = 0; d < 150; ++d) builder.file(fmt::format("{}/x/y/file", d), std::to_string(d));
  const BuiltTree built = builder.build();
  if (!may_materialise(built)) return;
  materialise(built, dir.path());
  const Scan scanned = scan(dir.path());
  std::atomic<int> wrong = 0;
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 600; ++i) {
        const int d = (i * 7 + t * 31) % 150;
        const Node* node = scanned.tree->find_path(fmt::format("{}/x/y/file", d));
        const auto fd = scanned.files->open(content_no(scanned.tree->number_of(*node)));
        std::array<char, 8> text{};
        if (!fd || ::read(fd->get(), text.data(), text.size()) < 1 ||
            std::to_string(d) != text.data()) {
          ++wrong;
        }
      }
    });
  }
  threads.clear();
  CHECK(wrong == 0);
}

TEST_CASE("what vanishes during a scan is no error") {
  const TempDir dir(fast_place());
  for (int i = 0; i < 200; ++i) {
    fs::create_directories(dir / fmt::format("stays-{}", i));
    write_file(dir / fmt::format("stays-{}/file", i), "");
  }
  std::atomic<bool> stop = false;
  std::jthread churn([&] {
    for (unsigned round = 0; !stop; ++round) {
      const std::string top = dir / fmt::format("comes-{}", round % 7);
      std::error_code ignored;
      fs::create_directories(top + "/and/goes", ignored);
      for (int i = 0; i < 20; ++i) write_file(top + fmt::format("/and/{}", i), "x");
      fs::create_symlink("x", top + "/link", ignored);
      fs::remove_all(top, ignored);
    }
  });
  ScanTuning tuning;
  tuning.names_a_task = 8;
  ScanOptions options;
  options.threads = 3;
  std::uint64_t vanished = 0;
  for (int round = 0; round < 60; ++round) {
    const auto scanned = scan_directory(dir.path().string(), options, null_log(), tuning);
    if (!scanned) {
      stop = true;
      FAIL(scanned.error().what);
    }
    vanished += scanned->report.vanished_count;
    int staying = 0;
    for (int i = 0; i < 200; ++i) {
      staying += scanned->tree->find_path(fmt::format("stays-{}/file", i)) != nullptr ? 1 : 0;
    }
    CHECK(staying == 200);
  }
  stop = true;
  INFO("vanished in all: " << vanished);
}

TEST_CASE("a directory that is swapped for a symlink leads nowhere") {
  const TempDir dir(fast_place());
  fs::create_directories(dir / "outside/d");
  write_file(dir / "outside/d/secret", "secret");
  write_file(dir / "outside/secret", "secret");
  for (int i = 0; i < 20; ++i) {
    fs::create_directories(dir / fmt::format("tree/{}/d", i));
    write_file(dir / fmt::format("tree/{}/d/file", i), "public");
    write_file(dir / fmt::format("tree/{}/secret-not", i), "public");
    fs::create_directory_symlink(dir / "outside", dir / fmt::format("way-{}", i));
  }
  std::atomic<bool> stop = false;
  std::jthread swap([&] {
    while (!stop) {
      for (int i = 0; i < 20; ++i) {
        ::renameat2(AT_FDCWD, (dir / fmt::format("tree/{}", i)).c_str(), AT_FDCWD,
                    (dir / fmt::format("way-{}", i)).c_str(), RENAME_EXCHANGE);
      }
    }
  });
  const bool use_openat2 = GENERATE(true, false);
  ScanTuning tuning;
  tuning.use_openat2 = use_openat2;
  tuning.most_open_directories = GENERATE(std::size_t{1}, std::size_t{100});
  for (int round = 0; round < 100; ++round) {
    const auto scanned = scan_directory((dir / "tree").string(), {}, null_log(), tuning);
    if (!scanned) {
      stop = true;
      FAIL(scanned.error().what);
    }
    const SourceTree& tree = *scanned->tree;
    CHECK(names_of(tree).find("/secret\n") == std::string::npos);
    for (NodeNo no; no < tree.node_count(); ++no) {
      if (!tree.node(no).is_regular()) continue;
      const auto fd = scanned->files->open(content_no(no));
      std::array<char, 6> text{};
      if (fd && ::read(fd->get(), text.data(), text.size()) == 6) {
        CHECK(std::string(text.data(), text.size()) == "public");
      }
    }
  }
  stop = true;
}

TEST_CASE("chattr flags of host files are seen by the scan's own statx") {
  const TempDir dir("/var/tmp");
  write_file(dir / "file", "x");
  const UniqueFd file(::open((dir / "file").c_str(), O_RDONLY | O_CLOEXEC));
  REQUIRE(file);
  int flags = 0;
  const bool has_flags = ::ioctl(file.get(), FS_IOC_GETFLAGS, &flags) == 0;
  flags |= FS_NODUMP_FL;
  if (!has_flags || ::ioctl(file.get(), FS_IOC_SETFLAGS, &flags) != 0) {
    WARN("this file system has no chattr flags");
    return;
  }
  struct statx status{};
  REQUIRE(::statx(file.get(), "", AT_EMPTY_PATH, STATX_BASIC_STATS, &status) == 0);
  if ((status.stx_attributes & STATX_ATTR_NODUMP) == 0) {
    WARN("statx(2) has no chattr flags of this file system");
    return;
  }
  const Result<Scan> scan = scan_directory(dir.path().string(), {}, null_log());
  REQUIRE(scan);
  CHECK(scan->tree->find_path("file")->unshown == unshown::kNoDump);
}
