// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/image/size_search.h"

#include <catch2/catch.hpp>

#include <cstdint>

#include "fsgen/image/start_table.h"

using namespace mkvirtfs;

TEST_CASE("free space is a number of bytes, a percentage, or the larger of 10 % and 64 MiB") {
  CHECK(free_units(FreeBytes{4097}, 1000, 4096) == 2);
  CHECK(free_units(FreeBytes{0}, 1000, 4096) == 0);
  CHECK(free_units(FreePercent{25}, 1003, 4096) == 250);
  CHECK(free_units(FreePercent{300}, ~std::uint64_t{0} / 4, 4096) == ~std::uint64_t{0} / 4 * 3);
  CHECK(free_units(std::nullopt, 1000, 4096) == (64u << 20) / 4096);
  CHECK(free_units(std::nullopt, 1'000'000, 4096) == 100'000);
  CHECK(free_units(std::nullopt, 1000, 512, 0) == 100);
}

TEST_CASE("the smallest number that holds is found") {
  for (std::uint32_t first = 1; first <= 40; ++first) {
    std::uint32_t calls = 0;
    CHECK(smallest_that_holds(0u, 40u, [&](std::uint32_t number) {
            ++calls;
            return number >= first;
          }) == first);
    CHECK(calls <= 6);
  }
}

TEST_CASE("which of things that stand one behind the other has a place") {
  StartTable<std::uint32_t> table;
  table.reserve(5);
  for (const std::uint32_t start : {10u, 10u, 13u, 13u, 20u}) table.add(start);
  table.finish(20);
  CHECK(table.begin() == 10);
  CHECK(table.end() == 20);
  CHECK(table.is_empty(0));
  CHECK(table.end_of(1) == 13);
  for (std::uint32_t place = 10; place < 20; ++place) {
    CHECK(table.thing_at(place) == (place < 13 ? 1u : 3u));
  }
}
