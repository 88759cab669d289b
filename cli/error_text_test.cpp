// SPDX-License-Identifier: BSD-3-Clause
#include "cli/error_text.h"

#include <fcntl.h>

#include <catch2/catch.hpp>

#include "support/unique_fd.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs::cli {
namespace {

TEST_CASE("an error's hints become options of the command line") {
  Error error{Errc::does_not_fit, 0, "a.img is 5 bytes; files end at 4"};
  CHECK(error_text(error) == "a.img is 5 bytes; files end at 4");
  error.hints = {{"fs", "ext4"}};
  CHECK(error_text(error) == "a.img is 5 bytes; files end at 4 (try --fs=ext4)");
  error.hints.push_back({"exclude"});
  CHECK(error_text(error) == "a.img is 5 bytes; files end at 4 (try --fs=ext4 or --exclude)");
  error.hints.push_back({"", "a higher ulimit -n"});
  CHECK(error_text(error) ==
        "a.img is 5 bytes; files end at 4 (try --fs=ext4, --exclude or a higher ulimit -n)");
}

TEST_CASE("the option at fault stands before what is wrong with it") {
  const auto failed = fail_option({"label", "a?b"}, "FAT labels are ASCII", {{"fs", "ext4"}});
  CHECK(failed.error().code == Errc::usage);
  CHECK(error_text(failed.error()) == "--label=a?b: FAT labels are ASCII (try --fs=ext4)");
  CHECK(error_text(fail_option({"journal"}, "ext2 has none").error()) ==
        "--journal: ext2 has none");
}

TEST_CASE("a worded error says everything in its text, once") {
  const Error error = worded(fail_option({"size", "5"}, "too small", {{"", "more"}}).error());
  CHECK(error.what == "--size=5: too small (try more)");
  CHECK(error_text(error) == error.what);
  CHECK(error.code == Errc::usage);
}

TEST_CASE("hints of a line of the log are worded as those of an error") {
  const TempDir dir;
  const UniqueFd file(::open((dir / "log").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  WordedLog log(file.get(), LogLevel::info);
  log.write(LogLevel::info, "a client came");
  log.write_with_hints(LogLevel::warning, "a.tar goes on", std::vector<Setting>{{"ignore-zeros"}});
  log.write_with_hints(LogLevel::info, "a.tar ends", {});
  log.write_with_hints(LogLevel::debug, "nothing", std::vector<Setting>{{"ignore-zeros"}});
  CHECK(read_file(dir / "log") ==
        "mkvirtfs: a client came\n"
        "mkvirtfs: warning: a.tar goes on (try --ignore-zeros)\n"
        "mkvirtfs: a.tar ends\n");
}

}  // namespace
}  // namespace mkvirtfs::cli
