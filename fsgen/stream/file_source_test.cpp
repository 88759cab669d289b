// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/stream/file_source.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "fsgen/stream/spool.h"
#include "support/mutex.h"
#include "tests/support/collected_log.h"
#include "tests/support/hinted_text.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs {
namespace {

using mkvirtfs::testing::CollectedLog;

std::string read_text(ByteSource& source, std::uint64_t offset, std::size_t length) {
  std::string text(length, '?');
  const Result<void> result = source.read(offset, std::as_writable_bytes(std::span(text)));
  return result ? text : "error: " + result.error().what;
}

std::string read_pinned(const ContentStore::Pin& pin, std::uint64_t offset, std::size_t length) {
  std::string text(length, '?');
  const ssize_t count =
      ::pread(pin.file.fd(), text.data(), length, static_cast<off_t>(pin.file_offset + offset));
  text.resize(count < 0 ? 0 : static_cast<std::size_t>(count));
  return text;
}

void let_the_clock_tick() { std::this_thread::sleep_for(std::chrono::milliseconds(20)); }

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

TEST_CASE("a file source reads its file, and a window a part of it, also through pins") {
  const TempDir directory;
  const std::string path = (directory / "file").string();
  write_file(path, "0123456789");
  const auto source = open_file_source(path, OnChange::error, null_log());
  REQUIRE(source);
  CHECK((*source)->size_bytes() == 10);
  CHECK((*source)->name() == path);
  CHECK(read_text(**source, 3, 4) == "3456");
  CHECK(read_text(**source, 10, 0) == "");
  (*source)->fetch({0, 10});
  std::string text(4, '?');
  REQUIRE(*(*source)->read_at_once(6, std::as_writable_bytes(std::span(text))) == true);
  CHECK(text == "6789");

  const auto window = make_window(*source, {2, 5}, "a window");
  REQUIRE(window);
  const auto inner = make_window(*window, {1, 3}, "an inner one");
  REQUIRE(inner);
  CHECK((*inner)->size_bytes() == 3);
  CHECK((*inner)->name() == "an inner one");
  CHECK(read_text(**inner, 1, 2) == "45");
  CHECK((*inner)->is_at_hand({0, 3}));
  const auto pin = (*inner)->pin();
  REQUIRE(pin);
  CHECK(pin->file_offset == 3);
  CHECK(read_pinned(*pin, 0, 3) == "345");
  CHECK((*inner)->recheck(pin->file));
  let_the_clock_tick();
  write_file(path, "abcdefghij");
  CHECK(!(*inner)->recheck(pin->file));

  CHECK(make_window(*source, {10, 0}, "empty"));
  for (const Range range : {Range{11, 0}, Range{5, 6}, Range{1, ~std::uint64_t{0}}}) {
    const auto outside = make_window(*source, range, "outside");
    REQUIRE(!outside);
    CHECK(outside.error().code == Errc::unreadable);
  }
}

TEST_CASE("a file source sees every change, and answers as its rules say") {
  struct Change {
    const char* name;
    void (*make)(const std::string& path);
    std::string now;  // what its descriptor gives
  };
  const std::vector<Change> changes = {
      {"grown", [](const std::string& path) { write_file(path, "0123456789 and more"); },
       "0123456789"},
      {"truncated", [](const std::string& path) { std::filesystem::resize_file(path, 4); },
       std::string("0123\0\0\0\0\0\0", 10)},
      {"rewritten", [](const std::string& path) { write_file(path, "abcdefghij"); }, "abcdefghij"},
      {"deleted", [](const std::string& path) { std::filesystem::remove(path); }, "0123456789"},
      {"replaced",
       [](const std::string& path) {
         write_file(path + ".new", "abcdefghij");
         std::filesystem::rename(path + ".new", path);
       },
       "0123456789"},
      {"with other attributes", [](const std::string& path) { ::chmod(path.c_str(), 0600); },
       "0123456789"},
  };
  for (const Change& change : changes) {
    INFO(change.name);
    for (const OnChange on_change : {OnChange::error, OnChange::zero, OnChange::stale}) {
      const TempDir directory;
      const std::string path = (directory / "file").string();
      write_file(path, "0123456789");
      ::chmod(path.c_str(), 0644);
      CollectedLog log;
      const auto source = open_file_source(path, on_change, log);
      REQUIRE(source);
      CHECK(read_text(**source, 0, 10) == "0123456789");
      CHECK(log.lines().empty());
      let_the_clock_tick();
      change.make(path);
      std::string text(10, '?');
      const auto out = std::as_writable_bytes(std::span(text));
      for (int i = 0; i < 2; ++i) {
        const auto result = (*source)->read(0, out);
        const auto at_once = (*source)->read_at_once(0, out);
        const auto pin = (*source)->pin();
        if (on_change == OnChange::error) {
          REQUIRE((!result && !at_once && !pin));
          CHECK(result.error().code == Errc::source_changed);
          CHECK(at_once.error().code == Errc::source_changed);
          CHECK(pin.error().code == Errc::source_changed);
        } else {
          REQUIRE((result && at_once && pin));
          CHECK(!pin->file);
          CHECK(text == (on_change == OnChange::zero ? std::string(10, '\0') : change.now));
        }
      }
      REQUIRE(log.lines().size() == 1);
      CHECK(log.lines()[0].starts_with(path + " changed after it was opened: "));
    }
  }
}

TEST_CASE("what is no regular file is no file source") {
  const TempDir directory;
  CHECK(open_file_source((directory / "nothing").string(), OnChange::error, null_log())
            .error()
            .code == Errc::unreadable);
  CHECK(open_file_source(directory.path().string(), OnChange::error, null_log()).error().code ==
        Errc::unsupported);
  const std::string pipe = (directory / "pipe").string();
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  CHECK(open_file_source(pipe, OnChange::error, null_log()).error().what ==
        pipe + " is no regular file");
}

TEST_CASE("a spool gives back what was written, through pins, too, and leaves no name") {
  const TempDir directory;
  const auto space = std::make_shared<SpoolSpace>(directory.path().string(), 1000);
  SpoolWriter writer(space, "backup.7z");
  REQUIRE(writer.append(bytes_of("some ")));
  REQUIRE(writer.append(bytes_of("bytes")));
  CHECK(writer.size_bytes() == 10);
  CHECK(space->used_bytes() == 10);
  auto source = writer.finish();
  REQUIRE(source);
  CHECK((*source)->name() == "backup.7z");
  CHECK(read_text(**source, 3, 5) == "e byt");
  const auto pin = (*source)->pin();
  REQUIRE(pin);
  CHECK(read_pinned(*pin, 5, 5) == "bytes");
  CHECK((*source)->recheck(pin->file));
  CHECK(std::filesystem::is_empty(directory.path()));
  source->reset();
  CHECK(space->used_bytes() == 0);

  const auto empty = SpoolWriter(space, "empty").finish();
  REQUIRE(empty);
  CHECK((*empty)->size_bytes() == 0);
  CHECK(read_text(**empty, 0, 0) == "");
}

TEST_CASE("all spools together keep within their limit") {
  const auto space = std::make_shared<SpoolSpace>(fast_place().string(), 10);
  SpoolWriter a(space, "a");
  REQUIRE(a.append(bytes_of("1234567")));
  {
    SpoolWriter b(space, "b");
    REQUIRE(b.append(bytes_of("123")));
    const auto more = b.append(bytes_of("4"));
    REQUIRE(!more);
    CHECK(more.error().code == Errc::no_space);
    CHECK(hinted_text(more.error()) ==
          "b must be spooled, and all spools together may take 10 bytes [spool-limit]");
  }
  CHECK(a.append(bytes_of("890")));
  CHECK(!a.append(bytes_of("x")));
}

TEST_CASE("a spool's directory that is none is named with what helps") {
  SpoolWriter nowhere(std::make_shared<SpoolSpace>("/nowhere/at/all", 1000), "a");
  const auto result = nowhere.append(bytes_of("1"));
  REQUIRE(!result);
  CHECK(hinted_text(result.error()) ==
        "make a spool in /nowhere/at/all: No such file or directory [spool-dir]");
}

TEST_CASE("what the disk does not take is said with what helps") {
  // A limit on files stands for the full disk: it lets a part of the write through, too.
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  rlimit low = before;
  low.rlim_cur = 5000;
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &low) == 0);
  const std::string place = fast_place().string();
  const auto space = std::make_shared<SpoolSpace>(place, 100'000);
  Result<void> result;
  {
    SpoolWriter writer(space, "backup.7z");
    result = writer.append(bytes_of(std::string(8000, 'x')));
  }
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
  ::signal(SIGXFSZ, SIG_DFL);
  REQUIRE(!result);
  CHECK(result.error().code == Errc::no_space);
  CHECK(hinted_text(result.error()) ==
        "write the spool of backup.7z in " + place + ": File too large [spool-dir]");
  CHECK(space->used_bytes() == 0);
}

}  // namespace
}  // namespace mkvirtfs
