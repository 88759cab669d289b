// SPDX-License-Identifier: BSD-3-Clause
// ISO 9660 images as archives: which files may be read where they lie, and which must not.
#include <sys/stat.h>

#include <array>
#include <catch2/catch.hpp>
#include <cstring>
#include <filesystem>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <utility>

#include "fsgen/archive/archive.h"
#include "fsgen/archive/iso_directory.h"
#include "fsgen/archive/testing/opened.h"
#include "fsgen/stream/testing/stream_data.h"
#include "fsgen/tree/testing/layer_bytes.h"
#include "support/byte_order.h"
#include "tests/support/foreign_tools.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs::archive {
namespace {

using testing::bytes_at;
using testing::MemorySource;

constexpr std::size_t kBlockBytes = 2048;

using testing::Opened;

void run(const std::string& command) { testing::run_shell(command); }

Opened open_whole(const std::string& bytes) {
  return testing::whole(testing::open(bytes, "image"));
}

MemberPlace place_of(const Archive& archive, std::string_view path) {
  Member member;
  for (MemberLog::Position at = 0; at < archive.members.end();) {
    at = archive.members.read(at, member);
    if (member.path == path) return member.place;
  }
  FAIL(path << " is no member");
  return MemberPlace::nowhere;
}

std::string error_of(const std::string& bytes) {
  return testing::refusal(testing::open(bytes, "image"));
}

/// Where the record of the file called `name` (without Rock Ridge) begins in the image.
std::size_t record_of(const std::string& image, std::string_view name) {
  const std::size_t at = image.find(name, 17 * kBlockBytes);
  REQUIRE(at != std::string::npos);
  REQUIRE(static_cast<unsigned char>(image[at - 1]) == name.size());
  return at - 33;
}

std::uint32_t number_at(const std::string& image, std::size_t at) {
  return load_le<std::uint32_t>(std::as_bytes(std::span(image)), at);
}

void set_both_ends(std::string& image, std::size_t at, std::uint32_t value) {
  for (unsigned i = 0; i < 4; ++i) {
    image[at + i] = static_cast<char>(value >> (8 * i));
    image[at + 7 - i] = static_cast<char>(value >> (8 * i));
  }
}

}  // namespace

TEST_CASE("a zisofs file of an ISO source is unpacked or refused") {
  const TempDir dir("/var/tmp");
  std::filesystem::create_directories(dir / "tree/sub");
  const std::string text = testing::some_bytes(1'000'001, 1);
  const std::string zeroes = std::string(300'000, '\0') + "end";
  std::string noise(100'000, '\0');
  std::mt19937 random(2);
  for (char& c : noise) c = static_cast<char>(random());
  write_file(dir / "tree/text", text);
  write_file(dir / "tree/sub/zeroes", zeroes);
  write_file(dir / "tree/noise", noise);
  write_file(dir / "tree/empty", "");
  std::filesystem::create_hard_link(dir / "tree/text", dir / "tree/twin");
  const auto pack = [&](const std::string& how, const std::string& more) {
    run("cd " + dir.path().string() + "; rm -f z.iso; xorriso -outdev z.iso " + more +
        " -zisofs level=6:" + how + " -map tree / -set_filter_r --zisofs / -- -commit");
    return read_file(dir / "z.iso");
  };
  for (const auto& [how, more] : {std::pair("block_size=32k", ""), std::pair("block_size=64k", ""),
                                  std::pair("block_size=128k", "-joliet on")}) {
    INFO(how << " " << more);
    const Opened opened = open_whole(pack(how, more));
    CHECK(bytes_at(opened.layer, "text") == text);
    CHECK(bytes_at(opened.layer, "twin") == text);
    CHECK(bytes_at(opened.layer, "sub/zeroes") == zeroes);
    CHECK(bytes_at(opened.layer, "noise") == noise);
    CHECK(bytes_at(opened.layer, "empty").empty());
    CHECK(opened.layer.tree->find_path("twin") == opened.layer.tree->find_path("text"));
    CHECK(place_of(opened.archive, "sub/zeroes") == MemberPlace::spooled);
    CHECK(place_of(opened.archive, "noise") == MemberPlace::stored);
    // The foreign reader finds the same.
    const Ran ran = run_tool({"bsdtar", "-xOf", (dir / "z.iso").string(), "sub/zeroes"});
    CHECK(ran.output == zeroes);
  }
  // What libarchive cannot unpack.
  CHECK_THAT(error_of(pack("version_2=on", "")),
             Catch::Contains("member ") && Catch::Contains("zisofs 2"));
  // Damage is no shorter file.
  std::string damaged = pack("block_size=32k", "");
  const std::size_t magic = damaged.find("\x37\xe4\x53\x96\xc9\xdb\xd6\x07");
  REQUIRE(magic != std::string::npos);
  damaged[magic + 12] = 5;
  CHECK_THAT(error_of(damaged), Catch::Contains("zisofs"));
}

TEST_CASE("a file of an ISO source is direct only where one record has all of it") {
  const TempDir dir("/var/tmp");
  std::filesystem::create_directory(dir / "tree");
  const std::string a(2 * kBlockBytes, 'a');
  const std::string b(kBlockBytes, 'b');
  const std::string c(5000, 'c');
  write_file(dir / "tree/A", a);
  write_file(dir / "tree/B", b);
  write_file(dir / "tree/C", c);
  run("cd " + dir.path().string() + "; genisoimage -quiet -iso-level 3 -o plain.iso tree");
  const std::string image = read_file(dir / "plain.iso");
  {
    const Opened opened = open_whole(image);
    for (const char* name : {"A", "B", "C"}) {
      CHECK(place_of(opened.archive, name) == MemberPlace::stored);
    }
    CHECK(bytes_at(opened.layer, "C") == c);
  }
  SECTION("two sections with another file between them") {
    std::string patched = image;
    const std::size_t first = record_of(patched, "A.;1");
    const std::size_t second = record_of(patched, "B.;1");
    const std::size_t third = record_of(patched, "C.;1");
    patched[first + 25] = static_cast<char>(0x80);  // A goes on in the next record
    patched[second + 33] = 'A';
    patched[third + 33] = 'B';
    for (const std::size_t field : {std::size_t{2}, std::size_t{10}}) {
      const std::uint32_t of_b = number_at(image, second + field);
      set_both_ends(patched, second + field, number_at(image, third + field));
      set_both_ends(patched, third + field, of_b);
    }
    const Opened opened = open_whole(patched);
    CHECK(bytes_at(opened.layer, "A") == a + c);
    CHECK(bytes_at(opened.layer, "B") == b);
    CHECK(place_of(opened.archive, "A") == MemberPlace::spooled);
    CHECK(place_of(opened.archive, "B") == MemberPlace::stored);
  }
  SECTION("an extended attribute record, units and gaps are refused by name") {
    for (const std::size_t field : {std::size_t{1}, std::size_t{26}, std::size_t{27}}) {
      std::string patched = image;
      patched[record_of(patched, "B.;1") + field] = 1;
      CHECK_THAT(error_of(patched),
                 Catch::Contains("member B") && Catch::Contains("cannot be read"));
    }
  }
  SECTION("a directory that leads out of the image") {
    std::string patched = image;
    set_both_ends(patched, 16 * kBlockBytes + 156 + 10, 0x7ffff800);
    CHECK_THAT(error_of(patched), Catch::Contains("image") && Catch::Contains("leads out"));
  }
}

TEST_CASE("an ISO whose Rock Ridge continuations form a loop ends with one line") {
  const TempDir dir("/var/tmp");
  std::filesystem::create_directory(dir / "tree");
  const std::string name(250, 'n');
  write_file(dir / "tree" / name, "bytes");
  run("cd " + dir.path().string() + "; genisoimage -quiet -R -o rr.iso tree");
  const std::string image = read_file(dir / "rr.iso");
  CHECK(bytes_at(open_whole(image).layer, name) == "bytes");
  // The name goes on in a continuation area.
  std::optional<std::size_t> area;
  std::string field;
  for (std::size_t at = image.find(std::string("CE\x1c\1", 4)); at != std::string::npos;
       at = image.find(std::string("CE\x1c\1", 4), at + 1)) {
    const std::size_t where = number_at(image, at + 4) * kBlockBytes + number_at(image, at + 12);
    const std::size_t length = number_at(image, at + 20);
    if (image.substr(where, length).find("nnnn") == std::string::npos) continue;
    area = where;
    field = image.substr(at, 28);
    REQUIRE(length >= 28);
  }
  REQUIRE(area);
  SECTION("into itself") {
    std::string patched = image;
    patched.replace(*area, field.size(), field);
    CHECK_THAT(error_of(patched),
               Catch::StartsWith("image: byte ") && Catch::Contains("form a loop"));
  }
  SECTION("in two places at once") {
    REQUIRE(number_at(field, 20) >= 56);
    std::string patched = image;
    patched.replace(*area, 2 * field.size(), field + field);
    CHECK_THAT(error_of(patched), Catch::Contains("in two places"));
  }
  SECTION("out of the image") {
    std::string patched = image;
    set_both_ends(field, 4, 0x00ffffff);
    patched.replace(*area, field.size(), field);
    CHECK_THAT(error_of(patched), Catch::Contains("leads out of the image"));
  }
}

TEST_CASE("direct access is right for every format that has it") {
  const TempDir dir("/var/tmp");
  std::filesystem::create_directory(dir / "tree");
  const std::string text = testing::some_bytes(70'001, 3);
  write_file(dir / "tree/text", text);
  struct Row {
    const char* command;
    MemberPlace place;
  };
  // Every format of libarchive that is read here: stored where it is proved that the archive holds
  // the member's bytes as they are, and unpacked by libarchive otherwise. rar and lha: see
  // rare_formats_test.cpp.
  constexpr std::array<Row, 21> kFormats = {{
      {"bsdtar -cf $O --format=v7tar text", MemberPlace::stored},
      {"bsdtar -cf $O --format=ustar text", MemberPlace::stored},
      {"bsdtar -cf $O --format=pax text", MemberPlace::stored},
      {"bsdtar -cf $O --format=gnutar text", MemberPlace::stored},
      {"tar -cf $O --format=oldgnu text", MemberPlace::stored},
      {"tar -cf $O --format=posix text", MemberPlace::stored},
      {"bsdtar -cf $O --format=newc text", MemberPlace::stored},
      {"bsdtar -cf $O --format=odc text", MemberPlace::stored},
      {"bsdtar -cf $O --format=bin text", MemberPlace::stored},
      {"bsdtar -cf $O --format=pwb text", MemberPlace::stored},
      {"echo text | cpio -o --quiet -H crc >$O", MemberPlace::stored},
      {"ar rcD $O text", MemberPlace::stored},
      {"bsdtar -cf $O --format=arbsd text", MemberPlace::stored},
      {"bsdtar -cf $O --format=iso9660 --options='!zisofs' text", MemberPlace::stored},
      {"xorriso -outdev $O -zisofs level=6 -map text /text -set_filter_r --zisofs / -- -commit",
       MemberPlace::spooled},
      {"bsdtar -cf $O --format=zip --options=zip:compression=store text", MemberPlace::stored},
      {"bsdtar -cf $O --format=zip --options=zip:compression=deflate text", MemberPlace::deflated},
      {"7z a -tzip -mm=BZip2 -bd $O.zip text; mv $O.zip $O", MemberPlace::spooled},
      {"bsdtar -cf $O --format=7zip text", MemberPlace::spooled},
      {"bsdtar -cf $O --format=xar text", MemberPlace::spooled},
      {"gcab -c $O text", MemberPlace::spooled},
  }};
  for (const Row& row : kFormats) {
    INFO(row.command);
    const std::string out = (dir / "packed").string();
    run("O=" + out + "; cd " + (dir / "tree").string() + "; rm -f $O; " + row.command);
    const Opened opened = open_whole(read_file(out));
    CHECK(place_of(opened.archive, "text") == row.place);
    CHECK(bytes_at(opened.layer, "text") == text);
  }
}

}  // namespace mkvirtfs::archive
