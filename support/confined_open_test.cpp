// SPDX-License-Identifier: BSD-3-Clause
#include "support/confined_open.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include <array>
#include <cerrno>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/support/temp_dir.h"

using namespace mkvirtfs;

namespace {

UniqueFd directory_fd(const std::filesystem::path& path) {
  UniqueFd fd(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  REQUIRE(fd);
  return fd;
}

}  // namespace

TEST_CASE("what lies below is opened, what leads out is not, with openat2 or without") {
  const bool use_openat2 = GENERATE(true, false);
  CAPTURE(use_openat2);
  const TempDir dir;
  std::filesystem::create_directories(dir / "root/a/b");
  write_file(dir / "root/a/b/file", "inside");
  write_file(dir / "secret", "outside");
  std::filesystem::create_symlink("b", dir / "root/a/inner");
  std::filesystem::create_symlink("../../secret", dir / "root/a/out");
  std::filesystem::create_symlink(dir.path(), dir / "root/a/absolute");
  const UniqueFd root = directory_fd(dir / "root");
  const ConfinedOpener opener(false, use_openat2);
  const auto error = [&](const char* path, int flags = O_RDONLY) {
    const auto fd = opener.open(root.get(), path, flags);
    return fd ? 0 : fd.error();
  };

  CHECK(error("a/b/file") == 0);
  CHECK(error("a/b", O_RDONLY | O_DIRECTORY) == 0);
  CHECK(error("a/b", O_PATH | O_DIRECTORY) == 0);
  CHECK(error(".") == 0);
  CHECK(error("a/nothing") == ENOENT);
  CHECK(error("a/b/file/c") == ENOTDIR);
  for (const char* way_out : {"a/out", "a/absolute", "a/absolute/secret", "a/inner/file",
                              "../secret", "a/../../secret", "/etc/passwd", "a/inner"}) {
    CAPTURE(way_out);
    CHECK(error(way_out) != 0);
  }
  CHECK(error("a/inner", O_PATH | O_DIRECTORY) != 0);
}

TEST_CASE("a chain of names may be longer than a path can be") {
  const bool use_openat2 = GENERATE(true, false);
  const TempDir dir;
  const std::string name(250, 'n');
  constexpr std::size_t kDepth = 40;
  UniqueFd at = directory_fd(dir.path());
  for (std::size_t i = 0; i < kDepth; ++i) {
    REQUIRE(::mkdirat(at.get(), name.c_str(), 0755) == 0);
    at = UniqueFd(::openat(at.get(), name.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  }
  const UniqueFd root = directory_fd(dir.path());
  const ConfinedOpener opener(false, use_openat2);
  const std::vector<std::string_view> names(kDepth, name);
  const auto fd = opener.open_chain(root.get(), names, O_RDONLY);
  REQUIRE(fd);
  struct stat expected{};
  struct stat reached{};
  REQUIRE(::fstat(at.get(), &expected) == 0);
  REQUIRE(::fstat(fd->get(), &reached) == 0);
  CHECK(expected.st_ino == reached.st_ino);

  const auto none = opener.open_chain(root.get(), {}, O_PATH);
  REQUIRE(none);
  REQUIRE(::fstat(root.get(), &expected) == 0);
  REQUIRE(::fstat(none->get(), &reached) == 0);
  CHECK(expected.st_ino == reached.st_ino);
}

TEST_CASE("looking at a file of one's own leaves no access time") {
  const TempDir dir;
  write_file(dir / "file", "content");
  // An access time before the modification would be renewed even on relatime mounts.
  const std::array<timespec, 2> times = {timespec{1000, 0}, timespec{2000, 0}};
  REQUIRE(::utimensat(AT_FDCWD, (dir / "file").c_str(), times.data(), 0) == 0);
  const UniqueFd root = directory_fd(dir.path());
  const auto fd = ConfinedOpener(false).open(root.get(), "file", O_RDONLY);
  REQUIRE(fd);
  char byte = 0;
  REQUIRE(::read(fd->get(), &byte, 1) == 1);
  struct stat status{};
  REQUIRE(::fstat(fd->get(), &status) == 0);
  CHECK(status.st_atim.tv_sec == 1000);
}
