// SPDX-License-Identifier: BSD-3-Clause
#include "compose/source_name.h"

#include <catch2/catch.hpp>
#include <filesystem>
#include <string>

#include "tests/support/temp_dir.h"

namespace mkvirtfs {

TEST_CASE("an address of other programs is refused with the way that there is") {
  const auto [path, said] = GENERATE(table<std::string, std::string>({
      {"docker://alpine:3", "skopeo copy docker://alpine:3 oci:DIR, then oci:DIR"},
      {"docker-daemon:app:latest", "skopeo copy docker-daemon:app:latest oci:DIR"},
      {"containers-storage:app", "skopeo copy containers-storage:app oci:DIR"},
      {"docker:alpine", "oci:PATH, oci-archive:PATH and docker-archive:PATH"},
      {"oci://layout", "oci:layout"},
      {"oci-archive://app.tar", "oci-archive:app.tar"},
      {"dir:rootfs", "rootfs"},
      {"file:///srv/rootfs", "/srv/rootfs"},
      {"http://host/a.tar", "curl -L http://host/a.tar | mkvirtfs ... -"},
      {"https://host/{0}{}.tar", "curl -L https://host/{0}{}.tar | mkvirtfs"},
      {"nbd://host/name", "mkvirtfs list"},
  }));
  CAPTURE(path);
  const Result<void> checked = check_source_path(path);
  REQUIRE_FALSE(checked);
  CHECK(checked.error().code == Errc::unsupported);
  CHECK_THAT(checked.error().what, Catch::StartsWith(path + ": ") && Catch::Contains(said));
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

}  // namespace mkvirtfs
