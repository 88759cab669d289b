// SPDX-License-Identifier: BSD-3-Clause
#include "net/server_loop.h"

#include <sys/socket.h>

#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <chrono>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "net/testing/connect.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs::net {
namespace {

using namespace std::chrono_literals;

/// A front end of another protocol than NBD: each byte is answered with itself, but for
///
///     j   is answered by a job, with J
///     t   throws in the turn
///     d   sets a deadline of 50 ms, at which D is sent
///     q   ends the client
class EchoClient final : public ServedClient {
 public:
  explicit EchoClient(ServerLoop::Arrival arrival, std::atomic<int>& removed)
      : socket_(std::move(arrival.socket)), removed_(removed) {}

  int fd() const noexcept override { return socket_.get(); }
  Clock::time_point first_deadline() const noexcept override { return deadline_; }

  Wants turn(Patience) override {
    if (Clock::now() >= deadline_) {
      deadline_ = Clock::time_point::max();
      send('D');
    }
    char byte = 0;
    while (!ended_ && !cut_) {
      const ssize_t count = ::recv(socket_.get(), &byte, 1, MSG_DONTWAIT);
      if (count < 0 && errno == EAGAIN) break;
      if (count <= 0) ended_ = true;
      if (count > 0) answer(byte);
    }
    ended_ = ended_ || cut_;
    if (ended_) ::shutdown(socket_.get(), SHUT_RDWR);
    return {.read = !ended_, .ended = ended_, .is_served = is_served_, .deadline = deadline_};
  }
  std::shared_ptr<LaneTask> take_job() override { return std::exchange(job_, nullptr); }
  void job_done(const std::shared_ptr<LaneTask>& job) override {
    if (static_cast<const EchoJob&>(*job).has_run) send('J');
  }
  void trim() override {}
  void begin_shutdown() noexcept override { ::shutdown(socket_.get(), SHUT_RD); }
  void cut() noexcept override { cut_ = true; }
  void removed() noexcept override { ++removed_; }

 private:
  struct EchoJob final : LaneTask {
    void run() noexcept override { has_run = true; }
    LaneKey lane() const override { return {this, ""}; }
    bool has_run = false;
  };

  void send(char byte) { ::send(socket_.get(), &byte, 1, MSG_NOSIGNAL); }
  void answer(char byte) {
    is_served_ = true;
    if (byte == 'j') {
      job_ = std::make_shared<EchoJob>();
    } else if (byte == 't') {
      throw std::runtime_error("thrown");
    } else if (byte == 'd') {
      deadline_ = Clock::now() + 50ms;
    } else if (byte == 'q') {
      ended_ = true;
    } else {
      send(byte);
    }
  }

  UniqueFd socket_;
  std::atomic<int>& removed_;
  std::atomic<bool> cut_ = false;
  bool ended_ = false;
  bool is_served_ = false;
  Clock::time_point deadline_ = Clock::time_point::max();
  std::shared_ptr<LaneTask> job_;
};

/// A loop with a Unix socket, whose run() has a thread of its own.
class Running {
 public:
  explicit Running(ServerLoopOptions options = {}) {
    auto made = ServerLoop::create(
        [this](ServerLoop::Arrival arrival) {
          return std::make_unique<EchoClient>(std::move(arrival), removed);
        },
        std::move(options));
    REQUIRE(made);
    loop = *std::move(made);
    auto listener = Listener::on_unix(path());
    REQUIRE(listener);
    const Result<void> added = loop->add_listener(*std::move(listener));
    REQUIRE(added);
    thread_ = std::thread([this] { loop->run(); });
  }
  ~Running() {
    loop->request_stop();
    thread_.join();
  }

  std::string path() const { return (directory_ / "socket").string(); }
  UniqueFd connect() const {
    UniqueFd socket = testing::connect_unix(path());
    const timeval patience{10, 0};
    ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return socket;
  }
  void join_without_stop() {
    thread_.join();
    thread_ = std::thread([] {});
  }

  std::atomic<int> removed = 0;
  std::unique_ptr<ServerLoop> loop;

 private:
  const TempDir directory_;
  std::thread thread_;
};

void send(const UniqueFd& socket, std::string_view text) {
  REQUIRE(::send(socket.get(), text.data(), text.size(), MSG_NOSIGNAL) ==
          static_cast<ssize_t>(text.size()));
}

/// So many bytes, or those before the end.
std::string receive(const UniqueFd& socket, std::size_t count) {
  std::string text(count, '\0');
  const ssize_t got = ::recv(socket.get(), text.data(), count, MSG_WAITALL);
  text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  return text;
}

std::string ask(const UniqueFd& socket, std::string_view text) {
  send(socket, text);
  return receive(socket, text.size());
}

}  // namespace

TEST_CASE("a loop serves a protocol that it does not know", "[server_loop]") {
  Running running;
  const UniqueFd one = running.connect();
  const UniqueFd other = running.connect();
  CHECK(ask(one, "hello") == "hello");
  CHECK(ask(other, "x") == "x");
  CHECK(ask(one, "aj") == "aJ");
  CHECK(running.loop->counts().open == 2);
  send(one, "q");
  CHECK(receive(one, 1).empty());
  CHECK(ask(other, "again") == "again");
}

TEST_CASE("what a turn throws ends that client alone", "[server_loop]") {
  Running running;
  const UniqueFd one = running.connect();
  const UniqueFd other = running.connect();
  CHECK(ask(other, "a") == "a");
  send(one, "t");
  while (running.removed == 0) std::this_thread::sleep_for(1ms);
  CHECK(ask(other, "b") == "b");
  CHECK(running.removed == 1);
}

TEST_CASE("a deadline that a turn sets is kept", "[server_loop]") {
  Running running;
  const UniqueFd client = running.connect();
  send(client, "d");
  CHECK(receive(client, 1) == "D");
}

TEST_CASE("a loop refuses what is beyond its limit, and what its filter refuses", "[server_loop]") {
  SECTION("the limit") {
    ServerLoopOptions options;
    options.most_connections = 1;
    Running running(std::move(options));
    const UniqueFd one = running.connect();
    CHECK(ask(one, "a") == "a");
    CHECK(receive(running.connect(), 1).empty());
    const ServerLoop::Counts counts = running.loop->counts();
    CHECK(counts.open == 1);
    CHECK(counts.total == 1);
    CHECK(counts.refused == 1);
  }
  SECTION("the filter") {
    ServerLoopOptions options;
    options.admits = [](const Peer& peer) { return peer.kind != Peer::Kind::unix_socket; };
    Running running(std::move(options));
    CHECK(receive(running.connect(), 1).empty());
    CHECK(running.loop->counts().refused == 1);
  }
}

TEST_CASE("a loop ends when its last client that was served has gone", "[server_loop]") {
  ServerLoopOptions options;
  options.stop_after_last = 0ms;
  Running running(std::move(options));
  {
    const UniqueFd unserved = running.connect();
  }
  const UniqueFd client = running.connect();
  CHECK(ask(client, "a") == "a");
  send(client, "q");
  running.join_without_stop();
  CHECK(running.loop->counts().open == 0);
}

TEST_CASE("a client that cannot be made is an error, and leaves its seat", "[server_loop]") {
  ServerLoopOptions options;
  options.most_connections = 1;
  const auto loop = ServerLoop::create(
      [](const ServerLoop::Arrival&) -> std::unique_ptr<ServedClient> { throw std::bad_alloc(); },
      std::move(options));
  REQUIRE(loop);
  for (int i = 0; i < 2; ++i) {
    std::array<int, 2> pair{};
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) == 0);
    const UniqueFd far(pair[1]);
    const Result<void> adopted = (*loop)->adopt(UniqueFd(pair[0]));
    REQUIRE_FALSE(adopted);
    CHECK(adopted.error().what == "out of memory: serve a client");
  }
}

}  // namespace mkvirtfs::net
