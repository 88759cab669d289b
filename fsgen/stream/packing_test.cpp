// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/stream/packing.h"

#include <catch2/catch.hpp>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

using namespace mkvirtfs;

namespace {

/// One number, with that many other bytes behind it.
std::vector<std::byte> packed(std::uint64_t number, std::size_t bytes_behind) {
  std::vector<std::byte> bytes;
  Packer(bytes).number(number);
  bytes.insert(bytes.end(), bytes_behind, std::byte{0xff});
  return bytes;
}

}  // namespace

TEST_CASE("numbers of every length come back, wherever they stand", "[packing]") {
  for (unsigned bits = 0; bits <= 64; ++bits) {
    const std::uint64_t power = bits == 64 ? 0 : std::uint64_t{1} << bits;
    for (const std::uint64_t number : {power - 1, power, power + 1, power ^ 0x5555555555555555}) {
      for (std::size_t bytes_behind = 0; bytes_behind <= 9; ++bytes_behind) {
        CAPTURE(number, bytes_behind);
        const std::vector<std::byte> bytes = packed(number, bytes_behind);
        Unpacker in(bytes);
        REQUIRE(in.number() == number);
        REQUIRE(in.good());
        REQUIRE(in.position() == bytes.size() - bytes_behind);
      }
    }
  }
}

TEST_CASE("signed numbers and texts come back", "[packing]") {
  constexpr auto kLeast = std::numeric_limits<std::int64_t>::min();
  constexpr auto kMost = std::numeric_limits<std::int64_t>::max();
  std::vector<std::byte> bytes;
  Packer out(bytes);
  for (const std::int64_t number : {kLeast, kLeast + 1, std::int64_t{-1}, std::int64_t{0}, kMost}) {
    out.signed_number(number);
  }
  out.text("");
  out.text(std::string(300, 'x'));
  Unpacker in(bytes);
  for (const std::int64_t number : {kLeast, kLeast + 1, std::int64_t{-1}, std::int64_t{0}, kMost}) {
    CHECK(in.signed_number() == number);
  }
  CHECK(in.text().empty());
  CHECK(in.text() == std::string(300, 'x'));
  CHECK(in.good());
  CHECK(in.at_end());
}

TEST_CASE("a number that is cut off or too large is an error, and all behind it is 0",
          "[packing]") {
  for (const std::uint64_t number :
       {std::uint64_t{128}, std::uint64_t{1} << 50, ~std::uint64_t{0}}) {
    const std::vector<std::byte> whole = packed(number, 0);
    for (std::size_t kept = 0; kept < whole.size(); ++kept) {
      CAPTURE(number, kept);
      Unpacker in(std::span<const std::byte>(whole).first(kept));
      CHECK(in.number() == 0);
      CHECK_FALSE(in.good());
      CHECK(in.number() == 0);
      CHECK(in.text().empty());
    }
  }
  // The tenth byte has one bit left.
  for (const int tenth : {0x02, 0x7f, 0x81}) {
    std::vector<std::byte> bytes(9, std::byte{0x80});
    bytes.insert(bytes.end(), {std::byte(tenth), std::byte{0}, std::byte{0}});
    Unpacker in(bytes);
    CHECK(in.number() == 0);
    CHECK_FALSE(in.good());
  }
}
