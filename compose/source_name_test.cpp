// SPDX-License-Identifier: BSD-3-Clause
#include "compose/source_name.h"

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <string>

#include "tests/support/hinted_text.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs {

TEST_CASE("an address of other programs is refused with the way that there is") {
  const auto [path, said] = GENERATE(table<std::string, std::string>({
      {"docker://alpine:3",
       "images in a registry are not read [skopeo copy docker://alpine:3 oci:DIR, and oci:DIR]"},
      {"docker-daemon:app:latest",
       "images of a daemon are not read [skopeo copy docker-daemon:app:latest oci:DIR, and "
       "oci:DIR]"},
      {"containers-storage:app",
       "images of Podman's storage are not read [skopeo copy containers-storage:app oci:DIR, and "
       "oci:DIR]"},
      {"docker:alpine", "the forms are oci:PATH, oci-archive:PATH and docker-archive:PATH"},
      {"oci://layout", "a path follows the first colon as it is [oci:layout]"},
      {"oci-archive://app.tar", "a path follows the first colon as it is [oci-archive:app.tar]"},
      {"dir:rootfs", "a directory is named by its path [rootfs]"},
      {"file:///srv/rootfs", "a source is named by its path [/srv/rootfs]"},
      {"https://host/{0}{}.tar",
       "sources are not read over the network [curl -L https://host/{0}{}.tar, and - as the "
       "source]"},
  }));
  CAPTURE(path);
  const Result<void> checked = check_source_path(path);
  REQUIRE_FALSE(checked);
  CHECK(checked.error().code == Errc::unsupported);
  CHECK(hinted_text(checked.error()) == path + ": " + said);
}

TEST_CASE("an empty source is wrong usage") {
  const Result<void> checked = check_source_path("");
  REQUIRE_FALSE(checked);
  CHECK(checked.error().code == Errc::usage);
}

TEST_CASE("a file that is there, and any plain path, may be a source") {
  const TempDir dir;
  std::filesystem::current_path(dir.path());
  std::filesystem::create_directory("dir:rootfs");
  CHECK(check_source_path("dir:rootfs"));
  CHECK_FALSE(check_source_path("dir:other"));
  std::filesystem::current_path("/");
  for (const char* path : {"-", "rootfs", "/no/such", "oci:-", "a=b"}) {
    CAPTURE(path);
    CHECK(check_source_path(path));
  }
}

TEST_CASE("two slashes behind what is no directory name a directory of an archive") {
  const TempDir dir;
  const std::string root = dir.path().string();
  std::filesystem::create_directories(dir.path() / "d" / "sub");
  std::ofstream(dir.path() / "x.tar") << "x";
  const auto parts = [](const std::string& path) {
    const ArchivePath split = split_archive_path(path);
    return split.file + " | " + split.subtree;
  };
  CHECK(parts(root + "/x.tar//rootfs") == root + "/x.tar | rootfs");
  CHECK(parts(root + "//x.tar///a//b/") == root + "//x.tar | a//b");
  CHECK(parts(root + "/x.tar//") == root + "/x.tar | ");
  CHECK(parts(root + "/x.tar") == root + "/x.tar | ");
  CHECK(parts(root + "/d//sub") == root + "/d//sub | ");
  CHECK(parts(root + "/none.tar//sub") == root + "/none.tar//sub | ");
  CHECK(parts("//" + root) == "//" + root + " | ");
}

TEST_CASE("a colon behind a file that is there names a partition") {
  const TempDir dir;
  const std::string root = dir.path().string();
  for (const char* name : {"disk.img", "a:b", "c:1"}) std::ofstream(dir.path() / name) << "x";
  std::filesystem::create_directory(dir.path() / "d");
  const auto parts = [](const std::string& path) {
    const ArchivePath split = split_archive_path(path);
    return split.file + " | " + split.partition + " | " + split.subtree;
  };
  CHECK(parts(root + "/disk.img:2") == root + "/disk.img | 2 | ");
  CHECK(parts(root + "/disk.img:EFI system") == root + "/disk.img | EFI system | ");
  CHECK(parts(root + "/disk.img:2//etc/x") == root + "/disk.img | 2 | etc/x");
  CHECK(parts(root + "/disk.img:a:b") == root + "/disk.img | a:b | ");
  CHECK(parts(root + "/a:b:1") == root + "/a:b | 1 | ");
  // What is there is meant.
  CHECK(parts(root + "/c:1") == root + "/c:1 |  | ");
  CHECK(parts(root + "/d:1") == root + "/d:1 |  | ");
  CHECK(parts(root + "/none:1") == root + "/none:1 |  | ");
  CHECK(parts("nbd://host:1/a//b#root fs") == "nbd://host:1/a//b | root fs | ");
  CHECK(parts("nbd+unix:///?socket=x:2") == "nbd+unix:///?socket=x:2 |  | ");
  CHECK(parts(root + "/disk.img:") == root + "/disk.img: |  | ");
}

}  // namespace mkvirtfs
