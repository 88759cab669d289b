// SPDX-License-Identifier: BSD-3-Clause
// What libarchive drops of a tar's headers, against GNU tar and bsdtar.
#include "fsgen/archive/tar_headers.h"

#include <sys/stat.h>
#include <zlib.h>

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "fsgen/archive/archive.h"
#include "fsgen/archive/testing/opened.h"
#include "fsgen/archive/testing/tar_bytes.h"
#include "fsgen/stream/testing/stream_data.h"
#include "fsgen/tree/testing/layer_bytes.h"
#include "tests/support/collected_log.h"
#include "tests/support/foreign_tools.h"
#include "tests/support/hinted_text.h"
#include "tests/support/privileges.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs::archive {
namespace {

using testing::bytes_at;
using testing::CollectedLog;
using testing::kTarEnd;
using testing::MemorySource;
using testing::pax_header;
using testing::pax_record;
using testing::tar_member;

using testing::run_shell;

std::string gzip(const std::string& bytes) {
  z_stream zlib{};
  deflateInit2(&zlib, 1, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&zlib, bytes.size()) + 64, '\0');
  zlib.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  zlib.avail_in = static_cast<uInt>(bytes.size());
  zlib.next_out = reinterpret_cast<Bytef*>(out.data());
  zlib.avail_out = static_cast<uInt>(out.size());
  deflate(&zlib, Z_FINISH);
  out.resize(zlib.total_out);
  deflateEnd(&zlib);
  return out;
}

Result<Layer> open(std::string bytes, const ReadOptions& options = {}, LogSink& log = null_log()) {
  Result<testing::Opened> opened =
      testing::open(std::move(bytes), "a.tar", {.read = options, .log = &log});
  if (!opened) return propagate(opened);
  return std::move(opened->layer);
}

Layer opened(const std::string& bytes, const ReadOptions& options = {}) {
  return testing::whole(testing::open(bytes, "a.tar", {.read = options})).layer;
}

const Node& node_of(const Layer& layer, std::string_view path) {
  const Node* const node = layer.tree->find_path(path);
  REQUIRE(node != nullptr);
  return *node;
}

}  // namespace

TEST_CASE("a pax time is rounded down, also before 1970") {
  CHECK(pax_time("-86400.5") == Timestamp{-86401, 500'000'000});
  CHECK(pax_time("-0.5") == Timestamp{-1, 500'000'000});
  CHECK(pax_time("-1") == Timestamp{-1, 0});
  CHECK(pax_time("-1.000000000") == Timestamp{-1, 0});
  CHECK(pax_time("-1.0000000001") == Timestamp{-2, 999'999'999});
  CHECK(pax_time("-1.9999999999") == Timestamp{-2, 0});
  CHECK(pax_time("1.25") == Timestamp{1, 250'000'000});
  CHECK(pax_time("1.9999999999") == Timestamp{1, 999'999'999});
  CHECK(pax_time("9223372036854775807") == Timestamp{INT64_MAX, 0});
  for (const char* const text :
       {"", "-", "--1", "x", "1x", "1.x", "1.5.5", "9223372036854775808", " 1"}) {
    INFO(text);
    CHECK_FALSE(pax_time(text));
  }
}

TEST_CASE("a pax mtime of -86400.5 is that, and no second later") {
  const TempDir dir("/var/tmp");
  write_file(dir / "f", "x");
  write_file(dir / "g", "x");
  run_shell("cd " + dir.path().string() +
            "; touch -d @-86400.5 f; touch -d @-0.25 g; tar -cf a.tar --format=posix f g");
  const std::string bytes = read_file(dir / "a.tar");
  REQUIRE(bytes.contains("mtime=-86400.5"));
  for (const std::string& each : {bytes, gzip(bytes)}) {
    const Layer layer = opened(each);
    for (const char* const name : {"f", "g"}) {
      struct stat status{};
      REQUIRE(::stat((dir / name).c_str(), &status) == 0);
      CHECK(node_of(layer, name).mtime() ==
            Timestamp{status.st_mtim.tv_sec, static_cast<std::uint32_t>(status.st_mtim.tv_nsec)});
    }
    CHECK(node_of(layer, "f").mtime() == Timestamp{-86401, 500'000'000});
  }
}

TEST_CASE("pax global headers count for owners and times as with GNU tar") {
  const std::string bytes =
      tar_member("before", '0', "0") +
      pax_header('g', {{"comment", "a remark"},
                       {"uid", "1234"},
                       {"gid", "54321"},
                       {"mtime", "-86400.5"},
                       {"uname", "nobody"},
                       {"atime", "1"}}) +
      tar_member("plain", '0', "1") + tar_member("directory/", '5', "") +
      pax_header('x', {{"uid", "7"}}) + tar_member("own uid", '0', "2") +
      pax_header('x', {{"mtime", "5.25"}, {"gid", "8"}}) + tar_member("own time", '0', "3") +
      pax_header('g', {{"gid", "66"}}) + tar_member("replaced", '0', "4") +
      // The order of a member's own header and a global one does not count.
      pax_header('x', {{"uid", "9"}}) + pax_header('g', {{"uid", "10"}, {"gid", "11"}}) +
      tar_member("both", '0', "5") + pax_header('g', {{"comment", "x"}}) +
      tar_member("none", '0', "6") + kTarEnd;
  // GNU tar gives files away only as root, of a user name space or not.
  if (::geteuid() != 0) return testing::skipped("owners of what GNU tar unpacks");
  const TempDir dir("/var/tmp");
  write_file(dir / "a.tar", bytes);
  std::filesystem::create_directory(dir / "out");
  run_shell("tar -xpf " + (dir / "a.tar").string() + " --numeric-owner -C " +
            (dir / "out").string());
  for (const std::string& each : {bytes, gzip(bytes)}) {
    const Layer layer = opened(each);
    for (const char* const name :
         {"before", "plain", "directory", "own uid", "own time", "replaced", "both", "none"}) {
      INFO(name);
      struct stat status{};
      REQUIRE(::stat((dir / "out" / name).c_str(), &status) == 0);
      const Node& node = node_of(layer, name);
      CHECK(node.uid == status.st_uid);
      CHECK(node.gid == status.st_gid);
      CHECK(node.mtime() ==
            Timestamp{status.st_mtim.tv_sec, static_cast<std::uint32_t>(status.st_mtim.tv_nsec)});
    }
    CHECK(node_of(layer, "plain").uid == 1234);
    CHECK(node_of(layer, "replaced").uid == 0);
    CHECK(node_of(layer, "both").uid == 9);
  }
}

TEST_CASE("GNU tar's own --pax-option and --label are read") {
  const TempDir dir("/var/tmp");
  write_file(dir / "f", "x");
  run_shell("cd " + dir.path().string() +
            "; tar -cf a.tar --format=posix --label=Backup --pax-option=gid=4242,comment=x f");
  const Layer layer = opened(read_file(dir / "a.tar"));
  CHECK(node_of(layer, "f").gid == 4242);
}

TEST_CASE("what a pax global header may not say is refused by name, or ignored when asked to") {
  for (const auto& [keyword, value] : testing::PaxRecords{{"path", "x"},
                                                          {"linkpath", "x"},
                                                          {"size", "1"},
                                                          {"SCHILY.xattr.user.a", "b"},
                                                          {"LIBARCHIVE.xattr.user.a", "Yg"},
                                                          {"SCHILY.acl.access", "user::rwx"},
                                                          {"GNU.sparse.major", "1"},
                                                          {"GNU.volume.offset", "512"},
                                                          {"VENDOR.thing", "1"},
                                                          {"uid", "me"},
                                                          {"gid", ""},
                                                          {"mtime", "now"}}) {
    INFO(keyword);
    const std::string bytes =
        pax_header('g', {{"gid", "5"}, {keyword, value}}) + tar_member("f", '0', "x") + kTarEnd;
    for (const std::string& each : {bytes, gzip(bytes)}) {
      const Result<Layer> refused = open(each);
      REQUIRE_FALSE(refused);
      CHECK_THAT(hinted_text(refused.error()),
                 Catch::StartsWith("a.tar: member f, byte 0: a pax global header before it has " +
                                   keyword + "=" + value) &&
                     Catch::EndsWith(" [pax-globals=ignore]"));
      ReadOptions options;
      options.pax_globals = PaxGlobals::ignore;
      CollectedLog log;
      const Result<Layer> ignored = open(each, options, log);
      REQUIRE(ignored);
      CHECK(node_of(*ignored, "f").gid == 0);
      CHECK_THAT(log.take(), Catch::Contains("a.tar: its pax global headers are ignored: gid") &&
                                 Catch::Contains(keyword));
    }
  }
  const std::string damaged =
      tar_member("g", 'g', "99 uid=1\n") + tar_member("f", '0', "x") + kTarEnd;
  CHECK_THAT(open(damaged).error().what, Catch::Contains("its pax global header is damaged"));
}

TEST_CASE("headers are read wherever the pieces of a stream end") {
  const std::string name = std::string(200, 'd') + "/" + std::string(250, 'n');
  // 'x', a long name and the header itself, over the end of a piece of 256 KiB at each block.
  const std::string headers =
      pax_header('g', {{"uid", "1234"}}) + pax_header('x', {{"mtime", "-86400.5"}}) +
      tar_member("././@LongLink", 'L', name + '\0') + tar_member("n", '0', "x");
  for (std::size_t blocks = 500; blocks <= 512; ++blocks) {
    INFO(blocks);
    const std::string bytes =
        tar_member("first", '0', std::string((blocks - 1) * 512, '.')) + headers + kTarEnd;
    const Layer layer = opened(gzip(bytes));
    const Node& node = node_of(layer, name);
    CHECK(node.uid == 1234);
    CHECK(node.mtime() == Timestamp{-86401, 500'000'000});
  }
}

TEST_CASE("a sparse file of Solaris' pax has its bytes and its holes") {
  const std::string first(4096, 'a');
  const std::string last(5000, 'b');
  const std::string bytes = first + std::string(8192, '\0') + last;
  struct Case {
    std::string holes;
    std::string bytes;
    std::vector<Range> runs;
  };
  const std::vector<Case> cases = {
      {" 0 4096 12288 17288", bytes, {{0, 4096}, {12288, 5000}}},
      {" 12288 17288", std::string(12288, '\0') + last, {{12288, 5000}}},
      {" 0 4096 12288", first + std::string(8192, '\0'), {{0, 4096}}},
      {" 17288", std::string(17288, '\0'), {}},
      {" 0 17288", bytes, {{0, 17288}}},
  };
  for (const Case& each : cases) {
    INFO(each.holes);
    const std::string tar = pax_header('x', {{"SUN.holesdata", each.holes}}) +
                            tar_member("s", '0', each.bytes) + tar_member("behind", '0', "x") +
                            kTarEnd;
    const TempDir dir;
    write_file(dir / "a.tar", tar);
    run_shell("cd " + dir.path().string() + "; bsdtar -xf a.tar");
    CHECK((read_file(dir / "s") == each.bytes));
    for (const std::string& packed : {tar, gzip(tar)}) {
      const Layer layer = opened(packed);
      CHECK((bytes_at(layer, "s") == each.bytes));
      CHECK(bytes_at(layer, "behind") == "x");
      Range dense;
      const Node& node = node_of(layer, "s");
      const auto runs = layer.tree->data_runs(layer.tree->number_of(node), dense);
      CHECK(std::vector(runs.begin(), runs.end()) == each.runs);
      // From the middle of a run and of a hole.
      for (const std::size_t at : {std::size_t{4000}, std::size_t{10'000}, std::size_t{12'287}}) {
        if (at + 1000 > each.bytes.size()) continue;
        std::string part(1000, '?');
        REQUIRE(layer.contents->read(content_no(layer.tree->number_of(node)), at,
                                     std::as_writable_bytes(std::span(part))));
        CHECK((part == each.bytes.substr(at, part.size())));
      }
    }
  }
  for (const char* const holes : {" 0 99999", " 0 4096 8192 99999", " 4096 0", "0 17288", " x", "",
                                  " 0 4096", " 0 4096x", " 0 -1", " "}) {
    INFO(holes);
    const Result<Layer> layer =
        open(pax_header('x', {{"SUN.holesdata", holes}}) + tar_member("s", '0', bytes) +
             tar_member("behind", '0', "x") + kTarEnd);
    REQUIRE_FALSE(layer);
    CHECK_THAT(layer.error().what,
               Catch::Contains("member s, byte 0: its list of holes is damaged"));
  }
}

}  // namespace mkvirtfs::archive
