// SPDX-License-Identifier: BSD-3-Clause
#include "cli/run_outputs.h"

#include <fcntl.h>

#include <catch2/catch.hpp>
#include <filesystem>

#include "support/unique_fd.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs::cli {
namespace {

namespace fs = std::filesystem;

/// A source with a directory in it, a link to that from outside, and a directory beside it.
struct Places {
  Places() {
    fs::create_directories(dir / "src/sub");
    fs::create_directory(dir / "src-beside");
    fs::create_directory_symlink("src/sub", dir / "way");
    write_file(dir / "src/sub/file", "x");
    fs::create_symlink("src/sub/file", dir / "link");
  }
  bool inside(const char* path) const {
    return lies_in((dir / path).string(), (dir / "src").string());
  }

  TempDir dir;
};

}  // namespace

TEST_CASE("a path lies in a source on whatever way it is named, there or not") {
  const Places places;
  CHECK(places.inside("src/new"));
  CHECK(places.inside("src/sub/file"));
  CHECK(places.inside("src/sub/new"));
  CHECK(places.inside("way/new"));
  CHECK(places.inside("src-beside/../src/new"));
  CHECK(places.inside("link"));
  CHECK_FALSE(places.inside("src"));
  CHECK_FALSE(places.inside("src-beside/new"));
  CHECK_FALSE(places.inside("src/../new"));
  CHECK_FALSE(places.inside("src/nothing/new"));
  CHECK_FALSE(lies_in((places.dir / "src/new").string(), (places.dir / "src/sub/file").string()));
  CHECK(lies_in((places.dir / "src/new").string(), "/"));
}

TEST_CASE("an output is known by what it is, or by where it will be") {
  const Places places;
  RunOutputs outputs;
  outputs.add_path("");
  outputs.add_path((places.dir / "way/new").string());
  outputs.add_path((places.dir / "link").string());
  const UniqueFd file(::open((places.dir / "src/sub/file").c_str(), O_RDONLY | O_CLOEXEC));
  outputs.add_descriptor(file.get(), "the file");
  const UniqueFd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  outputs.add_descriptor(null.get(), "nothing");
  const std::vector<RunOutput> found = outputs.find();
  REQUIRE(found.size() == 4);
  CHECK(found[0].name == "new");
  CHECK(found[0].inode == 0);
  CHECK(found[0].directory_inode == found[1].directory_inode);
  CHECK(found[1].name == "file");
  CHECK(found[1].inode != 0);
  CHECK(found[2].name.empty());
  CHECK(found[2].inode == found[1].inode);
  CHECK(found[3].inode == 0);
}

}  // namespace mkvirtfs::cli
