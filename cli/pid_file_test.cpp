// SPDX-License-Identifier: BSD-3-Clause
#include "cli/pid_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <string>

#include "tests/support/temp_dir.h"

namespace mkvirtfs::cli {
namespace {

namespace fs = std::filesystem;

std::string refusal(const fs::path& path) {
  const Result<PidFile> file = PidFile::create(path.string());
  REQUIRE_FALSE(file);
  CHECK(file.error().what.find('\n') == std::string::npos);
  CHECK_THAT(file.error().what, Catch::StartsWith(path.string()));
  return file.error().what;
}

/// The id of a process that has ended.
pid_t ended_process() {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  REQUIRE(::waitpid(child, nullptr, 0) == child);
  return child;
}

const std::string own = std::to_string(::getpid()) + "\n";

}  // namespace

TEST_CASE("a pid file has the process id and goes with its object") {
  const TempDir dir;
  {
    const Result<PidFile> file = PidFile::create((dir / "pid").string());
    REQUIRE(file);
    CHECK(read_file(dir / "pid") == own);
  }
  CHECK(fs::is_empty(dir.path()));
}

TEST_CASE("a second -P of the same file is refused, and the first one's file stays") {
  const TempDir dir;
  {
    const Result<PidFile> first = PidFile::create((dir / "pid").string());
    REQUIRE(first);
    CHECK_THAT(refusal(dir / "pid"), Catch::Contains("is the pid file of a process that runs, " +
                                                     std::to_string(::getpid())));
    CHECK(read_file(dir / "pid") == own);
  }
  CHECK(fs::is_empty(dir.path()));
}

TEST_CASE(
    "a pid file of -P follows no symbolic link and overwrites nothing that is not a pid file") {
  const TempDir dir;
  write_file(dir / "precious", "data");
  fs::create_symlink("precious", dir / "link");
  fs::create_symlink("nowhere", dir / "dangling");
  write_file(dir / "17", "17\n");
  fs::create_hard_link(dir / "17", dir / "hard");
  CHECK_THAT(refusal(dir / "link"), Catch::Contains("is a symbolic link"));
  CHECK_THAT(refusal(dir / "dangling"), Catch::Contains("is a symbolic link"));
  CHECK_THAT(refusal(dir / "precious"), Catch::Contains("holds no process id"));
  CHECK_THAT(refusal(dir / "hard"), Catch::Contains("several names"));
  CHECK_THAT(refusal("/dev/null"), Catch::Contains("is not a regular file"));
  CHECK(read_file(dir / "precious") == "data");
  CHECK(read_file(dir / "17") == "17\n");
  CHECK_FALSE(fs::exists(dir / "nowhere"));
}

TEST_CASE("the pid file of a process that lives is refused, one that was left behind is taken") {
  const TempDir dir;
  // Ours: another program's, which holds no lock.
  const std::string parent = std::to_string(::getppid()) + "\n";
  write_file(dir / "living", parent);
  CHECK_THAT(refusal(dir / "living"), Catch::Contains("of a process that runs"));
  CHECK(read_file(dir / "living") == parent);

  // Written before that process began: its id was used again.
  write_file(dir / "reused", parent);
  const timespec long_ago[2] = {{1'000'000'000, 0}, {1'000'000'000, 0}};
  REQUIRE(::utimensat(AT_FDCWD, (dir / "reused").c_str(), long_ago, 0) == 0);
  write_file(dir / "ended", std::to_string(ended_process()) + "\n");
  write_file(dir / "ours", own);
  write_file(dir / "empty", "");
  for (const char* name : {"reused", "ended", "ours", "empty"}) {
    CAPTURE(name);
    const Result<PidFile> file = PidFile::create((dir / name).string());
    if (!file) FAIL(file.error().what);
    CHECK(read_file(dir / name) == own);
  }
  CHECK(fs::exists(dir / "living"));
  CHECK(std::distance(fs::directory_iterator(dir.path()), {}) == 1);
}

TEST_CASE("what took a pid file's name is not removed") {
  const TempDir dir;
  {
    const Result<PidFile> file = PidFile::create((dir / "pid").string());
    REQUIRE(file);
    fs::rename(dir / "pid", dir / "moved");
    write_file(dir / "pid", "another's");
  }
  CHECK(read_file(dir / "pid") == "another's");
}

}  // namespace mkvirtfs::cli
