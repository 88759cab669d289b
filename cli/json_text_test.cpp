// SPDX-License-Identifier: BSD-3-Clause
#include "cli/json_text.h"

#include <array>
#include <catch2/catch.hpp>
#include <limits>
#include <vector>

namespace mkvirtfs::cli {

TEST_CASE("members keep their order and kind") {
  const std::array<std::uint64_t, 3> numbers = {1, 0, 3};
  Json below = Json::array();
  below.add(Json::object().set("file", "a"));
  below.add(Json::object());
  const Json object = Json::object()
                          .set("z", "text")
                          .set("y", true)
                          .set("x", std::numeric_limits<std::uint64_t>::max())
                          .set("w", 0.5)
                          .set("v", numbers)
                          .set("u", std::move(below))
                          .set("z", "again");
  CHECK(object.one_line() ==
        R"({"z":"again","y":true,"x":18446744073709551615,"w":0.5,"v":[1,0,3],)"
        R"("u":[{"file":"a"},{}]})");
  CHECK(Json::object().set("a", 1U).set("b", "c").lines() == "{\n  \"a\": 1,\n  \"b\": \"c\"\n}\n");
}

TEST_CASE("what is no UTF-8 does not stop the output") {
  CHECK(Json::object().set("name", "a\xff\n").one_line() == "{\"name\":\"a\xEF\xBF\xBD\\n\"}");
  CHECK(Json::object().set("name", "\xff").lines() == "{\n  \"name\": \"\xEF\xBF\xBD\"\n}\n");
}

TEST_CASE("a member is read as what it is, or not at all") {
  const auto object = Json::parse_object(
      R"({"text":"a\u0000b","number":18446744073709551615,"less":-1,"flag":false,"none":null})");
  REQUIRE(object);
  CHECK(object->text("text") == std::string("a\0b", 3));
  CHECK(object->number("number") == std::numeric_limits<std::uint64_t>::max());
  CHECK(object->flag("flag") == false);
  CHECK(object->has("none"));
  CHECK_FALSE(object->has("nothing"));
  CHECK_FALSE(object->text("number"));
  CHECK_FALSE(object->text("nothing"));
  CHECK_FALSE(object->number("less"));
  CHECK_FALSE(object->number("text"));
  CHECK_FALSE(object->number("flag"));
  CHECK_FALSE(object->flag("none"));
}

TEST_CASE("only an object is read") {
  for (const char* text : {"", "{", "[]", "1", "\"a\"", "{\"a\":\"\xff\"}", "{} {}"}) {
    CAPTURE(text);
    CHECK_FALSE(Json::parse_object(text));
  }
}

TEST_CASE("all scalars of an object are seen, in their order") {
  Json rows = Json::array();
  rows.add(Json::object().set("b", 2U).set("c", false));
  const Json object = Json::object()
                          .set("a", "x")
                          .set("rows", std::move(rows))
                          .set("inner", Json::object().set("d", 0.25));
  using Seen = std::pair<std::string, Json::Scalar>;
  std::vector<Seen> seen;
  object.for_each_scalar(
      [&](std::string_view key, const Json::Scalar& value) { seen.emplace_back(key, value); });
  CHECK((seen == std::vector<Seen>{
                     {"a", std::string("x")}, {"b", std::uint64_t{2}}, {"c", false}, {"d", 0.25}}));
}

}  // namespace mkvirtfs::cli
