// SPDX-License-Identifier: BSD-3-Clause
// Archives as nobody should make them.
#include <catch2/catch.hpp>
#include <cstring>
#include <string>
#include <vector>

#include "fsgen/archive/archive.h"
#include "fsgen/archive/testing/opened.h"
#include "fsgen/archive/testing/tar_bytes.h"
#include "fsgen/archive/zip_directory.h"
#include "fsgen/stream/testing/stream_data.h"
#include "fsgen/tree/testing/layer_bytes.h"
#include "support/byte_order.h"
#include "tests/support/foreign_tools.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs::archive {
namespace {

using testing::bytes_at;
using testing::kTarEnd;
using testing::MemorySource;
using testing::tar_member;

/// All of it: the members and the tree.
Result<Layer> open(std::string bytes, ReadOptions options = {}) {
  // Some thousand times, for which no process is started.
  options.in_process = true;
  Result<testing::Opened> opened =
      testing::open(std::move(bytes), "bad", {.read = std::move(options)});
  if (!opened) return propagate(opened);
  return std::move(opened->layer);
}

std::string refusal(const std::string& bytes, const ReadOptions& options = {}) {
  return testing::refusal(open(bytes, options));
}

/// What a program packs of a directory with two files and a link.
std::string packed_by(const std::string& command) {
  const TempDir dir("/var/tmp");
  std::filesystem::create_directory(dir / "tree");
  write_file(dir / "tree/first", std::string(3000, 'a') + std::string(3000, 'b'));
  write_file(dir / "tree/second", "short");
  const Ran ran = run_tool({"bash", "-c",
                            "set -e; O=" + (dir / "packed").string() + "; cd " +
                                (dir / "tree").string() + "; ln -s first link; " + command});
  INFO(ran.output);
  REQUIRE(ran.status == 0);
  return read_file(dir / "packed");
}

}  // namespace

TEST_CASE("a source that is no archive is refused as such") {
  CHECK(refusal("just some text") == "bad is not a directory or a supported archive [file]");
  CHECK_THAT(refusal(""), Catch::Contains("not a directory or a supported archive"));
  CHECK_THAT(refusal(std::string(100'000, 'x')),
             Catch::Contains("not a directory or a supported archive"));
  CHECK_THAT(refusal(std::string("PK\3\4") + std::string(100, '\0')),
             Catch::Contains("zip archive without its end"));
}

TEST_CASE("an archive without members is an empty tree") {
  const Result<Layer> opened = open(kTarEnd);
  REQUIRE(opened);
  CHECK(opened->tree->node_count() == 1);
  // A disk image begins with zeroes, too.
  CHECK_THAT(refusal(kTarEnd + "superblock" + kTarEnd),
             Catch::Contains("not a directory or a supported archive"));
}

TEST_CASE("errors name the member and where it stands") {
  const std::string good = tar_member("a", '0', "x");
  CHECK(refusal(good + tar_member("../b", '0', "x") + kTarEnd) ==
        "bad: member ../b has \"..\" in its name [unsafe-names=strip]");
  // The member's bytes are cut off.
  CHECK(refusal(good + tar_member("b", '0', std::string(2000, 'y')).substr(0, 1000)) ==
        "bad: member b, byte 1024: has 2000 bytes from 1536 on, but the archive ends at 2024");
  // A header that is no header.
  std::string damaged = good + tar_member("b", '0', "x") + kTarEnd;
  damaged[1024 + 3] = 'z';
  CHECK_THAT(refusal(damaged), Catch::StartsWith("bad: member a, byte 1024: behind it: "));
  // A header that is cut off.
  CHECK_THAT(refusal(good + std::string(100, 'h')), Catch::Contains("byte 1024"));
}

TEST_CASE("a tar may end with its last member's bytes, where that is asked for") {
  ReadOptions lacking;
  lacking.lacks_end = true;
  // One that a block of padding completes, one with many; and what is compressed comes forwards.
  for (const std::size_t size : {std::size_t{1}, std::size_t{511}, std::size_t{40'000}}) {
    const std::string bytes(size, 'x');
    const std::string whole = tar_member("a", '0', "first") + tar_member("b", '0', bytes);
    const std::string cut = whole.substr(0, 1024 + 512 + size);
    CHECK_THAT(refusal(cut), Catch::Contains("behind it: "));
    CHECK_FALSE(open(cut.substr(0, cut.size() - 1), lacking));
    CHECK_FALSE(open(whole.substr(0, 1024 + 500), lacking));
    const Result<Layer> opened = open(cut, lacking);
    REQUIRE(opened);
    const Node* const last = opened->tree->find_path("b");
    REQUIRE(last != nullptr);
    CHECK(last->size_bytes == size);
  }
}

TEST_CASE("impossible sizes are refused") {
  // 2^62 in base 256
  const std::string huge("\x80\0\0\0\x40\0\0\0\0\0\0\0", 12);
  CHECK_THAT(refusal(tar_member("f", '0', "", "", huge) + kTarEnd), Catch::Contains("[max-size]"));
  const std::string negative("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 12);
  CHECK_FALSE(open(tar_member("f", '0', "", "", negative) + kTarEnd));
  ReadOptions options;
  options.limits.most_bytes = 3;
  CHECK_THAT(refusal(tar_member("a", '0', "xx") + tar_member("b", '0', "yy") + kTarEnd, options),
             Catch::Contains("member b") && Catch::Contains("[max-size]"));
  options = {};
  options.limits.most_members = 2;
  CHECK(refusal(tar_member("a", '5', "") + tar_member("b", '5', "") + tar_member("c", '5', ""),
                options) == "bad has more than 2 members [max-entries]");
}

TEST_CASE("a directory with bytes is damage") {
  CHECK_FALSE(open(tar_member("d/", '5', "12345") + tar_member("f", '0', "x") + kTarEnd));
}

TEST_CASE("an old GNU sparse file may not claim what it likes") {
  std::string member = tar_member("s", 'S', std::string(512, 'd'));
  // One run at 0, and a real size of 2^62, in the header's own checksum.
  const auto put = [&](std::size_t at, const std::string& text) {
    member.replace(at, text.size(), text);
  };
  put(257, std::string("ustar  \0", 8));
  put(386, "00000000000");
  put(398, "00000001000");
  put(483, std::string("\x80\0\0\0\x40\0\0\0\0\0\0\0", 12));
  put(148, "        ");
  unsigned sum = 0;
  for (std::size_t i = 0; i < 512; ++i) sum += static_cast<unsigned char>(member[i]);
  char checksum[8];
  std::snprintf(checksum, sizeof checksum, "%06o", sum);
  put(148, std::string(checksum, 7));
  CHECK_THAT(refusal(member + kTarEnd), Catch::Contains("[max-size]"));
}

TEST_CASE("archives that are cut off anywhere are refused, or hold less, and nothing worse") {
  for (const char* command :
       {"tar -cf $O --format=posix .", "find . | cpio -o --quiet -H newc >$O",
        "zip -qry $O.zip . && mv $O.zip $O", "tar -czf $O .",
        "7z a -bd $O.7z . >/dev/null && mv $O.7z $O", "bsdtar -cf $O --format=xar ."}) {
    INFO(command);
    const std::string whole = packed_by(command);
    REQUIRE(open(whole));
    const std::size_t step = 1 + whole.size() / 97;
    for (std::size_t size = 0; size < whole.size(); size += step) {
      INFO(size);
      const Result<Layer> opened = open(whole.substr(0, size));
      if (!opened) CHECK(opened.error().what.find('\n') == std::string::npos);
    }
  }
}

TEST_CASE("archives with any byte changed are refused, or something else, and nothing worse") {
  for (const char* command :
       {"tar -cf $O --format=posix --sparse .", "find . | cpio -o --quiet -H odc >$O",
        "zip -qry $O.zip . && mv $O.zip $O", "tar -czf $O .",
        "7z a -bd $O.7z . >/dev/null && mv $O.7z $O", "bsdtar -cf $O --format=ar first second"}) {
    INFO(command);
    const std::string whole = packed_by(command);
    const std::size_t step = 1 + whole.size() / 211;
    for (std::size_t at = 0; at < whole.size(); at += step) {
      INFO(at);
      std::string changed = whole;
      changed[at] = static_cast<char>(changed[at] ^ (at % 3 == 0 ? 0xff : 0x04));
      const Result<Layer> opened = open(changed);
      if (!opened) continue;
      std::vector<std::byte> buffer(1 << 16);
      for (NodeNo no; no < opened->tree->node_count(); ++no) {
        const Node& node = opened->tree->node(no);
        if (!node.is_regular()) continue;
        const auto size = std::min<std::uint64_t>(node.size_bytes, buffer.size());
        const Result<void> read =
            opened->contents->read(content_no(no), 0, std::span(buffer).first(size));
        if (!read) CHECK_FALSE(read.error().what.empty());
      }
    }
  }
}

TEST_CASE("zip archives that contradict themselves are refused") {
  const std::string whole = packed_by("zip -qX0 $O.zip first second && mv $O.zip $O");
  REQUIRE(open(whole));
  const std::size_t directory = whole.find("PK\1\2");
  const std::size_t second_entry = whole.find("PK\1\2", directory + 1);
  const std::size_t second_header = whole.find("PK\3\4", 1);
  const auto changed = [&](std::size_t at, const std::string& text) {
    std::string bytes = whole;
    return bytes.replace(at, text.size(), text);
  };
  CHECK(refusal(changed(second_header + 30, "SECOND")) ==
        "bad: member second, byte 6035: the names in its header and in the archive's directory "
        "differ");
  CHECK_THAT(refusal(changed(second_header + 8, "\x08")), Catch::Contains("the methods in"));
  CHECK_THAT(refusal(changed(second_header + 18, "\x06")), Catch::Contains("the sizes in"));
  CHECK_THAT(refusal(changed(second_header + 14, "\x06")), Catch::Contains("the checksums in"));
  // Both entries name the first member.
  std::string twice = changed(second_entry + 42, std::string(4, '\0'));
  CHECK_FALSE(open(twice));
  CHECK_FALSE(open(changed(second_entry + 42, "\xff\xff\xff\x7f")));

  const auto overlap = [&] {
    // Two members of one name and size, the second over the first.
    const std::string pair =
        packed_by("printf 12345 >aa; printf 12345 >ab; zip -qX0 $O.zip aa ab && mv $O.zip $O");
    std::string bytes = pair;
    const std::size_t entry = bytes.find("PK\1\2", bytes.find("PK\1\2") + 1);
    bytes.replace(entry + 42, 4, std::string(4, '\0'));
    bytes.replace(entry + 46, 2, "aa");
    return bytes;
  };
  MemorySource source(overlap(), "bad");
  const auto directory_read = ZipDirectory::read(source, 100);
  REQUIRE_FALSE(directory_read);
  CHECK(directory_read.error().what == "bad: byte 0: two members overlap");
}

TEST_CASE("a stored zip member stands where the directory finds it") {
  const std::string whole = packed_by("zip -qX0 $O.zip second && mv $O.zip $O");
  MemorySource source("garbage in front " + whole, "zip");
  const auto directory = ZipDirectory::read(source, 100);
  REQUIRE(directory);
  const ZipDirectory::Item* item = (*directory)->find(17 + 30 + 6);
  REQUIRE(item != nullptr);
  CHECK(item->size_bytes == 5);
  CHECK(item->method == ZipDirectory::kStored);
  CHECK((*directory)->find(0) == nullptr);
}

TEST_CASE("a name of gigabytes is not gathered in memory") {
  // newc: a name of 1.5 GiB in an archive that seems to have as much.
  class Endless final : public ByteSource {
   public:
    std::uint64_t size_bytes() const noexcept override { return std::uint64_t{2} << 30; }
    Result<void> read(std::uint64_t offset, std::span<std::byte> out) override {
      most_read = std::max(most_read, offset + out.size());
      const std::string header = "070701" + std::string(8, '0') + "000081A4" +
                                 std::string(72, '0') + "60000000" + std::string(8, '0');
      for (std::size_t i = 0; i < out.size(); ++i) {
        const std::uint64_t at = offset + i;
        out[i] = at < header.size() ? static_cast<std::byte>(header[at]) : std::byte{'a'};
      }
      return {};
    }
    std::string name() const override { return "endless"; }
    std::uint64_t most_read = 0;
  };
  const auto source = std::make_shared<Endless>();
  const Result<Archive> archive =
      read_archive(source, {}, testing::with_spool(), nullptr, null_log());
  REQUIRE_FALSE(archive);
  CHECK_THAT(archive.error().what, Catch::StartsWith("endless: "));
  CHECK(source->most_read < (std::uint64_t{66} << 20));
}

}  // namespace mkvirtfs::archive
