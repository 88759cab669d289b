// SPDX-License-Identifier: BSD-3-Clause
#include "block/overlay/base_manifest.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstddef>
#include <filesystem>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/temp_dir.h"

namespace mkvirtfs {
namespace {

BaseHead head() {
  BaseHead head;
  head.base.fill(std::byte{7});
  head.options = {"--fs=ext4", "--label=a\nb"};
  head.sources = {{"tree", "", "/home/tree"}, {"rootfs.tar", "etc/x", "/home"}};
  return head;
}

/// One of each kind, in their order.
std::vector<BaseEntry> entries() {
  BaseEntry archive;
  archive.is_container = true;
  archive.source = 1;
  archive.path = "rootfs.tar";
  archive.host = FileFacts{1, 2, 3, {4, 5}, {6, 7}};
  archive.digest.emplace().fill(std::byte{9});
  archive.size_bytes = 3;
  BaseEntry root;
  root.mode = S_IFDIR | 0755;
  root.mtime = {-86401, 500'000'000};
  BaseEntry file;
  file.path = "file\n";
  file.mode = S_IFREG | 0644;
  file.uid = 1000;
  file.gid = 100;
  file.size_bytes = std::numeric_limits<std::uint64_t>::max();
  file.host = FileFacts{0x801, 12345678901, 1, {1, 999'999'999}, {2, 0}};
  BaseEntry deep = file;
  deep.path = "etc/x/deep";
  deep.source = 1;
  deep.host_path = "contents/of/deep";
  deep.host.reset();
  return {archive, root, file, deep};
}

void write_manifest(const std::string& overlay, const std::vector<BaseEntry>& all) {
  auto writer = BaseManifestWriter::create(overlay, head());
  REQUIRE(writer);
  for (const BaseEntry& entry : all) REQUIRE((*writer)->add(entry));
  REQUIRE((*writer)->finish());
}

/// All entries; fails when anything of the manifest is wrong.
Result<std::vector<BaseEntry>> read_manifest(const std::string& overlay) {
  auto reader = BaseManifestReader::open(overlay);
  if (!reader) return propagate(reader);
  REQUIRE(*reader);
  std::vector<BaseEntry> all;
  while (true) {
    BaseEntry entry;
    const Result<bool> got = (*reader)->next(entry);
    if (!got) return propagate(got);
    if (!*got) return all;
    all.push_back(entry);
  }
}

}  // namespace

TEST_CASE("a base manifest gives back what was put in") {
  const TempDir dir;
  const std::string overlay = (dir / "disk").string();
  const auto none = BaseManifestReader::open(overlay);
  REQUIRE(none);
  CHECK(*none == nullptr);
  write_manifest(overlay, entries());
  const auto reader = BaseManifestReader::open(overlay);
  REQUIRE(reader);
  CHECK((*reader)->head() == head());
  const auto all = read_manifest(overlay);
  REQUIRE(all);
  CHECK(*all == entries());
  // Nobody else may read the names of a private tree.
  struct stat status{};
  REQUIRE(::stat((overlay + ".base").c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0600);
  CHECK_FALSE(std::filesystem::exists(overlay + ".base.~new~"));
  // What is cut off leaves the one before.
  {
    auto writer = BaseManifestWriter::create(overlay, head());
    REQUIRE(writer);
    REQUIRE((*writer)->add(entries().front()));
  }
  CHECK(read_manifest(overlay).value() == entries());
  CHECK_FALSE(std::filesystem::exists(overlay + ".base.~new~"));
}

TEST_CASE("a base manifest of many entries is read piece by piece") {
  const TempDir dir;
  const std::string overlay = (dir / "disk").string();
  std::vector<BaseEntry> all;
  for (int i = 0; i < 20'000; ++i) {
    BaseEntry entry = entries()[2];
    entry.path = "directory-" + std::to_string(i / 1000) + "/file-" + std::to_string(i);
    all.push_back(entry);
  }
  write_manifest(overlay, all);
  CHECK(read_manifest(overlay).value() == all);
  CHECK(std::filesystem::file_size(overlay + ".base") < 20'000 * 110);
}

TEST_CASE("a base manifest with any byte changed, or cut off anywhere, is refused") {
  const TempDir dir(fast_place());
  const std::string overlay = (dir / "disk").string();
  write_manifest(overlay, entries());
  const std::string whole = read_file(overlay + ".base");
  const auto refused = [&](std::string_view bytes) {
    write_file(overlay + ".base", bytes);
    const auto all = read_manifest(overlay);
    REQUIRE_FALSE(all);
    CHECK(all.error().what.find("disk.base") != std::string::npos);
  };
  for (std::size_t at = 0; at < whole.size(); ++at) {
    CAPTURE(at);
    std::string changed = whole;
    changed[at] = static_cast<char>(changed[at] ^ (1 << at % 8));
    refused(changed);
    refused(std::string_view(whole).substr(0, at));
  }
  refused(whole + "x");
  std::string newer = whole;
  newer[8] = 2;
  write_file(overlay + ".base", newer);
  const auto reader = BaseManifestReader::open(overlay);
  REQUIRE_FALSE(reader);
  CHECK(reader.error().code == Errc::unsupported);
}

TEST_CASE("a file that is no base manifest is neither replaced nor removed") {
  const TempDir dir;
  const std::string overlay = (dir / "disk").string();
  write_file(overlay + ".base", "the user's own");
  CHECK_FALSE(BaseManifestWriter::create(overlay, head()));
  CHECK_FALSE(BaseManifestReader::open(overlay));
  CHECK(remove_base_manifest(overlay, FileOperations::host()) == 0);
  CHECK(read_file(overlay + ".base") == "the user's own");
  // A pipe of that name makes nobody wait.
  const std::string other = (dir / "other").string();
  REQUIRE(::mkfifo((other + ".base").c_str(), 0600) == 0);
  CHECK_FALSE(BaseManifestWriter::create(other, head()));
  CHECK_FALSE(BaseManifestReader::open(other));
}

TEST_CASE("entries stand in the order in which a tree numbers them") {
  const auto node = [](std::string path) {
    BaseEntry entry;
    entry.path = std::move(path);
    return entry;
  };
  std::vector<BaseEntry> sorted;
  for (const char* const path :
       {"", "a", "a b", "a-", "b", "\xff", "a/z", "a b/c", "b/a", "a/z/1", "a b/c/d"}) {
    sorted.push_back(node(path));
  }
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    for (std::size_t j = 0; j < sorted.size(); ++j) {
      CAPTURE(sorted[i].path, sorted[j].path);
      CHECK(stands_before(sorted[i], sorted[j]) == (i < j));
    }
  }
  BaseEntry container = node("zzz");
  container.is_container = true;
  CHECK(stands_before(container, sorted[0]));
  CHECK_FALSE(stands_before(sorted[0], container));
}

TEST_CASE("an entry knows where its file is below its source") {
  BaseEntry entry;
  entry.path = "etc/x/passwd";
  CHECK(host_path_of(entry, {"t", "", "/t"}) == "etc/x/passwd");
  CHECK(host_path_of(entry, {"t", "etc/x", "/t"}) == "passwd");
  entry.path = "etc/x";
  CHECK(host_path_of(entry, {"t", "etc/x", "/t"}).empty());
  entry.host_path = "elsewhere";
  CHECK(host_path_of(entry, {"t", "etc/x", "/t"}) == "elsewhere");
}

}  // namespace mkvirtfs
