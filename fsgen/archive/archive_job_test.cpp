// SPDX-License-Identifier: BSD-3-Clause
// Archives that are read in a helper, and what becomes of those that never end.
#include "fsgen/archive/archive_job.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "fsgen/archive/archive.h"
#include "fsgen/stream/testing/stream_data.h"
#include "tests/support/foreign_tools.h"
#include "tests/support/hinted_text.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs::archive {
namespace {

using namespace std::chrono_literals;
using testing::MemorySource;

std::string packed_by(const std::string& command, const std::string& text) {
  const TempDir dir("/var/tmp");
  write_file(dir / "text", text);
  write_file(dir / "twin", text);
  const Ran ran =
      run_tool({"bash", "-c", "set -e; cd " + dir.path().string() + "; O=packed; " + command});
  INFO(ran.output);
  REQUIRE(ran.status == 0);
  return read_file(dir / "packed");
}

ReadOptions with_helper() {
  ReadOptions options;
  options.helper.path = MKVIRTFS_READER;
  options.spool = std::make_shared<SpoolSpace>("/var/tmp", std::uint64_t{64} << 20);
  return options;
}

Result<ReadMembers> read(const std::string& bytes, const ReadOptions& options) {
  return read_members(std::make_shared<MemorySource>(bytes, "packed"), options, null_log());
}

std::string error_of(const std::string& bytes, const ReadOptions& options) {
  const Result<ReadMembers> found = read(bytes, options);
  REQUIRE_FALSE(found);
  CHECK(found.error().what.find('\n') == std::string::npos);
  return hinted_text(found.error());
}

std::string bytes_of(ByteSource& source) {
  std::string bytes(source.size_bytes(), '?');
  REQUIRE(source.read(0, std::as_writable_bytes(std::span(bytes))));
  return bytes;
}

void check_no_progress(const std::string& bytes) {
  ReadOptions options = with_helper();
  options.helper.progress_deadline = 1000ms;
  const auto start = std::chrono::steady_clock::now();
  CHECK_THAT(error_of(bytes, options),
             Catch::StartsWith("packed: ") && Catch::Contains("no progress"));
  CHECK(std::chrono::steady_clock::now() - start < 30s);
}

/// A xar archive of this table of contents: a header, the table as zlib packs it, and no more.
std::string xar_of(const std::string& table) {
  std::string xar;
  const auto put = [&](std::uint64_t value, unsigned bytes) {
    for (unsigned i = bytes; i-- > 0;) xar += static_cast<char>(value >> (8 * i));
  };
  const TempDir dir("/var/tmp");
  write_file(dir / "table", table);
  const std::string pack =
      "import sys,zlib; open(sys.argv[2],'wb').write(zlib.compress(open(sys.argv[1],'rb').read()))";
  const Ran ran =
      run_tool({"python3", "-c", pack, (dir / "table").string(), (dir / "packed").string()});
  REQUIRE(ran.status == 0);
  const std::string packed = read_file(dir / "packed");
  xar = "xar!";
  put(28, 2);
  put(1, 2);
  put(packed.size(), 8);
  put(table.size(), 8);
  put(0, 4);  // no checksum
  return xar + packed;
}

}  // namespace

TEST_CASE("tar, cpio, ar and zip are read in this process, and all else in the helper") {
  const std::string text = testing::some_bytes(70'001, 1);
  const ReadOptions nobody;
  for (const char* command :
       {"bsdtar -cf $O --format=ustar text", "bsdtar -cf $O --format=v7tar text",
        "tar -cf $O --format=gnu text", "bsdtar -cf $O --format=newc text",
        "bsdtar -cf $O --format=odc text", "bsdtar -cf $O --format=bin text", "ar rcD $O text",
        "bsdtar -cf $O --format=zip text", "head -c 10240 /dev/zero >$O"}) {
    INFO(command);
    const std::string bytes = packed_by(command, text);
    MemorySource source(bytes);
    CHECK(is_read_in_process(source).value());
    CHECK(read(bytes, nobody));
  }
  for (const char* command :
       {"bsdtar -cf $O --format=iso9660 text", "bsdtar -cf $O --format=7zip text",
        "bsdtar -cf $O --format=xar text", "gcab -c $O text", "echo hello >$O",
        "xorriso -outdev $O -map text /text -commit"}) {
    INFO(command);
    const std::string bytes = packed_by(command, text);
    MemorySource source(bytes);
    CHECK_FALSE(is_read_in_process(source).value());
    CHECK_THAT(error_of(bytes, nobody), Catch::StartsWith("packed can only be read by "));
  }
}

TEST_CASE("a helper finds the same members and bytes as this process") {
  const std::string text = testing::some_bytes(3'000'001, 2);
  for (const char* command :
       {"xorriso -outdev $O -zisofs level=6 -map text /text -set_filter_r --zisofs / -- -commit",
        "bsdtar -cf $O --format=7zip text twin", "bsdtar -cf $O --format=xar text twin",
        "gcab -cz $O text twin", "(head -c 5000 /bin/true; bsdtar -cf - --format=zip text) >$O"}) {
    INFO(command);
    const std::string bytes = packed_by(command, text);
    ReadOptions options = with_helper();
    const Result<ReadMembers> there = read(bytes, options);
    INFO((there ? "" : there.error().what));
    REQUIRE(there);
    options.in_process = true;
    const Result<ReadMembers> here = read(bytes, options);
    REQUIRE(here);
    CHECK(there->format == here->format);
    CHECK(std::ranges::equal(there->members.bytes(), here->members.bytes()));
    REQUIRE((there->spool != nullptr) == (here->spool != nullptr));
    if (there->spool) CHECK(bytes_of(*there->spool) == bytes_of(*here->spool));
  }
}

TEST_CASE("limits, passphrases and the spool count in a helper, too") {
  const std::string text = testing::some_bytes(1'000'001, 3);
  const std::string sevenzip = packed_by("bsdtar -cf $O --format=7zip text twin", text);
  ReadOptions options = with_helper();
  options.limits.most_members = 1;
  CHECK_THAT(error_of(sevenzip, options), Catch::Contains("[max-entries]"));
  options = with_helper();
  options.limits.most_bytes = 1'500'000;
  CHECK_THAT(error_of(sevenzip, options), Catch::Contains("[max-size]"));
  options = with_helper();
  options.spool = std::make_shared<SpoolSpace>("/var/tmp", 100'000);
  CHECK_THAT(error_of(sevenzip, options), Catch::Contains("[spool-limit]"));
  options.spool.reset();
  CHECK_THAT(error_of(sevenzip, options), Catch::Contains("into a spool"));
  // Zip in something that is started: the helper's.
  const std::string locked = packed_by(
      "7z a -bd -tzip -psecret z.zip text twin; mv z.zip z; (head -c 5000 /bin/true; cat z) >$O",
      text);
  options = with_helper();
  CHECK_THAT(error_of(locked, options), Catch::Contains("[passphrase-file]"));
  options.passphrases = {"wrong", "secret"};
  const Result<ReadMembers> opened = read(locked, options);
  INFO((opened ? "" : opened.error().what));
  REQUIRE(opened);
  CHECK(bytes_of(*opened->spool) == text + text);
}

TEST_CASE("damage that a helper finds is named as ever") {
  std::string bytes =
      packed_by("bsdtar -cf $O --format=7zip text twin", testing::some_bytes(100'001, 4));
  bytes[bytes.size() / 3] ^= 0x41;
  CHECK_THAT(error_of(bytes, with_helper()),
             Catch::StartsWith("packed: member ") && Catch::Contains("unpacked"));
  CHECK_THAT(error_of("just some text", with_helper()),
             Catch::Contains("not a directory or a supported archive"));
}

TEST_CASE("a xar with doubled links ends with one line") {
  const auto file = [](int id, const std::string& name, const std::string& type) {
    return "<file id=\"" + std::to_string(id) + "\"><name>" + name + "</name>" + type + "</file>";
  };
  const std::string original = "<type link=\"original\">hardlink</type>";
  const std::string link = "<type link=\"1\">hardlink</type>";
  const std::string head = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><xar><toc>";
  const std::string whole =
      head + file(1, "a", original) + file(2, "b", link) + file(3, "c", link) + "</toc></xar>";
  CHECK(read(xar_of(whole), with_helper()));
  // Each of them makes libarchive's list of links a circle.
  for (const std::string& doubled :
       {head + file(1, "a", original + original) + "</toc></xar>",
        head + file(1, "a", original) + file(2, "b", link + link) + "</toc></xar>"}) {
    check_no_progress(xar_of(doubled));
  }
}

}  // namespace mkvirtfs::archive
