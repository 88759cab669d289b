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
#include "fsgen/stream/testing/stream_data.h"
#include "support/byte_order.h"
#include "tests/support/foreign_tools.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs::archive {
namespace {

using testing::MemorySource;

constexpr std::size_t kBlockBytes = 2048;

void run(const std::string& command) {
  const Ran ran = run_tool({"bash", "-c", "set -euo pipefail; " + command});
  INFO(command << "\n" << ran.output);
  REQUIRE(ran.status == 0);
}

struct Opened {
  Archive archive;
  Layer layer;
};

Result<Opened> open(const std::string& bytes) {
  StreamOptions options;
  options.spool = std::make_shared<SpoolSpace>("/var/tmp", std::uint64_t{1} << 30);
  ReadOptions read_options;
  read_options.helper.path = MKVIRTFS_READER;
  Result<Archive> archive = read_archive(std::make_shared<MemorySource>(bytes, "image"),
                                         read_options, options, nullptr, null_log());
  if (!archive) return propagate(archive);
  Result<ArchiveLayer> layer = make_layer(*archive, {}, options, null_log());
  if (!layer) return propagate(layer);
  return Opened{std::move(*archive), std::move(layer->layer)};
}

Opened open_whole(const std::string& bytes) {
  Result<Opened> opened = open(bytes);
  INFO((opened ? "" : opened.error().what));
  REQUIRE(opened);
  return std::move(*opened);
}

std::string content(const Layer& layer, std::string_view path) {
  INFO(path);
  const Node* const node = layer.tree->find_path(path);
  REQUIRE(node != nullptr);
  std::string bytes(node->size_bytes, '?');
  const auto no = static_cast<ContentNo>(node - layer.tree->nodes().data());
  const Result<void> read = layer.contents->read(no, 0, std::as_writable_bytes(std::span(bytes)));
  INFO((read ? "" : read.error().what));
  REQUIRE(read);
  return bytes;
}

Place place_of(const Archive& archive, std::string_view path) {
  Member member;
  for (MemberLog::Position at = 0; at < archive.members.end();) {
    at = archive.members.read(at, member);
    if (member.path == path) return member.place;
  }
  FAIL(path << " is no member");
  return Place::nowhere;
}

std::string error_of(const std::string& bytes) {
  const Result<Opened> opened = open(bytes);
  REQUIRE_FALSE(opened);
  CHECK(opened.error().what.find('\n') == std::string::npos);
  return opened.error().what;
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
    CHECK(content(opened.layer, "text") == text);
    CHECK(content(opened.layer, "twin") == text);
    CHECK(content(opened.layer, "sub/zeroes") == zeroes);
    CHECK(content(opened.layer, "noise") == noise);
    CHECK(content(opened.layer, "empty").empty());
    CHECK(opened.layer.tree->find_path("twin") == opened.layer.tree->find_path("text"));
    CHECK(place_of(opened.archive, "sub/zeroes") == Place::spooled);
    CHECK(place_of(opened.archive, "noise") == Place::stored);
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
      CHECK(place_of(opened.archive, name) == Place::stored);
    }
    CHECK(content(opened.layer, "C") == c);
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
    CHECK(content(opened.layer, "A") == a + c);
    CHECK(content(opened.layer, "B") == b);
    CHECK(place_of(opened.archive, "A") == Place::spooled);
    CHECK(place_of(opened.archive, "B") == Place::stored);
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
  CHECK(content(open_whole(image).layer, name) == "bytes");
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
    Place place;
  };
  // Every format of libarchive that is read here: stored where it is proved that the archive holds
  // the member's bytes as they are, and unpacked by libarchive otherwise. rar and lha: see
  // rare_formats_test.cpp.
  constexpr std::array<Row, 21> kFormats = {{
      {"bsdtar -cf $O --format=v7tar text", Place::stored},
      {"bsdtar -cf $O --format=ustar text", Place::stored},
      {"bsdtar -cf $O --format=pax text", Place::stored},
      {"bsdtar -cf $O --format=gnutar text", Place::stored},
      {"tar -cf $O --format=oldgnu text", Place::stored},
      {"tar -cf $O --format=posix text", Place::stored},
      {"bsdtar -cf $O --format=newc text", Place::stored},
      {"bsdtar -cf $O --format=odc text", Place::stored},
      {"bsdtar -cf $O --format=bin text", Place::stored},
      {"bsdtar -cf $O --format=pwb text", Place::stored},
      {"echo text | cpio -o --quiet -H crc >$O", Place::stored},
      {"ar rcD $O text", Place::stored},
      {"bsdtar -cf $O --format=arbsd text", Place::stored},
      {"bsdtar -cf $O --format=iso9660 --options='!zisofs' text", Place::stored},
      {"xorriso -outdev $O -zisofs level=6 -map text /text -set_filter_r --zisofs / -- -commit",
       Place::spooled},
      {"bsdtar -cf $O --format=zip --options=zip:compression=store text", Place::stored},
      {"bsdtar -cf $O --format=zip --options=zip:compression=deflate text", Place::deflated},
      {"7z a -tzip -mm=BZip2 -bd $O.zip text; mv $O.zip $O", Place::spooled},
      {"bsdtar -cf $O --format=7zip text", Place::spooled},
      {"bsdtar -cf $O --format=xar text", Place::spooled},
      {"gcab -c $O text", Place::spooled},
  }};
  for (const Row& row : kFormats) {
    INFO(row.command);
    const std::string out = (dir / "packed").string();
    run("O=" + out + "; cd " + (dir / "tree").string() + "; rm -f $O; " + row.command);
    const Opened opened = open_whole(read_file(out));
    CHECK(place_of(opened.archive, "text") == row.place);
    CHECK(content(opened.layer, "text") == text);
  }
}

}  // namespace mkvirtfs::archive
