// SPDX-License-Identifier: BSD-3-Clause
#include "cli/near_words.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

namespace mkvirtfs::cli {

TEST_CASE("the word that was meant is found, and no other") {
  const std::vector<std::string> words = {"serve", "dump", "inspect", "list", "overlay", "ctl"};
  const auto [typed, near] = GENERATE(table<std::string, std::string>({
      {"serv", "serve"},
      {"sevre", "serve"},
      {"SERVE", "serve"},
      {"server", "serve"},
      {"dmup", "dump"},
      {"inpect", "inspect"},
      {"insp", "inspect"},
      {"ctrl", "ctl"},
      {"overlays", "overlay"},
      {"lst", "list"},
      {"", ""},
      {"mount", ""},
      {"x", ""},
      {"rootfs", ""},
      {"build", ""},
      {std::string(65, 's'), ""},
  }));
  CAPTURE(typed);
  CHECK(nearest_word(typed, words) == near);
}

TEST_CASE("of two that begin alike, neither is meant") {
  CHECK(nearest_word("--vol", {"--volume-field", "--volume-id"}).empty());
  CHECK(nearest_word("--vol", {"--volume-field", "--label"}) == "--volume-field");
}

TEST_CASE("what is said of words") {
  CHECK(did_you_mean("").empty());
  CHECK(did_you_mean("dump") == " (did you mean dump?)");
  CHECK(joined_with_or({"a"}) == "a");
  CHECK(joined_with_or({"a", "b", "c"}) == "a, b or c");
}

}  // namespace mkvirtfs::cli
