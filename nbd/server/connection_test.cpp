// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/server/connection.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <catch2/catch.hpp>
#include <deque>
#include <thread>

#include "block/testing/extent_device.h"
#include "block/testing/memory_device.h"
#include "nbd/server/testing/socket_client.h"

// A connection in a poll loop of the test's own, on the test's own thread.

namespace mkvirtfs::nbd {
namespace {

using namespace std::chrono_literals;
using testing::Answer;
using testing::Bytes;
using testing::ExtentDevice;
using testing::FileStore;
using testing::MemoryDevice;
using testing::pattern_bytes;
using testing::SocketClient;

struct SocketPair {
  UniqueFd ours;
  UniqueFd theirs;
};

SocketPair make_pair() {
  int fds[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
  return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

/// Drives a connection until it ends. Jobs are done after the next poll, as others might do them.
void drive(Connection& connection) {
  std::deque<std::shared_ptr<Job>> jobs;
  while (!connection.ended()) {
    pollfd polled{connection.fd(), 0, 0};
    if (connection.want_read()) polled.events |= POLLIN;
    if (connection.want_write()) polled.events |= POLLOUT;
    int timeout_ms = 10'000;
    if (const auto deadline = connection.deadline()) {
      timeout_ms = static_cast<int>(
          std::chrono::ceil<std::chrono::milliseconds>(*deadline - Connection::Clock::now())
              .count());
    }
    if (!jobs.empty()) timeout_ms = 0;
    const int ready = ::poll(&polled, 1, std::max(timeout_ms, 0));
    REQUIRE((ready > 0 || !jobs.empty() || connection.deadline()));
    if (!jobs.empty()) {
      jobs.front()->run();
      connection.job_done(jobs.front());
      jobs.pop_front();
    }
    connection.on_ready();
    while (auto job = connection.take_job()) jobs.push_back(std::move(job));
  }
}

}  // namespace

TEST_CASE("a foreign poll loop serves a client", "[connection][L7]") {
  const auto device = std::make_shared<MemoryDevice>(pattern_bytes(48 << 20));
  const auto tree = *make_single_export(device, "disk");
  SocketPair pair = make_pair();
  Connection connection(std::move(pair.ours), *tree, {});
  std::thread other([&] {
    SocketClient client(std::move(pair.theirs));
    client.handshake(true);
    for (std::uint64_t i = 0; i < 100; ++i) {
      const Answer answer = client.read(i * 4096, 4096);
      if (!std::ranges::equal(answer.data, std::span(device->bytes()).subspan(i * 4096, 4096))) {
        FAIL("wrong bytes");
      }
    }
    // More than any socket takes at once.
    const Request large{0, Command::read, 7, 1 << 20, 32 << 20};
    for (int i = 0; i < 3; ++i) client.send_request(large);
    std::this_thread::sleep_for(20ms);
    for (int i = 0; i < 3; ++i) {
      if (client.receive_answer(large).data.size() != large.length) FAIL("too short");
    }
    client.send_request({0, Command::disc, 8, 0, 0});
  });
  drive(connection);
  other.join();
  CHECK(connection.end_reason().empty());
}

TEST_CASE("a foreign loop gets no signal from a client that hangs up", "[connection][L7]") {
  struct sigaction before{};
  ::sigaction(SIGPIPE, nullptr, &before);
  REQUIRE(before.sa_handler == SIG_DFL);
  const UniqueFd file(::memfd_create("nbd-test", MFD_CLOEXEC));
  REQUIRE(::ftruncate(file.get(), 32 << 20) == 0);
  const auto device = std::make_shared<ExtentDevice>();
  device->content(std::make_shared<FileStore>(fmt::format("/proc/self/fd/{}", file.get())),
                  ContentNo{0}, 0, 32 << 20);
  const auto tree = *make_single_export(device, "disk");
  for (int i = 0; i < 5; ++i) {
    SocketPair pair = make_pair();
    Connection connection(std::move(pair.ours), *tree, {});
    std::thread other([&] {
      SocketClient client(std::move(pair.theirs));
      client.handshake(true);
      client.send_request({0, Command::read, 1, 0, 32 << 20});
      client.receive(100);
    });
    drive(connection);
    other.join();
    CHECK_FALSE(connection.end_reason().empty());
  }
}

TEST_CASE("a connection gives its loop the deadline of the handshake", "[connection][O10]") {
  const auto tree = *make_single_export(std::make_shared<MemoryDevice>(pattern_bytes(4096)));
  SocketPair pair = make_pair();
  ConnectionOptions options;
  options.handshake_timeout = 50ms;
  const auto start = Connection::Clock::now();
  Connection connection(std::move(pair.ours), *tree, options);
  REQUIRE(connection.deadline());
  drive(connection);
  CHECK(Connection::Clock::now() - start >= 50ms);
  CHECK(connection.end_reason().find("handshake") != std::string::npos);
  CHECK_FALSE(connection.deadline());
}

TEST_CASE("a handshake without a deadline may take for ever", "[connection][O10]") {
  const auto tree = *make_single_export(std::make_shared<MemoryDevice>(pattern_bytes(4096)));
  SocketPair pair = make_pair();
  ConnectionOptions options;
  options.handshake_timeout = 0ms;
  Connection connection(std::move(pair.ours), *tree, options);
  connection.on_ready();
  CHECK_FALSE(connection.ended());
  CHECK_FALSE(connection.deadline());
}

TEST_CASE("TCP looks whether a silent client is still there", "[connection]") {
  const UniqueFd listening(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  REQUIRE(::bind(listening.get(), reinterpret_cast<sockaddr*>(&address), length) == 0);
  REQUIRE(::listen(listening.get(), 1) == 0);
  REQUIRE(::getsockname(listening.get(), reinterpret_cast<sockaddr*>(&address), &length) == 0);
  const SocketClient client = SocketClient::on_loopback(AF_INET, ntohs(address.sin_port));
  const auto tree = *make_single_export(std::make_shared<MemoryDevice>(pattern_bytes(4096)));
  const Connection connection(UniqueFd(::accept4(listening.get(), nullptr, nullptr, SOCK_CLOEXEC)),
                              *tree, {});
  const auto option = [&](int level, int name) {
    int value = -1;
    socklen_t bytes = sizeof value;
    CHECK(::getsockopt(connection.fd(), level, name, &value, &bytes) == 0);
    return value;
  };
  CHECK(option(SOL_SOCKET, SO_KEEPALIVE) == 1);
  // Gone for two minutes at most before it is noticed.
  CHECK(option(IPPROTO_TCP, TCP_KEEPIDLE) +
            option(IPPROTO_TCP, TCP_KEEPINTVL) * option(IPPROTO_TCP, TCP_KEEPCNT) <=
        120);
  CHECK(option(IPPROTO_TCP, TCP_NODELAY) == 1);
}

TEST_CASE("a connection can be cut and shut down from outside", "[connection]") {
  const auto tree = *make_single_export(std::make_shared<MemoryDevice>(pattern_bytes(4096)));
  SocketPair pair = make_pair();
  Connection connection(std::move(pair.ours), *tree, {});
  connection.on_ready();
  CHECK(connection.want_read());
  CHECK_FALSE(connection.ended());
  SECTION("cut") { connection.cut(); }
  SECTION("shut down") { connection.begin_shutdown(); }
  connection.on_ready();
  CHECK(connection.ended());
  CHECK_FALSE(connection.want_read());
  CHECK_FALSE(connection.want_write());
}

}  // namespace mkvirtfs::nbd
