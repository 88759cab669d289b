// SPDX-License-Identifier: BSD-3-Clause
// A helper that does its job, and helpers that do not.
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "fsgen/helper/helper_process.h"
#include "fsgen/stream/testing/stream_data.h"
#include "support/unique_fd.h"
#include "tests/support/hinted_text.h"

namespace mkvirtfs::helper {
namespace {

using namespace std::chrono_literals;
using testing::MemorySource;

HelperSettings settings(std::chrono::milliseconds deadline = 60s) {
  return {.path = MKVIRTFS_TEST_HELPER,
          .memory_bytes = std::uint64_t{256} << 20,
          .progress_deadline = deadline};
}

class Collector final : public HelperSink {
 public:
  Result<void> records(std::span<const std::byte> bytes) override { return add(records_, bytes); }
  Result<void> data(std::span<const std::byte> bytes) override { return add(data_, bytes); }
  Result<void> restart() override {
    records_.clear();
    data_.clear();
    return {};
  }

  std::string records_;
  std::string data_;
  std::size_t most_bytes_ = std::size_t{64} << 20;

 private:
  Result<void> add(std::string& to, std::span<const std::byte> bytes) const {
    if (to.size() + bytes.size() > most_bytes_) return fail(Errc::no_space, "the sink is full");
    to.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return {};
  }
};

class LineLog final : public LogSink {
 public:
  void write(LogLevel level, std::string_view message) noexcept override {
    if (level == LogLevel::warning) lines.emplace_back(message);
  }
  std::vector<std::string> lines;
};

std::string text_of(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string error_of(const HelperSettings& how, std::string_view kind, std::size_t size = 100'000,
                     Errc code = Errc::unreadable) {
  MemorySource source(std::string(size, 's'), "the source");
  Collector sink;
  const auto last = run_in_helper(how, kind, {}, source, sink, null_log());
  REQUIRE_FALSE(last);
  CHECK(last.error().code == code);
  CHECK(last.error().what.find('\n') == std::string::npos);
  return hinted_text(last.error());
}

class FailingSource final : public ByteSource {
 public:
  std::uint64_t size_bytes() const noexcept override { return 10; }
  Result<void> read(std::uint64_t, std::span<std::byte>) override {
    return fail(Errc::source_changed, "the source has changed");
  }
  std::string name() const override { return "failing"; }
};

/// Not waited for by anybody is as good as gone.
bool is_alive(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string status;
  std::getline(file, status);
  return !status.empty() && status.find(") Z ") == std::string::npos;
}

}  // namespace

TEST_CASE("a helper reads its source, and its records, data and remarks arrive") {
  MemorySource source(testing::some_bytes(1'000'001, 1), "the source");
  Collector sink;
  LineLog log;
  const std::string job = "job";
  const auto last =
      run_in_helper(settings(), "copy", std::as_bytes(std::span(job)), source, sink, log);
  INFO((last ? "" : last.error().what));
  REQUIRE(last);
  CHECK(text_of(*last) == "job");
  CHECK(sink.data_ == source.bytes());
  CHECK(sink.records_ == "one two");
  CHECK(log.lines == std::vector<std::string>{"a remark about the source"});
}

TEST_CASE("errors of a helper, of its source and of the sink are those that come back") {
  CHECK(error_of(settings(), "fail", 10, Errc::does_not_fit) == "as it was told to");
  CHECK(error_of(settings(), "flood", 10, Errc::no_space) == "the sink is full");
  FailingSource source;
  Collector sink;
  const auto last = run_in_helper(settings(), "copy", {}, source, sink, null_log());
  REQUIRE_FALSE(last);
  CHECK(last.error().code == Errc::source_changed);
  CHECK(last.error().what == "the source has changed");
}

TEST_CASE("a helper that cannot be started is an error that names it") {
  HelperSettings how = settings();
  how.path = "/nowhere/mkvirtfs-reader";
  CHECK_THAT(error_of(how, "copy", 10, Errc::unsupported),
             Catch::Contains("/nowhere/mkvirtfs-reader") && Catch::Contains("the source") &&
                 Catch::Contains("No such file"));
  how.path.clear();
  CHECK_THAT(error_of(how, "copy", 10, Errc::unsupported), Catch::Contains("the source"));
}

TEST_CASE("a helper that makes no progress is ended at its deadline") {
  for (const char* kind : {"spin", "read for ever"}) {
    INFO(kind);
    const auto start = std::chrono::steady_clock::now();
    CHECK_THAT(error_of(settings(300ms), kind, 1'000'000),
               Catch::Contains("no progress for 300 ms"));
    CHECK(std::chrono::steady_clock::now() - start < 20s);
  }
}

TEST_CASE("a helper has the memory that it is given, and no more") {
#ifndef MKVIRTFS_SANITIZED
  rusage before{};
  ::getrusage(RUSAGE_CHILDREN, &before);
  CHECK_THAT(error_of(settings(), "take memory"),
             Catch::EndsWith("more than 256 MiB of memory to read [reader-memory]"));
  rusage after{};
  ::getrusage(RUSAGE_CHILDREN, &after);
  CHECK(after.ru_maxrss <= std::max(before.ru_maxrss, 320L << 10));
#endif
}

TEST_CASE("a helper that dies or talks nonsense is an error, and is gone") {
  CHECK_THAT(error_of(settings(), "die"), Catch::Contains("ended early"));
  CHECK_THAT(error_of(settings(), "exit"), Catch::Contains("ended early (exit status 7)"));
  for (const char* kind : {"read outside", "another type", "too long"}) {
    INFO(kind);
    CHECK_THAT(error_of(settings(), kind), Catch::Contains("invalid answer"));
  }
  // No child is left, in whatever state.
  CHECK(::waitpid(-1, nullptr, WNOHANG) == -1);
  CHECK(errno == ECHILD);
}

TEST_CASE("no other process sees a helper's secrets, and it sees no file of its parent") {
  const std::string secret = "open sesame 4711";
  const UniqueFd inherited(::dup(STDOUT_FILENO));
  MemorySource source("bytes", "the source");
  Collector sink;
  const auto last = run_in_helper(settings(), "facts", std::as_bytes(std::span(secret)), source,
                                  sink, null_log());
  INFO((last ? "" : last.error().what));
  REQUIRE(last);
  const std::string facts = text_of(*last);
  CHECK(facts.find(secret) == std::string::npos);
  CHECK_THAT(facts, Catch::Contains("\nopen 0 1 2\n"));
#ifndef MKVIRTFS_SANITIZED
  const std::uint64_t limit_bytes = std::stoull(facts.substr(std::string("memory ").size()));
  CHECK(limit_bytes > settings().memory_bytes);
  CHECK(limit_bytes < settings().memory_bytes + (std::uint64_t{64} << 20));
#endif
}

TEST_CASE("a helper ends with its parent") {
  std::array<int, 2> ends{};
  REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
  UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  struct PidSink final : HelperSink {
    explicit PidSink(int to) : fd(to) {}
    Result<void> records(std::span<const std::byte>) override { return {}; }
    Result<void> data(std::span<const std::byte> bytes) override {
      (void)!::write(fd, bytes.data(), bytes.size());
      return {};
    }
    Result<void> restart() override { return {}; }
    int fd;
  };
  const pid_t parent = ::fork();
  REQUIRE(parent >= 0);
  if (parent == 0) {
    MemorySource source("bytes", "the source");
    PidSink sink(writer.get());
    const auto ended = run_in_helper(settings(), "spin", {}, source, sink, null_log());
    std::_Exit(ended ? 0 : 1);
  }
  writer.reset();
  std::array<char, 32> text{};
  REQUIRE(::read(reader.get(), text.data(), text.size() - 1) > 0);
  const auto helper = static_cast<pid_t>(std::atol(text.data()));
  REQUIRE(helper > 1);
  CHECK(is_alive(helper));
  ::kill(parent, SIGKILL);
  ::waitpid(parent, nullptr, 0);
  for (int turn = 0; turn < 1000 && is_alive(helper); ++turn) std::this_thread::sleep_for(10ms);
  CHECK_FALSE(is_alive(helper));
}

}  // namespace mkvirtfs::helper
