// SPDX-License-Identifier: BSD-3-Clause
#include "compose/exports.h"

#include <catch2/catch.hpp>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/temp_dir.h"

namespace mkvirtfs {
namespace {

namespace fs = std::filesystem;

struct Bench {
  Bench() {
    fs::create_directory(root / "source");
    write_file(root / "source/file", "contents");
  }
  ExportSpec spec(std::string name) const {
    return {.name = std::move(name),
            .image = {.sources = {{.path = (root / "source").string()}},
                      .format = "ext4",
                      .options = {{"free", "1M"}}}};
  }

  TempDir root;
  Resources resources;
};

std::string description(ExportTree& tree, std::string_view name) {
  const auto found = tree.find(name);
  REQUIRE(found);
  return found->description;
}

}  // namespace

TEST_CASE("exports are images under names, and the first is the default one") {
  Bench bench;
  ExportSpec other = bench.spec("tools/other");
  other.description = "by hand";
  other.image.format = "fat";
  const auto tree = make_exports({bench.spec("first"), other}, bench.resources);
  REQUIRE(tree);
  CHECK(description(**tree, "first") == "ext4 image of source");
  CHECK(description(**tree, "tools/other") == "by hand");
  const auto first = (*tree)->open("");
  REQUIRE(first);
  CHECK(first->name == "first");
  CHECK((*tree)->open("first")->device == first->device);
  CHECK((*tree)->open("tools/other")->device != first->device);
}

TEST_CASE("descriptions name the format and the source") {
  Bench bench;
  fs::create_directory(bench.root / "source/sub");
  const auto described = [&](const std::string& path, std::size_t sources = 1) {
    ExportSpec spec = bench.spec("a");
    spec.image.sources = std::vector<SourceSpec>(sources, {.path = path});
    spec.image.format = "";
    return description(**make_exports({spec}, bench.resources), "a");
  };
  const std::string source = (bench.root / "source").string();
  CHECK(described(source) == "ext2 image of source");
  CHECK(described(source, 3) == "ext2 image of source and 2 more");
  CHECK(described("docker-archive:/x/app.tar:latest") == "ext2 image of app.tar");
  CHECK(described(source + "/sub/..") == "ext2 image of source");
  CHECK(described("/") == "ext2 image of /");
  CHECK(described("..") == "ext2 image of ..");
  CHECK(described("a\nb") == "ext2 image of a\\x0ab");
}

TEST_CASE("an export is prepared when it is opened, and again when nobody holds it") {
  Bench bench;
  const auto tree = make_exports({bench.spec("a")}, bench.resources);
  REQUIRE(tree);
  const auto size_bytes = (*tree)->open("a")->device->geometry().size_bytes;
  write_file(bench.root / "source/large", std::string(8 << 20, 'x'));
  CHECK((*tree)->open("a")->device->geometry().size_bytes >= size_bytes + (8 << 20));
  fs::remove_all(bench.root / "source");
  const auto gone = (*tree)->open("a");
  REQUIRE_FALSE(gone);
  CHECK(gone.error().code == Errc::unreadable);
}

TEST_CASE("an export that is prepared at once is kept, and fails at once") {
  Bench bench;
  ExportSpec spec = bench.spec("a");
  spec.at_once = true;
  const auto tree = make_exports({spec}, bench.resources);
  REQUIRE(tree);
  fs::remove_all(bench.root / "source");
  CHECK((*tree)->open("a"));
  const auto failed = make_exports({spec}, bench.resources);
  REQUIRE_FALSE(failed);
  CHECK(failed.error().code == Errc::unreadable);
}

TEST_CASE("a failure of an export goes to the client and to the handler of failures") {
  Bench bench;
  std::vector<std::string> failures;
  ResourceOptions options;
  options.on_export_failure = [&](std::string_view name, Error& error) {
    failures.push_back(std::string(name) + ": " + error.what);
    error.what += "!";
  };
  Resources resources(options);
  const auto tree = make_exports({bench.spec("a")}, resources);
  fs::remove_all(bench.root / "source");
  const auto gone = (*tree)->open("a");
  REQUIRE_FALSE(gone);
  REQUIRE(failures.size() == 1);
  CHECK(failures.front() + "!" == "a: " + gone.error().what);
}

TEST_CASE("names and sources that cannot be are refused") {
  Bench bench;
  for (const char* name : {"a//b", "..", "a\nb"}) {
    const auto tree = make_exports({bench.spec(name)}, bench.resources);
    REQUIRE_FALSE(tree);
    CHECK(tree.error().code == Errc::usage);
  }
  CHECK_FALSE(make_exports({bench.spec("a"), bench.spec("a")}, bench.resources));
  CHECK_FALSE(make_exports({{.name = "a"}}, bench.resources));
  CHECK_FALSE(make_exports({}, bench.resources));
}

}  // namespace mkvirtfs
