// SPDX-License-Identifier: BSD-3-Clause
#include "support/open_file.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "support/mutex.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs {
namespace {

using namespace std::chrono_literals;

class Lines final : public LogSink {
 public:
  void write(LogLevel, std::string_view message) noexcept override {
    const MutexLock lock(mutex_);
    lines_.emplace_back(message);
  }
  std::vector<std::string> get() {
    const MutexLock lock(mutex_);
    return lines_;
  }

 private:
  Mutex mutex_;
  std::vector<std::string> lines_ GUARDED_BY(mutex_);
};

std::string make_fifo(const TempDir& dir) {
  std::string path = (dir / "fifo").string();
  REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
  return path;
}

}  // namespace

TEST_CASE("a FIFO, a socket or a device in place of a regular file is refused at once") {
  const TempDir dir;
  const std::string fifo = make_fifo(dir);
  const std::string socket = (dir / "socket").string();
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  socket.copy(address.sun_path, sizeof address.sun_path - 1);
  const UniqueFd bound(::socket(AF_UNIX, SOCK_STREAM, 0));
  REQUIRE(::bind(bound.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  struct Other {
    std::string path;
    std::string_view kind;
  };
  for (const Other& other :
       {Other{fifo, "a FIFO"}, Other{socket, "a socket"}, Other{"/dev/null", "a character device"},
        Other{dir.path().string(), "a directory"}}) {
    for (const int flags : {O_RDONLY, O_WRONLY, O_RDWR}) {
      CAPTURE(other.path, flags);
      const Result<UniqueFd> opened = open_regular_file(other.path, flags, "read " + other.path);
      REQUIRE_FALSE(opened);
      if (opened.error().os_errno == EISDIR) continue;  // for writing
      CHECK(opened.error().what ==
            "read " + other.path + ": it is not a regular file but " + std::string(other.kind));
    }
  }
  const Result<UniqueFd> none = open_regular_file((dir / "none").string(), O_RDONLY, "open it");
  REQUIRE_FALSE(none);
  CHECK(none.error().os_errno == ENOENT);
  write_file(dir / "file", "text");
  CHECK(open_regular_file((dir / "file").string(), O_RDONLY, "open it"));
  CHECK(open_regular_file((dir / "new").string(), O_WRONLY | O_CREAT, "make it", 0600));
}

TEST_CASE(
    "a pipe is read to its end, though its writer comes late; one line says what is awaited") {
  const TempDir dir;
  const std::string path = make_fifo(dir);
  Lines lines;
  Result<PipeReader> reader = PipeReader::open(path, {&lines, nullptr});
  REQUIRE(reader);
  std::jthread writer([&] {
    std::this_thread::sleep_for(1300ms);
    const UniqueFd fd(::open(path.c_str(), O_WRONLY));
    for (const char* part : {"one ", "two"}) {
      [[maybe_unused]] const ssize_t count = ::write(fd.get(), part, std::string_view(part).size());
      std::this_thread::sleep_for(100ms);
    }
  });
  std::string text;
  std::array<std::byte, 16> some;
  while (true) {
    const Result<std::size_t> count = reader->read(some);
    REQUIRE(count);
    if (*count == 0) break;
    text.append(reinterpret_cast<const char*>(some.data()), *count);
  }
  CHECK(text == "one two");
  const std::vector<std::string> said = lines.get();
  REQUIRE(said.size() == 1);
  CHECK(said[0] == "waiting for " + path + ": nobody writes to it");
}

TEST_CASE("the wait for a pipe's other end can be cancelled") {
  const TempDir dir;
  const std::string path = make_fifo(dir);
  std::atomic<bool> cancel = false;
  const PipeWait wait{&null_log(), &cancel};
  std::jthread canceller([&] {
    std::this_thread::sleep_for(100ms);
    cancel = true;
  });
  Result<PipeReader> reader = PipeReader::open(path, wait);
  REQUIRE(reader);
  std::array<std::byte, 16> some;
  const Result<std::size_t> count = reader->read(some);
  REQUIRE_FALSE(count);
  CHECK(count.error().os_errno == ECANCELED);
  // With a reader it opens at once; without one it gives up as well.
  CHECK(open_pipe_to_write(path, wait));
  *reader = PipeReader(-1, "none", wait);
  const Result<UniqueFd> output = open_pipe_to_write(path, wait);
  REQUIRE_FALSE(output);
  CHECK(output.error().os_errno == ECANCELED);
}

}  // namespace mkvirtfs
