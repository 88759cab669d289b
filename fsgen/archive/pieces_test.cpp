// SPDX-License-Identifier: BSD-3-Clause
// Members in several pieces of the stream, and members that nobody can read: what a reader of disk
// images gives.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fsgen/archive/archive.h"
#include "fsgen/stream/packing.h"
#include "fsgen/stream/testing/stream_data.h"
#include "tests/support/property.h"

namespace mkvirtfs::archive {
namespace {

using Bytes = std::vector<std::byte>;

Member file_in(std::vector<Range> pieces, std::uint64_t size_bytes) {
  Member member;
  member.path = "f";
  member.mode = S_IFREG | 0644;
  member.size_bytes = size_bytes;
  member.place = MemberPlace::in_pieces;
  member.pieces = std::move(pieces);
  return member;
}

Result<MemberLog> reopened(const Member& member) {
  MemberLog log;
  REQUIRE(log.append(member));
  return MemberLog::open({log.bytes().begin(), log.bytes().end()});
}

Archive archive_of(const Member& member, std::string stream) {
  Archive archive;
  archive.name = "test.img";
  REQUIRE(archive.members.append(member));
  archive.stream = std::make_shared<testing::MemorySource>(std::move(stream));
  return archive;
}

Layer layer_of(const Archive& archive) {
  REQUIRE(check_places(archive, {}));
  Result<ArchiveLayer> made = make_layer(archive, {}, {}, null_log());
  INFO((made ? "" : made.error().what));
  REQUIRE(made);
  return std::move(made->layer);
}

/// A file of random runs and pieces, and its bytes.
struct RandomFile {
  Member member;
  Bytes bytes;
};

RandomFile random_file(std::span<const std::byte> stream) {
  const auto number = [](std::uint64_t most) {
    return *rc::gen::inRange<std::uint64_t>(0, most + 1);
  };
  RandomFile file;
  Member& member = file.member;
  member = file_in({}, 1 + number(5000));
  member.is_sparse = number(1) == 1;
  member.stores_holes = member.is_sparse && number(3) == 0;
  for (std::uint64_t at = number(100); member.is_sparse && at < member.size_bytes;) {
    const std::uint64_t length = std::min(1 + number(900), member.size_bytes - at);
    member.stored_runs.push_back({at, length});
    at += length + 1 + number(900);
  }
  Bytes stored;
  while (stored.size() < member.stored_bytes()) {
    const std::uint64_t length = std::min(1 + number(700), member.stored_bytes() - stored.size());
    const std::uint64_t offset = number(stream.size() - length);
    member.pieces.push_back({offset, length});
    const auto piece = stream.subspan(offset, length);
    stored.insert(stored.end(), piece.begin(), piece.end());
  }
  if (!member.is_sparse) {
    file.bytes = std::move(stored);
    return file;
  }
  file.bytes.resize(member.size_bytes);
  std::uint64_t skipped = 0;
  for (const Range& run : member.stored_runs) {
    const auto from =
        stored.begin() + static_cast<std::ptrdiff_t>(member.stores_holes ? run.offset : skipped);
    std::copy_n(from, run.length, file.bytes.begin() + static_cast<std::ptrdiff_t>(run.offset));
    skipped += run.length;
  }
  return file;
}

}  // namespace

TEST_CASE("a file in pieces, with or without holes, has its bytes at any offset") {
  const std::string stream = testing::some_bytes(3000, 1);
  testing::check_property(300, [&] {
    const RandomFile file = random_file(std::as_bytes(std::span(stream)));
    if (file.member.pieces.empty()) return;  // nothing but a hole
    const Result<MemberLog> again = reopened(file.member);
    RC_ASSERT(again.has_value());
    Member read;
    again->read(0, read);
    RC_ASSERT((read.pieces == file.member.pieces));
    RC_ASSERT((read.stored_runs == file.member.stored_runs));

    const Layer layer = layer_of(archive_of(read, stream));
    const ContentNo content = content_no(NodeNo{1});
    for (int i = 0; i < 20; ++i) {
      const auto offset = *rc::gen::inRange<std::uint64_t>(0, file.bytes.size());
      const auto length = *rc::gen::inRange<std::uint64_t>(0, file.bytes.size() - offset + 1);
      const auto expected = std::span(file.bytes).subspan(offset, length);
      Bytes out(length, std::byte{0xaa});
      layer.contents->fetch(content, offset, length);
      RC_ASSERT(layer.contents->read(content, offset, out).has_value());
      RC_ASSERT(std::ranges::equal(out, expected));
      std::ranges::fill(out, std::byte{0xaa});
      const Result<bool> at_once = layer.contents->read_at_once(content, offset, out);
      RC_ASSERT(at_once.has_value());
      if (*at_once) RC_ASSERT(std::ranges::equal(out, expected));
    }
    const auto pin = layer.contents->pin(content);
    RC_ASSERT((pin.has_value() && !pin->file));
  });
}

TEST_CASE("an unreadable member says why, at every read and never at once") {
  Member member = file_in({}, 10);
  member.path = "d/f";
  member.place = MemberPlace::unreadable;
  member.contents = "its block 7 is beyond the end";
  const Result<MemberLog> again = reopened(member);
  REQUIRE(again);
  Member read;
  again->read(0, read);
  CHECK(read.contents == member.contents);

  const Layer layer = layer_of(archive_of(read, ""));
  const NodeNo no = layer.tree->number_of(*layer.tree->find_path("d/f"));
  Bytes out(10);
  const Result<void> refused = layer.contents->read(content_no(no), 0, out);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == Errc::unreadable);
  CHECK(refused.error().what == "d/f: its block 7 is beyond the end");
  CHECK_FALSE(layer.contents->read_at_once(content_no(no), 0, out));
  CHECK_FALSE(layer.contents->is_at_hand(content_no(no), 0, 10));
  CHECK(layer.contents->read(content_no(no), 0, {}));
}

TEST_CASE("pieces that are not what the size says do not open") {
  const std::uint64_t far = std::uint64_t{1} << 62;
  CHECK(reopened(file_in({{5, 4}, {0, 6}}, 10)));
  CHECK(reopened(file_in({{far, far}, {far, far - 1}}, 2 * far - 1)));
  CHECK_FALSE(reopened(file_in({}, 10)));
  CHECK_FALSE(reopened(file_in({}, 0)));
  CHECK_FALSE(reopened(file_in({{5, 4}}, 10)));
  CHECK_FALSE(reopened(file_in({{5, 11}}, 10)));
  CHECK_FALSE(reopened(file_in({{5, 4}, {9, 0}, {20, 6}}, 10)));
  CHECK_FALSE(reopened(file_in({{2 * far, 10}}, 10)));
  // Of a sparse file the data runs count.
  Member sparse = file_in({{5, 4}}, 10);
  sparse.is_sparse = true;
  sparse.stored_runs = {{0, 1}, {7, 3}};
  CHECK(reopened(sparse));
  sparse.stores_holes = true;
  CHECK_FALSE(reopened(sparse));
}

TEST_CASE("a count of pieces that nothing follows costs nothing") {
  Member member = file_in({{5, 10}}, 10);
  MemberLog log;
  REQUIRE(log.append(member));
  // The last three bytes are the count, the offset and the length.
  Bytes bytes(log.bytes().begin(), log.bytes().end() - 3);
  Packer out(bytes);
  out.number(std::uint64_t{1} << 60);
  CHECK_FALSE(MemberLog::open(bytes));
}

TEST_CASE("pieces beyond the end of the stream are refused by name") {
  const Result<void> refused =
      check_places(archive_of(file_in({{0, 4}, {96, 5}}, 9), std::string(100, 'x')), {});
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == Errc::unreadable);
  CHECK(refused.error().what ==
        "test.img: member f: has 5 bytes at 96, but the archive ends at 100");
  CHECK(check_places(archive_of(file_in({{0, 4}, {95, 5}}, 9), std::string(100, 'x')), {}));
}

}  // namespace mkvirtfs::archive
