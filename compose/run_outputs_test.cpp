// SPDX-License-Identifier: BSD-3-Clause
#include "compose/run_outputs.h"

#include <fcntl.h>

#include <catch2/catch.hpp>
#include <filesystem>

#include "support/unique_fd.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs {
namespace {

namespace fs = std::filesystem;

/// A source with a directory and a file in it, and links to them from outside.
struct Places {
  Places() {
    fs::create_directories(dir / "src/sub");
    fs::create_directory_symlink("src/sub", dir / "way");
    write_file(dir / "src/sub/file", "x");
    fs::create_symlink("src/sub/file", dir / "link");
  }
  TempDir dir;
};

}  // namespace

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

}  // namespace mkvirtfs
