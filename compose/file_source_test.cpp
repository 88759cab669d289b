// SPDX-License-Identifier: BSD-3-Clause
#include "compose/file_source.h"

#include <sys/stat.h>

#include <array>
#include <catch2/catch.hpp>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "compose/prepare.h"
#include "support/log.h"
#include "tests/support/collected_log.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs {
namespace {

struct Bench {
  Bench() {
    std::filesystem::create_directory(dir / "base");
    std::filesystem::create_directory(dir / "base/etc");
    write_file(dir / "base/etc/hosts", "old\n");
    write_file(dir / "ho[s]ts*", "127.0.0.1 localhost\n");
    ::chmod((dir / "ho[s]ts*").c_str(), 0640);
    write_file(dir / "hosts", "another one\n");
    std::filesystem::create_symlink("ho[s]ts*", dir / "link");
  }
  std::string at(const std::string& name) const { return (dir / name).string(); }
  Result<PreparedImage> prepare(std::vector<SourceSpec> sources) {
    Resources resources({.spool_directory = dir.path().string(), .reader_path = MKVIRTFS_READER});
    return mkvirtfs::prepare({.sources = std::move(sources), .format = "ext4"}, resources);
  }
  PreparedImage made(std::vector<SourceSpec> sources) {
    Result<PreparedImage> prepared = prepare(std::move(sources));
    if (!prepared) FAIL(prepared.error().what);
    return std::move(*prepared);
  }
  Error refused(std::vector<SourceSpec> sources) {
    const Result<PreparedImage> prepared = prepare(std::move(sources));
    REQUIRE_FALSE(prepared);
    return prepared.error();
  }

  TempDir dir;
};

/// The bytes of a file of at most a block as the image has them.
std::string bytes_at(const PreparedImage& prepared, const std::string& path) {
  const Node* node = prepared.tree->find_path(path);
  REQUIRE(node != nullptr);
  const DataPlacement placed = static_cast<const PlannedImage&>(*prepared.image).data_at(path);
  std::string bytes(node->size_bytes, '\0');
  const Result<void> read =
      prepared.device->read(placed.find(0).value(), std::as_writable_bytes(std::span(bytes)));
  if (!read) FAIL(read.error().what);
  return bytes;
}

}  // namespace

TEST_CASE("a file stands at its path, with its metadata") {
  Bench bench;
  const std::string source = GENERATE("ho[s]ts*", "link");
  const PreparedImage made = bench.made({{.path = bench.at("base")},
                                         {.path = bench.at(source),
                                          .at = "/etc/hosts",
                                          .is_file = true,
                                          .rules = {{false, "*"}},
                                          .owner_uid = 7}});
  CHECK(bytes_at(made, "etc/hosts") == "127.0.0.1 localhost\n");
  const Node& node = *made.tree->find_path("etc/hosts");
  CHECK(node.mode == (S_IFREG | 0640));
  CHECK(node.uid == 7);
  struct stat status{};
  ::stat(bench.at("ho[s]ts*").c_str(), &status);
  CHECK(node.mtime_s == status.st_mtim.tv_sec);
  CHECK(made.report.sources[1].kind == "file");
  CHECK(made.report.passed_over.excluded_count == 0);
  CHECK(made.report.remarks.empty());
}

TEST_CASE("files alone are an image") {
  Bench bench;
  const PreparedImage made = bench.made({{.path = bench.at("hosts"), .at = "a/b", .is_file = true},
                                         {.path = bench.at("hosts"), .at = "a/c", .is_file = true},
                                         {.path = "/dev/null", .at = "empty", .is_file = true}});
  CHECK(made.tree->node_count() == 5);
  CHECK(bytes_at(made, "a/b") == "another one\n");
  CHECK(bytes_at(made, "a/c") == "another one\n");
  const Node& empty = *made.tree->find_path("empty");
  CHECK(empty.mode == (S_IFREG | 0644));
  CHECK(empty.size_bytes == 0);
  CHECK(empty.mtime_s == 0);
}

TEST_CASE("a pipe is read to its end") {
  Bench bench;
  ::mkfifo(bench.at("pipe").c_str(), 0600);
  std::jthread writer([&] { write_file(bench.dir / "pipe", std::string(100'000, 'p')); });
  const PreparedImage made =
      bench.made({{.path = bench.at("pipe"), .at = "x", .is_file = true, .owner_gid = 3}});
  const Node& node = *made.tree->find_path("x");
  CHECK(node.size_bytes == 100'000);
  CHECK(node.mode == (S_IFREG | 0644));
  CHECK(node.gid == 3);
  CHECK(bytes_at(made, "x") == std::string(100'000, 'p'));
}

TEST_CASE("a source that is no archive is a file where a place is given") {
  Bench bench;
  const PreparedImage made =
      bench.made({{.path = bench.at("base")}, {.path = bench.at("hosts"), .at = "etc/hosts"}});
  CHECK(bytes_at(made, "etc/hosts") == "another one\n");
  REQUIRE(made.report.remarks.size() == 1);
  CHECK(made.report.remarks[0].about == Remark::About::file_source);
  CHECK(made.report.remarks[0].what ==
        bench.at("hosts") + " is no archive: it is the file /etc/hosts");
  for (const char* place : {"", "/", "etc/"}) {
    CAPTURE(place);
    CHECK_THAT(bench.refused({{.path = bench.at("hosts"), .at = place}}).what,
               Catch::Contains("not a directory or a supported archive"));
  }
}

TEST_CASE("a file that changes is seen") {
  Bench bench;
  const PreparedImage made = bench.made({{.path = bench.at("hosts"), .at = "h", .is_file = true}});
  const std::uint64_t at =
      static_cast<const PlannedImage&>(*made.image).data_at("h").find(0).value();
  write_file(bench.dir / "hosts", "another two\n");
  std::array<std::byte, 4> bytes{};
  const Result<void> read = made.device->read(at, bytes);
  REQUIRE_FALSE(read);
  CHECK(read.error().code == Errc::source_changed);
}

TEST_CASE("what can be no file of an image is refused") {
  Bench bench;
  const auto [source, said] = GENERATE(table<std::string, std::string>({
      {"none etc/x", "none does not exist"},
      {"base etc/x", "is a directory, and no file"},
      {"hosts etc", "/etc is a directory in the sources before it"},
      {"hosts ", "a file needs a path in the image"},
      {"hosts etc/hosts/x", "/etc/hosts is no directory in the sources before it, but a file"},
      {"hosts a/../b", "no path in the image"},
  }));
  const std::size_t blank = source.find(' ');
  const Error error = bench.refused({{.path = bench.at("base")},
                                     {.path = bench.at(source.substr(0, blank)),
                                      .at = source.substr(blank + 1),
                                      .is_file = true}});
  CHECK_THAT(error.what, Catch::Contains(said));
}

TEST_CASE("standard input is one source") {
  Bench bench;
  const Error error = bench.refused(
      {{.path = "-", .at = "a", .is_file = true}, {.path = "-", .at = "b", .is_file = true}});
  CHECK(error.code == Errc::usage);
  CHECK_THAT(error.what, Catch::Contains("standard input can be read once"));
}

}  // namespace mkvirtfs
