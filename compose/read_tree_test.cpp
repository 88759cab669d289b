// SPDX-License-Identifier: BSD-3-Clause
#include "compose/read_tree.h"

#include <catch2/catch.hpp>
#include <filesystem>
#include <string>

#include "tests/support/temp_dir.h"

namespace mkvirtfs {
namespace {

namespace fs = std::filesystem;

struct Place {
  Place() : root(fs::temp_directory_path()) {
    fs::create_directories(root / "source/usr/bin");
    write_file(root / "source/usr/bin/sh", "#!");
    fs::create_symlink("usr/bin", root / "source/bin");
    fs::create_symlink("/bin/sh", root / "source/shell");
    fs::create_symlink("nothing", root / "source/broken");
    fs::create_directories(root / "a:/b");
  }
  std::string at(std::string_view name) const { return (root / name).string(); }
  TempDir root;
};

std::string split(const std::string& word) {
  const ItemName name = split_item_name(word);
  return name.source + " " + name.path;
}

}  // namespace

TEST_CASE("a word is a source and a path in it") {
  const Place place;
  const std::string source = place.at("source");
  CHECK(split(source) == source + " ");
  CHECK(split(source + ":/usr/bin") == source + " /usr/bin");
  CHECK(split(source + ":/") == source + " /");
  CHECK(split(source + ":/x:/y") == source + " /x:/y");
  CHECK(split(source + ":usr") == source + ":usr ");
  CHECK(split("oci:" + source + ":/etc") == "oci:" + source + " /etc");
  CHECK(split("-:/etc") == "- /etc");
  CHECK(split("nbd://h:1/a:/etc:/x") == "nbd://h:1/a /etc:/x");
  CHECK(split("nbd+unix:///?socket=/s#2:/etc") == "nbd+unix:///?socket=/s#2 /etc");
  CHECK(split("nbd://h:1/a") == "nbd://h:1/a ");
  // What is there as a whole is not split; what is not there is left to those who say so.
  CHECK(split(place.at("a:/b")) == place.at("a:/b") + " ");
  CHECK(split(place.at("none:/b")) == place.at("none:/b") + " ");
  // A directory of an archive.
  const std::string file = place.at("source/usr/bin/sh");
  CHECK(split(file + "//dir:/x") == file + "//dir /x");
}

TEST_CASE("a path in a source is found as in a chroot") {
  const Place place;
  Resources resources;
  SourceSpec spec;
  spec.path = place.at("source");
  const Result<ReadTree> read = read_tree(spec, resources);
  REQUIRE(read);
  CHECK_FALSE(read->is_damaged);
  CHECK(read->facts.kind == "directory");
  const SourceTree& tree = *read->tree;
  const auto found = [&](std::string_view path, bool follows_last) {
    const Result<NodeNo> node = find_item(tree, path, follows_last);
    return node ? tree.path(*node) : node.error().what;
  };
  CHECK(found("", false).empty());
  CHECK(found("/", true).empty());
  CHECK(found("/usr/bin/sh", false) == "usr/bin/sh");
  CHECK(found("/bin/sh", false) == "usr/bin/sh");
  CHECK(found("/usr/./../bin//sh", false) == "usr/bin/sh");
  CHECK(found("/../usr", false) == "usr");
  CHECK(found("/shell", false) == "shell");
  CHECK(found("/shell", true) == "usr/bin/sh");
  CHECK(found("/bin/", false) == "usr/bin");
  CHECK(found("/none", true) == "/none is not there");
  CHECK(found("/broken", true) == "/broken is a symlink to what is not in the source");
  CHECK(found("/broken", false) == "broken");
  CHECK(found("/shell/x", false) == "/shell/x lies below what is no directory");

  std::string bytes(2, '\0');
  const Result<NodeNo> shell = find_item(tree, "/shell", true);
  REQUIRE(shell);
  REQUIRE(read->contents->read(content_no(*shell), 0, std::as_writable_bytes(std::span(bytes))));
  CHECK(bytes == "#!");

  spec.path = place.at("none");
  CHECK(read_tree(spec, resources).error().code == Errc::unreadable);
}

}  // namespace mkvirtfs
