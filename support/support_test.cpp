// SPDX-License-Identifier: BSD-3-Clause
#include <catch2/catch.hpp>

#include <array>
#include <concepts>
#include <type_traits>
#include <unordered_set>

#include "support/arithmetic.h"
#include "support/byte_order.h"
#include "support/error.h"
#include "support/path.h"
#include "support/sha256.h"
#include "support/strong_integer.h"
#include "support/text.h"
#include "support/uuid.h"

using namespace mkvirtfs;

TEST_CASE("sizes are parsed as people write them") {
  CHECK(parse_size("1536") == 1536);
  CHECK(parse_size("64M") == 64u << 20);
  CHECK(parse_size("64MiB") == 64u << 20);
  CHECK(parse_size("4k") == 4096);
  CHECK(parse_size("15E") == std::uint64_t{15} << 60);
  for (const char* bad :
       {"", "M", "-1", "1.5G", "16E", "18446744073709551616", "1Q", "1MM", " 1"}) {
    CAPTURE(bad);
    CHECK_FALSE(parse_size(bad).has_value());
  }
  CHECK(human_size(1536u << 20) == "1.5 GiB");
  CHECK(human_size(17) == "17 bytes");
}

TEST_CASE("the directory of a path") {
  CHECK(directory_of("a/b") == "a");
  CHECK(directory_of("a/b/") == "a/b");
  CHECK(directory_of("b") == ".");
  CHECK(directory_of("/b") == "/");
  CHECK(directory_of("/a/b") == "/a");
}

TEST_CASE("hostile names become one harmless line") {
  CHECK(printable("plain/name") == "plain/name");
  CHECK(printable("caf\xc3\xa9") == "caf\xc3\xa9");
  CHECK(printable("a\nb\x1b[31m") == "a\\x0ab\\x1b[31m");
  CHECK(printable("\xff\xfe") == "\\xff\\xfe");
  CHECK(printable("\xc2\x9b") == "\\xc2\\x9b");
}

TEST_CASE("UTF-8 is checked strictly") {
  CHECK(is_valid_utf8("\xf0\x9f\x98\x80"));
  for (const char* bad : {"\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82", "\x80"}) {
    CHECK_FALSE(is_valid_utf8(bad));
  }
}

TEST_CASE("a sequence of UTF-8 has one code point") {
  CHECK(code_point("a") == U'a');
  CHECK(code_point("\xc3\xa9") == U'\u00e9');
  CHECK(code_point("\xe2\x82\xac") == U'\u20ac');
  CHECK(code_point("\xf4\x8f\xbf\xbf") == U'\U0010ffff');
}

TEST_CASE("arithmetic says when it would wrap") {
  CHECK(ceil_div(5u, 2u) == 3);
  CHECK(ceil_div(~0u, 2u) == 0x80000000u);
  CHECK(round_up(4097u, 4096u) == 8192);
  CHECK_FALSE(checked_add(~0ull, 1ull).has_value());
  CHECK_FALSE(checked_mul(1ull << 63, 2ull).has_value());
}

TEST_CASE("byte order is explicit") {
  std::array<std::byte, 8> bytes{};
  store_be<std::uint32_t>(bytes, 1, 0x01020304);
  CHECK(bytes[1] == std::byte{1});
  CHECK(load_be<std::uint32_t>(bytes, 1) == 0x01020304);
  CHECK(load_le<std::uint32_t>(bytes, 1) == 0x04030201);
}

TEST_CASE("errors carry the kernel's reason") {
  const std::unexpected<Error> full = fail_errno(28, "write out.img");
  CHECK(full.error().code == Errc::no_space);
  CHECK(full.error().what == "write out.img: No space left on device");
}

TEST_CASE("SHA-256 and SHA-512 of abc are FIPS 180-4's examples") {
  Sha256 digest;
  digest.update(std::as_bytes(std::span("abc", 3)));
  const auto bytes = digest.finish();
  CHECK(hex({reinterpret_cast<const char*>(bytes.data()), 32}) ==
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  Sha512 longer;
  longer.update(std::as_bytes(std::span("abc", 3)));
  const auto long_bytes = longer.finish();
  CHECK(hex({reinterpret_cast<const char*>(long_bytes.data()), 64}) ==
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
        "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f");
}

namespace {

using AppleNo = StrongInteger<struct AppleTag>;
using PearNo = StrongInteger<struct PearTag>;
using LongNo = StrongInteger<struct LongTag, std::uint64_t>;

template <class A, class B>
concept Adds = requires(A a, B b) { a + b; };
template <class A, class B>
concept Subtracts = requires(A a, B b) { a - b; };
template <class A, class B>
concept AddsTo = requires(A a, B b) { a += b; };
template <class A, class B>
concept Compares = requires(A a, B b) { a < b; };

}  // namespace

TEST_CASE("a number and a count make a number, two numbers make a count") {
  LongNo block{7};
  static_assert(std::same_as<decltype(block + 3), LongNo>);
  static_assert(std::same_as<decltype(block + 3u), LongNo>);
  static_assert(std::same_as<decltype(block - std::uint64_t{3}), LongNo>);
  static_assert(std::same_as<decltype(block - block), std::uint64_t>);
  CHECK((block + 3).value() == 10);
  CHECK((block - 7).value() == 0);
  CHECK(LongNo{10} - block == 3);
  ++block;
  block += 2;
  block -= 1;
  CHECK(block == LongNo{9});
  CHECK(block > LongNo{8});
  CHECK(LongNo{}.value() == 0);
}

TEST_CASE("a number does not come of a count that it may cut, nor of two numbers") {
  static_assert(!AddsTo<AppleNo&, std::uint64_t>);
  static_assert(!std::same_as<decltype(AppleNo{} + std::uint64_t{1}), AppleNo>);
  static_assert(!Adds<AppleNo, AppleNo>);
  static_assert(!Adds<AppleNo, PearNo>);
  static_assert(!Adds<AppleNo, LongNo>);
  static_assert(!Subtracts<AppleNo, PearNo>);
  static_assert(!Subtracts<LongNo, PearNo>);
  static_assert(!Compares<AppleNo, PearNo>);
  static_assert(!Compares<AppleNo, LongNo>);
  CHECK(true);
}

TEST_CASE("numbers of two kinds do not mix") {
  static_assert(!std::is_convertible_v<std::uint32_t, AppleNo>);
  static_assert(!std::is_constructible_v<AppleNo, PearNo>);
  static_assert(!std::is_assignable_v<AppleNo&, PearNo>);
  static_assert(std::equality_comparable<AppleNo> && std::totally_ordered<AppleNo>);
  static_assert(!std::equality_comparable_with<AppleNo, PearNo>);
  static_assert(sizeof(AppleNo) == sizeof(std::uint32_t));
  const std::array<int, 3> weights = {10, 20, 30};
  int sum = 0;
  for (AppleNo no; no < weights.size(); ++no) sum += weights[no];
  CHECK(sum == 60);
  CHECK(std::unordered_set<AppleNo>{AppleNo{1}, AppleNo{2}, AppleNo{1}}.size() == 2);
}

TEST_CASE("UUIDs are read and written, and derived ones have version 8") {
  const std::string text = "d3b07384-d9a0-4c9b-8f6e-1a2b3c4d5e6f";
  const auto uuid = parse_uuid(text);
  REQUIRE(uuid);
  CHECK(uuid->front() == std::byte{0xD3});
  CHECK(to_string(*uuid) == text);
  CHECK(parse_uuid("D3B07384-D9A0-4C9B-8F6E-1A2B3C4D5E6F") == uuid);
  CHECK(!parse_uuid("d3b07384d9a0-4c9b-8f6e-1a2b3c4d5e6f0"));
  CHECK(!parse_uuid("d3b07384-d9a0-4c9b-8f6e-1a2b3c4d5e6"));
  CHECK(!parse_uuid("g3b07384-d9a0-4c9b-8f6e-1a2b3c4d5e6f"));

  std::array<std::byte, 16> digest;
  digest.fill(std::byte{0xFF});
  CHECK(to_string(derived_uuid(digest)) == "ffffffff-ffff-8fff-bfff-ffffffffffff");
}
