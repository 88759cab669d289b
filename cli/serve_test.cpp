// SPDX-License-Identifier: BSD-3-Clause
// `mkvirtfs serve` as a process of its own, and clients that are not ours.
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <cstring>
#include <filesystem>
#include <regex>
#include <string>
#include <thread>
#include <vector>

#include "cli/testing/program.h"
#include "support/unique_fd.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs::cli {
namespace {

using testing::Outcome;
using testing::Process;
using Words = std::vector<std::string>;

/// A source, and a directory for everything that a server makes: it must be empty at the end.
struct Bench {
  Bench() {
    std::filesystem::create_directory(source.path() / "sub");
    write_file(source / "hello.txt", "Hello, world!\n");
    write_file(source / "sub/large", std::string(3'000'000, 'x'));
  }

  Process serve(Words words, Process::Variables variables = {}) const {
    words.insert(words.begin(), {"serve", source.path().string()});
    variables.emplace_back("TMPDIR", scratch.path().string());
    return Process(words, variables);
  }

  TempDir source;
  TempDir scratch;
};

UniqueFd connect_unix(const std::string& path) {
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  REQUIRE(path.size() < sizeof address.sun_path);
  std::memcpy(address.sun_path, path.data(), path.size());
  REQUIRE(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) ==
          0);
  return socket;
}

std::string socket_in(const std::string& uri) {
  std::smatch match;
  REQUIRE(std::regex_match(uri, match, std::regex(R"(nbd\+unix:///[^?]*\?socket=(.*))")));
  return match[1];
}

/// The server speaks first: NBDMAGIC IHAVEOPT.
void check_greeting(const UniqueFd& socket) {
  std::array<char, 16> greeting{};
  REQUIRE(::recv(socket.get(), greeting.data(), greeting.size(), MSG_WAITALL) == 16);
  CHECK(std::string(greeting.data(), greeting.size()) == "NBDMAGICIHAVEOPT");
}

void check_clean_end(Process& server) {
  const Outcome outcome = server.finish();
  CHECK(outcome.status == 0);
  CHECK(outcome.out.empty());
  CHECK(outcome.err.empty());
}

}  // namespace

TEST_CASE("a server prints its URI, serves, and ends clean at a signal") {
  const Bench bench;
  const int signal = GENERATE(SIGTERM, SIGINT);
  Process server = bench.serve({});
  const std::string path = socket_in(server.read_line());
  CHECK_THAT(path, Catch::StartsWith(bench.scratch.path().string()));
  const auto directory = std::filesystem::path(path).parent_path();
  CHECK(std::filesystem::status(directory).permissions() == std::filesystem::perms::owner_all);
  check_greeting(connect_unix(path));
  server.send(signal);
  check_clean_end(server);
  CHECK(std::filesystem::is_empty(bench.scratch.path()));
}

TEST_CASE("a server outlives the terminal it was started from") {
  const Bench bench;
  Process server = bench.serve({});
  const std::string path = socket_in(server.read_line());
  server.send(SIGHUP);
  check_greeting(connect_unix(path));
  server.send(SIGHUP);
  check_greeting(connect_unix(path));
  server.send(SIGTERM);
  check_clean_end(server);
}

TEST_CASE("every way to listen is printed, and nothing is left of it") {
  const Bench bench;
  const std::string path = (bench.scratch / "a socket").string();
  const std::string pid_file = (bench.scratch / "pid").string();
  Process server = bench.serve(
      {"-U", path, "-p", "0", "--listen=127.0.0.1:0", "-e", "the/name", "-P", pid_file, "-r"});
  const std::string unix_uri = server.read_line();
  CHECK_THAT(unix_uri, Catch::StartsWith("nbd+unix:///the/name?socket="));
  const std::regex tcp_uri(R"(nbd://(localhost|127\.0\.0\.1|\[::1\]):[1-9][0-9]*/the/name)");
  std::vector<std::string> uris = {server.read_line()};
  CHECK(std::regex_match(uris.back(), tcp_uri));
  // localhost may be two addresses, each with its own line; the last one is --listen's.
  uris.push_back(server.read_line());
  CHECK(std::regex_match(uris.back(), tcp_uri));
  check_greeting(connect_unix(path));
  CHECK(read_file(pid_file) == std::to_string(server.pid()) + "\n");
  for (const std::string& uri : uris) {
    const Outcome info = Process::of({"nbdinfo", "--size", uri}).finish();
    CAPTURE(uri, info.err);
    CHECK(info.status == 0);
  }
  server.send(SIGTERM);
  CHECK(server.finish().status == 0);
  CHECK(std::filesystem::is_empty(bench.scratch.path()));
}

TEST_CASE(
    "the command of --run has the URI in its environment, its output and its status are the "
    "program's") {
  const Bench bench;
  Process server = bench.serve(
      {"-p", "0", "-U", "-", "-e", "name", "--run",
       "echo \"$uri|$unixsocket|$port|$exportname\"; test -S \"$unixsocket\" && exit 7"},
      {{"port", "stale value"}});
  const Outcome outcome = server.finish();
  CHECK(outcome.status == 7);
  CHECK(outcome.err.empty());
  CHECK(std::regex_match(
      outcome.out,
      std::regex(R"(nbd\+unix:///name\?socket=(.*)\|/.*/socket\|[1-9][0-9]*\|name\n)")));
  CHECK(std::filesystem::is_empty(bench.scratch.path()));
}

TEST_CASE("a command that a signal ends, or that does not exist, has the shell's status") {
  const Bench bench;
  CHECK(bench.serve({"--run", "kill -KILL $$"}).finish().status == 128 + SIGKILL);
  CHECK(bench.serve({"--run", "no-such-program-here 2>/dev/null"}).finish().status == 127);
  CHECK(std::filesystem::is_empty(bench.scratch.path()));
}

TEST_CASE("a signal ends the command of --run too") {
  const Bench bench;
  Process server = bench.serve({"--run", "echo started; exec sleep 1000"});
  CHECK(server.read_line() == "started");
  server.send(SIGTERM);
  const auto start = std::chrono::steady_clock::now();
  CHECK(server.finish().status == 128 + SIGTERM);
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(5));
  CHECK(std::filesystem::is_empty(bench.scratch.path()));
}

TEST_CASE("a served image is the dumped one", "[law2]") {
  const Bench bench;
  const std::string format = GENERATE("ext2", "ext3", "ext4");
  const Outcome dumped = Process({"dump", bench.source.path().string(), "--fs=" + format,
                                  "--sha256", "-o", (bench.scratch / "disk.img").string()})
                             .finish();
  REQUIRE(dumped.status == 0);
  const Outcome served =
      bench.serve({"--fs=" + format, "--run", "nbdcopy \"$uri\" - | sha256sum | cut -c1-64"})
          .finish();
  CHECK(served.status == 0);
  REQUIRE(served.out.size() == 65);
  CHECK_THAT(dumped.out, Catch::Contains("\n" + served.out.substr(0, 64)));
}

TEST_CASE("a source that changes while it is served follows --on-change", "[law5]") {
  const Bench bench;
  const std::string large = (bench.source / "sub/large").string();
  const std::string copy = (bench.scratch / "copy").string();
  const std::string policy = GENERATE("error", "zero", "stale");
  // The sleep lets the clock of file times tick.
  const std::string command = "sleep 0.02; printf changed | dd of='" + large +
                              "' conv=notrunc status=none; nbdcopy \"$uri\" '" + copy + "'";
  const Outcome outcome =
      bench.serve({"--on-change", policy, "--run", command + " 2>/dev/null"}).finish();
  CAPTURE(policy, outcome.err);
  CHECK_THAT(outcome.err,
             Catch::StartsWith("mkvirtfs: warning: sub/large changed after it was scanned"));
  CHECK(std::ranges::count(outcome.err, '\n') == 1);
  CHECK((outcome.status == 0) == (policy != "error"));
  if (policy == "error") return;
  const std::string image = read_file(copy);
  CHECK((image.find("changedxxx") != std::string::npos) == (policy == "stale"));
  CHECK((image.find(std::string(2'999'993, 'x')) != std::string::npos) == (policy == "stale"));
  CHECK((image.find("xxxxxxxxxx") != std::string::npos) == (policy == "stale"));
}

TEST_CASE("an address in use is one line, and nothing is left behind") {
  const Bench bench;
  const std::string path = (bench.scratch / "socket").string();
  Process first = bench.serve({"-U", path, "--listen=127.0.0.1:0"});
  first.read_line();
  const std::string uri = first.read_line();
  const std::size_t colon = uri.rfind(':');
  const std::string port = uri.substr(colon + 1, uri.rfind('/') - colon - 1);
  for (const Words& words :
       {Words{"-U", path}, Words{"--listen=127.0.0.1:" + port},
        Words{"-U", (bench.scratch / "other").string(), "-P", (bench.scratch / "pid").string(),
              "--listen=127.0.0.1:" + port}}) {
    const Outcome outcome = bench.serve(words).finish();
    CAPTURE(outcome.err);
    CHECK(outcome.status == 1);
    CHECK(outcome.out.empty());
    CHECK(std::ranges::count(outcome.err, '\n') == 1);
  }
  CHECK(std::distance(std::filesystem::directory_iterator(bench.scratch.path()), {}) == 1);
  const Outcome too_long =
      bench.serve({"-U", (bench.scratch / std::string(100, 'x')).string()}).finish();
  CHECK(too_long.status == 2);
  CHECK(std::ranges::count(too_long.err, '\n') == 1);
  check_greeting(connect_unix(path));  // the first one is not disturbed
  first.send(SIGTERM);
  check_clean_end(first);
  CHECK(std::filesystem::is_empty(bench.scratch.path()));
}

TEST_CASE("sockets and pid files of a server inside its source are left out, and it is said so") {
  const Bench bench;
  const std::string inside = bench.source.path().string();
  const Words words = {"-U", inside + "/socket", "--ctl",    inside + "/ctl",
                       "-P", inside + "/pid",    "--fs=ext4"};
  write_file(bench.source / "pid", "999999999\n");  // of a run that was killed
  Process server = bench.serve(words);
  const std::string uri = server.read_line();
  const Outcome copied =
      Process::of({"nbdcopy", uri, (bench.scratch / "disk.img").string()}).finish();
  CAPTURE(copied.err);
  REQUIRE(copied.status == 0);
  const Outcome listed =
      Process::of({"debugfs", "-R", "ls -p /", (bench.scratch / "disk.img").string()},
                  {{"PATH", "/usr/sbin:/sbin:/usr/bin:/bin"}})
          .finish();
  for (const char* name : {"/socket/", "/ctl/", "/pid/"}) {
    CHECK_THAT(listed.out, !Catch::Contains(name));
  }
  CHECK_THAT(listed.out, Catch::Contains("lost+found"));
  server.send(SIGTERM);
  const Outcome ended = server.finish();
  CHECK(ended.status == 0);
  for (const char* name : {"/socket", "/ctl", "/pid"}) {
    CHECK_THAT(ended.err, Catch::Contains(inside + name + " lies in the source " + inside +
                                          " and is left out of the image"));
  }
}

TEST_CASE("a second server with the first one's pid file is refused, and the file stays") {
  const Bench bench;
  const std::string pid_file = (bench.scratch / "pid").string();
  Process first = bench.serve({"-P", pid_file});
  first.read_line();
  const Outcome second = bench.serve({"-P", pid_file}).finish();
  CHECK(second.status == 1);
  CHECK_THAT(second.err, Catch::Contains("pid file of a process that runs"));
  CHECK(read_file(pid_file) == std::to_string(first.pid()) + "\n");
  first.send(SIGTERM);
  check_clean_end(first);
  CHECK_FALSE(std::filesystem::exists(pid_file));
}

TEST_CASE("the service manager hears when clients can connect, and when they no longer can") {
  const Bench bench;
  const std::string path = (bench.scratch / "notify").string();
  const UniqueFd manager(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  REQUIRE(::bind(manager.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  const auto next = [&] {
    pollfd ready{manager.get(), POLLIN, 0};
    std::array<char, 100> text{};
    if (::poll(&ready, 1, 20'000) != 1) return std::string("nothing");
    const ssize_t got = ::recv(manager.get(), text.data(), text.size(), 0);
    return std::string(text.data(), got > 0 ? static_cast<std::size_t>(got) : 0);
  };
  Process server = bench.serve({}, {{"NOTIFY_SOCKET", path}});
  CHECK(next() == "READY=1");
  server.send(SIGTERM);
  CHECK(next() == "STOPPING=1");
  CHECK(server.finish().status == 0);
}

TEST_CASE("with --exit-with-parent it stops when the parent ends") {
  const Bench bench;
  // The shell ends as soon as the server is ready; the server must follow.
  const std::string script =
      "\"$0\" serve \"$1\" --exit-with-parent -P \"$2\" > /dev/null & "
      "until test -s \"$2\"; do sleep 0.01; done; cat \"$2\"";
  const std::string pid_file = (bench.scratch / "pid").string();
  Process shell =
      Process::of({"sh", "-c", script, MKVIRTFS_PROGRAM, bench.source.path().string(), pid_file},
                  {{"TMPDIR", bench.scratch.path().string()}});
  const Outcome outcome = shell.finish();
  REQUIRE(outcome.status == 0);
  for (int i = 0; i < 1000 && !std::filesystem::is_empty(bench.scratch.path()); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  CHECK(std::filesystem::is_empty(bench.scratch.path()));
}

}  // namespace mkvirtfs::cli
