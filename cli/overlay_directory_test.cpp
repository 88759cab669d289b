// SPDX-License-Identifier: BSD-3-Clause
#include "cli/overlay_directory.h"

#include <catch2/catch.hpp>
#include <fstream>
#include <string>
#include <vector>

#include "tests/support/temp_dir.h"

namespace mkvirtfs::cli {

TEST_CASE("each export has a file of its own, in the directory and nowhere else") {
  struct Pair {
    std::string name;
    std::string file;
  };
  const std::vector<Pair> pairs = {{"", "%.overlay"},
                                   {"job-7", "job-7.overlay"},
                                   {"a.b_C", "a.b_C.overlay"},
                                   {"ci/job 7", "ci%2Fjob%207.overlay"},
                                   {".hidden", "%2Ehidden.overlay"},
                                   {"100%", "100%25.overlay"},
                                   {"%25", "%2525.overlay"},
                                   {"\u00e9", "%C3%A9.overlay"}};
  for (const Pair& pair : pairs) {
    CAPTURE(pair.name);
    const auto file = overlay_file_name(pair.name);
    REQUIRE(file);
    CHECK(*file == pair.file);
    CHECK(export_of_overlay_file(pair.file) == pair.name);
  }
  CHECK(overlay_file_name(std::string(247, 'x')));
  CHECK_FALSE(overlay_file_name(std::string(248, 'x')));
  const auto long_name = overlay_file_name(std::string(4096, '/'));
  REQUIRE_FALSE(long_name);
  CHECK(long_name.error().what.find("too long") != std::string::npos);
}

TEST_CASE("files that are not written as overlays are, belong to no export") {
  for (const char* const name :
       {"", ".overlay", "x", "x.overlay~", ".x.overlay", "a%2fb.overlay", "%.x.overlay",
        "a%2.overlay", "a%.overlay", "%41.overlay", "a b.overlay", "%00.overlay", "%FF.overlay",
        "a%2F..overlay", "%2E%2E%2Fx.overlay", "x%\xff\xff.overlay", "%%.overlay"}) {
    CAPTURE(name);
    CHECK_FALSE(export_of_overlay_file(name));
  }
}

TEST_CASE("a directory of overlays is made, and tells whose they are") {
  const TempDir dir;
  const std::string path = (dir / "overlays").string();
  CHECK_FALSE(exports_in_overlay_directory(path));
  REQUIRE(make_overlay_directory(path + "/"));
  REQUIRE(make_overlay_directory(path));
  for (const char* const name : {"b.overlay", "a%2Fx.overlay", "%.overlay", "notes.txt"}) {
    std::ofstream(path + "/" + name) << "";
  }
  const auto names = exports_in_overlay_directory(path);
  REQUIRE(names);
  CHECK(*names == std::vector<std::string>{"", "a/x", "b"});
  const auto no_parent = make_overlay_directory((dir / "missing" / "overlays").string());
  REQUIRE_FALSE(no_parent);
  CHECK(no_parent.error().code == Errc::usage);
  CHECK_FALSE(make_overlay_directory(path + "/notes.txt"));
}

}  // namespace mkvirtfs::cli
