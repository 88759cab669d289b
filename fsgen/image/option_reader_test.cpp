// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/image/option_reader.h"
#include "tests/support/hinted_text.h"

#include <catch2/catch.hpp>

namespace mkvirtfs {
namespace {

enum class Colour { red, blue };

OptionValues values(std::string_view name, std::string text) {
  OptionValues values;
  values.add(name, std::move(text));
  return values;
}

std::string refusal(OptionReader& reader) {
  const Result<void> finished = reader.finish();
  REQUIRE_FALSE(finished);
  CHECK(finished.error().code == Errc::usage);
  return hinted_text(finished.error());
}

}  // namespace

TEST_CASE("an option that was not given leaves its place as it is") {
  const OptionValues none;
  OptionReader reader(none);
  std::optional<std::uint64_t> size;
  std::uint32_t number = 7;
  std::optional<FreeSpace> free;
  Colour colour = Colour::blue;
  std::string text = "before";
  reader.size("size", size);
  reader.number("number", {}, number);
  reader.free_space("free", free);
  reader.choice<Colour>("colour", {{"red", Colour::red}}, colour);
  reader.text("text", text);
  CHECK(reader.finish());
  CHECK_FALSE(size);
  CHECK(number == 7);
  CHECK_FALSE(free);
  CHECK(colour == Colour::blue);
  CHECK(text == "before");
  CHECK_FALSE(reader.flag("flag"));
}

TEST_CASE("an empty value is a value") {
  std::string text = "before";
  const OptionValues empty_text = values("label", "");
  OptionReader(empty_text).text("label", text);
  CHECK(text.empty());

  std::optional<std::uint64_t> size;
  const OptionValues empty_size = values("size", "");
  OptionReader reader(empty_size);
  reader.size("size", size);
  CHECK(refusal(reader) == "size: the value is empty, and not a size (1536, 64M, 4GiB)");
}

TEST_CASE("free space is a size or a percentage") {
  std::optional<FreeSpace> free;
  for (const auto& [text, bytes] : {std::pair{"0", 0u}, {"3M", 3u << 20}}) {
    const OptionValues given = values("free", text);
    OptionReader reader(given);
    reader.free_space("free", free);
    REQUIRE(reader.finish());
    CHECK(std::get<FreeBytes>(*free).bytes == bytes);
  }
  const OptionValues percent = values("free", "25%");
  OptionReader(percent).free_space("free", free);
  CHECK(std::get<FreePercent>(*free).percent == 25);
  for (const char* bad : {"%", "-3%", "100001%", "lots"}) {
    CAPTURE(bad);
    const OptionValues given = values("free", bad);
    OptionReader reader(given);
    reader.free_space("free", free);
    CHECK_THAT(refusal(reader), Catch::StartsWith("free") && Catch::Contains(bad) &&
                                    Catch::EndsWith(": neither a size (1536, 64M, 4GiB) nor N%"));
  }
}

TEST_CASE("numbers keep within their limits, and the first failure is the one reported") {
  OptionValues given = values("reserved", "51");
  given.add("inodes", "x");
  OptionReader reader(given);
  std::uint32_t reserved = 0;
  std::optional<std::uint32_t> inodes;
  reader.number("reserved", {.least = 1, .most = 50}, reserved);
  reader.number("inodes", {}, inodes);
  CHECK(refusal(reader) == "reserved=51: not a number from 1 to 50");
  CHECK(reserved == 0);
}

TEST_CASE("a word that is no choice is refused with the choices") {
  const OptionValues given = values("colour", "green");
  OptionReader reader(given);
  Colour colour = Colour::red;
  reader.choice<Colour>("colour", {{"red", Colour::red}, {"blue", Colour::blue}}, colour);
  CHECK(refusal(reader) == "colour=green: none of red, blue");
}

}  // namespace mkvirtfs
