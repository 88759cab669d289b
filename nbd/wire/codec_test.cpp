// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/wire/codec.h"

#include <catch2/catch.hpp>
#include <cerrno>

#include "nbd/wire/testing/messages.h"
#include "support/text.h"

namespace mkvirtfs::nbd {
namespace {

using testing::Bytes;
using testing::info_data;
using testing::meta_data;

std::string hex_of(std::span<const std::byte> bytes) { return hex(testing::text_of(bytes)); }

}  // namespace

TEST_CASE("messages stand on the wire as the specification draws them", "[codec]") {
  CHECK(hex_of(encode_greeting(3)) ==
        "4e42444d41474943"
        "49484156454f5054"
        "0003");
  CHECK(hex_of(encode_option_header({Option::go, 6})) ==
        "49484156454f5054"
        "00000007"
        "00000006");
  CHECK(hex_of(encode_option_reply(Option::go, OptionReply::info, 12)) ==
        "0003e889045565a9"
        "00000007"
        "00000003"
        "0000000c");
  CHECK(hex_of(encode_option_reply(Option::list, OptionReply::err_unsup, 0)) ==
        "0003e889045565a9"
        "00000003"
        "80000001"
        "00000000");
  CHECK(hex_of(encode_request({kDf, Command::read, 0x1122334455667788, 0x1000, 512})) ==
        "25609513"
        "0004"
        "0000"
        "1122334455667788"
        "0000000000001000"
        "00000200");
  CHECK(hex_of(encode_simple_reply(WireError::inval, 7)) ==
        "67446698"
        "00000016"
        "0000000000000007");
  CHECK(hex_of(encode_chunk_header(kChunkDone, ChunkType::error_offset, 7, 14)) ==
        "668e33ef"
        "0001"
        "8002"
        "0000000000000007"
        "0000000e");
}

TEST_CASE("requests and option headers come back as they were sent", "[codec]") {
  const Request request{0xffff, Command{0xabcd}, ~std::uint64_t{0}, std::uint64_t{1} << 63,
                        0xfffffffe};
  CHECK(decode_request(encode_request(request)) == request);
  const OptionHeader header{Option{0x6d6b7601}, 0xffffffff};
  CHECK(decode_option_header(encode_option_header(header)) == header);

  auto broken_request = encode_request(request);
  auto broken_header = encode_option_header(header);
  for (std::size_t i = 0; i < 4; ++i) {
    broken_request[i] ^= std::byte{1};
    CHECK_FALSE(decode_request(broken_request));
    broken_request[i] ^= std::byte{1};
  }
  for (std::size_t i = 0; i < 8; ++i) {
    broken_header[i] ^= std::byte{1};
    CHECK_FALSE(decode_option_header(broken_header));
    broken_header[i] ^= std::byte{1};
  }
}

TEST_CASE("the data of INFO and GO must be exactly as long as it says", "[codec]") {
  const Bytes data = info_data("disk", {3, 1, 0xffff});
  const auto request = InfoRequest::decode(data);
  REQUIRE(request);
  CHECK(request->name() == "disk");
  CHECK(request->wants(Info::block_size));
  CHECK(request->wants(Info::name));
  CHECK_FALSE(request->wants(Info::description));
  CHECK(InfoRequest::decode(info_data("")));
  CHECK(InfoRequest::decode(info_data(std::string(4096, 'x'))));

  // Every shorter and every longer form is refused.
  const Bytes whole = info_data("disk", {3});
  for (std::size_t size = 0; size < whole.size(); ++size) {
    CAPTURE(size);
    CHECK_FALSE(InfoRequest::decode(std::span(whole).first(size)));
  }
  Bytes longer = whole;
  longer.push_back(std::byte{0});
  CHECK_FALSE(InfoRequest::decode(longer));

  CHECK_FALSE(InfoRequest::decode(info_data(std::string(4097, 'x'))));
  CHECK_FALSE(InfoRequest::decode(info_data(std::string("a\0b", 3))));
  CHECK_FALSE(InfoRequest::decode(info_data("\xff")));
}

TEST_CASE("name lengths that wrap or lie are refused", "[codec][A1]") {
  const auto length = GENERATE(std::uint32_t{0xffffffff}, std::uint32_t{0x80000000},
                               std::uint32_t{0xfffffffa}, std::uint32_t{5}, std::uint32_t{4097});
  CAPTURE(length);
  Bytes data = info_data("disk", {3});
  std::ranges::copy(pack(length), data.begin());
  CHECK_FALSE(InfoRequest::decode(data));
  Bytes meta = meta_data("disk", {"base:allocation"});
  std::ranges::copy(pack(length), meta.begin());
  CHECK_FALSE(MetaRequest::decode(meta));
}

TEST_CASE("the data of a meta context option must be exactly as long as it says", "[codec]") {
  const Bytes data = meta_data("disk", {"base:", "x-y:z", "base:"});
  const auto request = MetaRequest::decode(data);
  REQUIRE(request);
  CHECK(request->name() == "disk");
  CHECK(request->query_count() == 3);
  std::string queries;
  request->for_each_query([&](std::string_view query) {
    queries += query;
    queries += ' ';
    return query != "x-y:z" || queries.size() > 13;
  });
  CHECK(queries == "base: x-y:z ");
  CHECK(MetaRequest::decode(meta_data("", {})));

  const Bytes whole = meta_data("disk", {"base:", "x"});
  for (std::size_t size = 0; size < whole.size(); ++size) {
    CAPTURE(size);
    CHECK_FALSE(MetaRequest::decode(std::span(whole).first(size)));
  }
  Bytes longer = whole;
  longer.push_back(std::byte{0});
  CHECK_FALSE(MetaRequest::decode(longer));

  // A count that lies: more queries than there are, up to 2^32 - 1.
  for (const std::uint32_t count : {3U, 0xffffffffU}) {
    Bytes lying = whole;
    std::ranges::copy(pack(count), lying.begin() + 8);
    CHECK_FALSE(MetaRequest::decode(lying));
  }
  CHECK_FALSE(MetaRequest::decode(meta_data("disk", {std::string_view("a\0b", 3)})));
  CHECK_FALSE(MetaRequest::decode(meta_data("disk", {std::string(4097, 'x')})));
}

TEST_CASE("errors reach the wire through one table", "[codec]") {
  const auto [code, os_errno, expected] = GENERATE(table<Errc, int, WireError>({
      {Errc::usage, 0, WireError::inval},
      {Errc::unreadable, EACCES, WireError::io},
      {Errc::source_changed, 0, WireError::io},
      {Errc::does_not_fit, 0, WireError::inval},
      {Errc::unsupported, EOPNOTSUPP, WireError::inval},
      {Errc::bad_peer, 0, WireError::io},
      {Errc::no_space, 0, WireError::nospc},
      {Errc::io, 0, WireError::io},
      {Errc::io, EIO, WireError::io},
      {Errc::io, EROFS, WireError::perm},
      {Errc::io, EPERM, WireError::perm},
      {Errc::io, ENOSPC, WireError::nospc},
      {Errc::io, EDQUOT, WireError::nospc},
      {Errc::io, EFBIG, WireError::nospc},
      {Errc::io, ENOMEM, WireError::nomem},
      {Errc::io, ESTALE, WireError::io},
  }));
  CAPTURE(static_cast<int>(code), os_errno);
  CHECK(wire_error({code, os_errno, "a text"}) == expected);
}

TEST_CASE("texts for clients are printable and end at a character", "[codec]") {
  CHECK(wire_text("read a\x1b[31m\n%n") == "read a\\x1b[31m\\x0a%n");
  CHECK(wire_text(std::string(4096, 'x')).size() == 4096);
  CHECK(wire_text(std::string(5000, 'x')).size() <= 4096);
  CHECK(wire_text(std::string(5000, 'x') + ": why").ends_with("xxx: why"));
  CHECK(wire_text(std::string(4096, '\n')).size() <= 4096);
  std::string wide;
  for (int i = 0; i < 3000; ++i) wide += "\xE2\x82\xAC";
  const std::string shown = wire_text(wide);
  CHECK(shown.size() > 4000);
  CHECK(shown.size() <= 4096);
  CHECK(is_valid_utf8(shown));
}

}  // namespace mkvirtfs::nbd
