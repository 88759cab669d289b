// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/tree/glob.h"

#include <rapidcheck.h>

#include <catch2/catch.hpp>

#include <string>
#include <string_view>

#include "tests/support/property.h"

using mkvirtfs::glob_matches;

namespace {

/// The definition, word for word, without regard to time. `at` is where in `text` we are.
bool defined_match(std::string_view glob, std::string_view text, std::size_t at) {
  if (glob.empty()) return at == text.size();
  if (glob.starts_with("**")) {
    glob.remove_prefix(std::min(glob.find_first_not_of('*'), glob.size()));
    if (glob.starts_with('/') && (at == 0 || text[at - 1] == '/')) {
      glob.remove_prefix(1);
      if (defined_match(glob, text, at)) return true;
      for (std::size_t i = at; i < text.size(); ++i) {
        if (text[i] == '/' && defined_match(glob, text, i + 1)) return true;
      }
      return false;
    }
    for (std::size_t i = at; i <= text.size(); ++i) {
      if (defined_match(glob, text, i)) return true;
    }
    return false;
  }
  if (glob.front() == '*') {
    if (defined_match(glob.substr(1), text, at)) return true;
    return at < text.size() && text[at] != '/' && defined_match(glob, text, at + 1);
  }
  if (at == text.size()) return false;
  const bool one = glob.front() == '?' ? text[at] != '/' : glob.front() == text[at];
  return one && defined_match(glob.substr(1), text, at + 1);
}

}  // namespace

TEST_CASE("matching is what the definition says") {
  mkvirtfs::testing::check_property(3000, [] {
    const auto glob = *rc::gen::resize(
        14, rc::gen::container<std::string>(rc::gen::element('a', 'b', '/', '*', '*', '*', '?')));
    const auto text =
        *rc::gen::resize(12, rc::gen::container<std::string>(rc::gen::element('a', 'a', 'b', '/')));
    RC_ASSERT(glob_matches(glob, text) == defined_match(glob, text, 0));
  });
}

TEST_CASE("stars and question marks stay inside a component") {
  CHECK(glob_matches("*.o", "main.o"));
  CHECK(glob_matches("*.o", ".o"));
  CHECK_FALSE(glob_matches("*.o", "main.oo"));
  CHECK_FALSE(glob_matches("*.o", "src/main.o"));
  CHECK(glob_matches("src/*.o", "src/main.o"));
  CHECK_FALSE(glob_matches("src/*.o", "src/a/main.o"));
  CHECK(glob_matches("a?c", "abc"));
  CHECK_FALSE(glob_matches("a?c", "a/c"));
  CHECK_FALSE(glob_matches("a?c", "ac"));
  CHECK(glob_matches("*", ""));
  CHECK(glob_matches("", ""));
  CHECK_FALSE(glob_matches("", "a"));
  CHECK(glob_matches("*/b*/c", "x/bb/c"));
  CHECK_FALSE(glob_matches("*/b*/c", "x/y/bb/c"));
  CHECK(glob_matches("*a*b*", "xxaxxbxx"));
  CHECK_FALSE(glob_matches("*a*b*", "xxbxxaxx"));
}

TEST_CASE("double stars cross components") {
  CHECK(glob_matches("a/**", "a/b/c"));
  CHECK_FALSE(glob_matches("a/**", "a"));
  CHECK(glob_matches("**/x", "x"));
  CHECK(glob_matches("**/x", "a/b/x"));
  CHECK_FALSE(glob_matches("**/x", "a/bx"));
  CHECK(glob_matches("a/**/x", "a/x"));
  CHECK(glob_matches("a/**/x", "a/b/c/x"));
  CHECK_FALSE(glob_matches("a/**/x", "ax"));
  CHECK_FALSE(glob_matches("a/**/x", "a/b/cx"));
  CHECK(glob_matches("a**z", "a/b/z"));
  CHECK(glob_matches("a**z", "az"));
  CHECK(glob_matches("**", ""));
  CHECK(glob_matches("**", "a/b"));
  CHECK(glob_matches("**/*.o", "a/b/c.o"));
  CHECK(glob_matches("**/b*/*.o", "a/bb/b/x.o"));
  CHECK_FALSE(glob_matches("**/b*/*.o", "a/bb/c/x.o"));
  CHECK(glob_matches("**/a/**/b", "x/a/y/a/z/b"));
  CHECK(glob_matches("x**/y", "xx/y"));
  CHECK_FALSE(glob_matches("x**/y", "xy"));
}

TEST_CASE("sets, escapes and bytes that are no UTF-8") {
  CHECK(glob_matches("[a-c]x", "bx"));
  CHECK_FALSE(glob_matches("[a-c]x", "dx"));
  CHECK(glob_matches("[!a-c]x", "dx"));
  CHECK(glob_matches("[^a-c]x", "dx"));
  CHECK_FALSE(glob_matches("a[!b]c", "a/c"));
  CHECK(glob_matches("[]]", "]"));
  CHECK(glob_matches("[a-]", "-"));
  CHECK(glob_matches("[\\]]", "]"));
  CHECK(glob_matches("[a", "[a"));
  CHECK(glob_matches("\\*", "*"));
  CHECK_FALSE(glob_matches("\\*", "a"));
  CHECK(glob_matches("a\\", "a\\"));
  CHECK(glob_matches("\xff?\x80", "\xff\n\x80"));
  CHECK(glob_matches("[\x80-\xff]", "\xfe"));
}

TEST_CASE("a hostile glob takes no exponential time") {
  std::string glob;
  for (int i = 0; i < 50; ++i) glob += "*a";
  glob += "b";
  CHECK_FALSE(glob_matches(glob, std::string(250, 'a')));
  std::string deep;
  for (int i = 0; i < 30; ++i) deep += "**/a*";
  CHECK_FALSE(glob_matches(deep + "/b", std::string(1000, 'a')));
}
