// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/server/server.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

// Behind sys/socket.h, which it needs.
#include <linux/vm_sockets.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <optional>
#include <random>
#include <stdexcept>
#include <string_view>
#include <thread>

#include "block/host_files.h"
#include "block/overlay/overlay.h"
#include "block/testing/computed_extent.h"
#include "block/testing/directory_table.h"
#include "block/testing/extent_device.h"
#include "block/testing/gated_device.h"
#include "block/testing/memory_device.h"
#include "block/testing/waiting_file_system.h"
#include "nbd/server/testing/socket_client.h"
#include "net/listener.h"
#include "tests/support/temp_dir.h"

namespace mkvirtfs::nbd {
namespace {

using namespace std::chrono_literals;
using testing::Answer;
using testing::Bytes;
using testing::ExtentDevice;
using testing::FileStore;
using testing::GatedDevice;
using testing::MemoryDevice;
using testing::pattern_bytes;
using testing::SocketClient;
using Clock = std::chrono::steady_clock;

std::size_t entries_of(const char* directory) {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(directory)) ++count;
  return count;
}
std::size_t open_descriptors() { return entries_of("/proc/self/fd"); }
std::size_t threads() { return entries_of("/proc/self/task"); }

/// Whether `condition` comes true within five seconds.
template <class Condition>
bool soon(Condition&& condition) {
  for (const auto until = Clock::now() + 5s; Clock::now() < until;) {
    if (condition()) return true;
    std::this_thread::sleep_for(2ms);
  }
  return condition();
}

class LogOfTest final : public LogSink {
 public:
  void write(LogLevel level, std::string_view message) noexcept override {
    const std::lock_guard lock(mutex_);
    lines_.emplace_back(level, message);
  }
  /// The lines of that level so far.
  std::vector<std::string> lines(LogLevel level) {
    const std::lock_guard lock(mutex_);
    std::vector<std::string> result;
    for (const auto& [its_level, line] : lines_) {
      if (its_level == level) result.push_back(line);
    }
    return result;
  }

 private:
  std::mutex mutex_;
  std::vector<std::pair<LogLevel, std::string>> lines_;
};

/// Runs a server on a thread of its own. What it returned is checked by join(), on the test's
/// thread: Catch2 cannot make assertions on two threads at once.
class ServerThread {
 public:
  explicit ServerThread(Server& server)
      : server_(server), thread_([this] {
          result_ = server_.run();
          ended_ = true;
        }) {}
  ~ServerThread() {
    if (!thread_.joinable()) return;
    server_.request_stop();
    thread_.join();
  }
  bool ended() const noexcept { return ended_; }
  void join() {
    thread_.join();
    CHECK(result_);
  }

 private:
  Server& server_;
  Result<void> result_;
  std::atomic<bool> ended_ = false;
  std::thread thread_;
};

/// A server that runs on a thread of its own, with a socket.
class RunningServer {
 public:
  explicit RunningServer(std::shared_ptr<BlockDevice> device, ServerOptions options = {})
      : RunningServer(*make_single_export(std::move(device), "disk"), options) {}
  explicit RunningServer(std::shared_ptr<ExportTree> tree, ServerOptions options = {})
      : server_(*Server::create(std::move(tree), options)),
        path_((directory_ / "socket").native()) {
    REQUIRE(server_->listen_unix(path_));
    thread_.emplace(*server_);
  }
  ~RunningServer() {
    if (thread_) stop();
  }

  SocketClient connect() { return SocketClient::on_unix(path_); }
  SocketClient ready_client(bool structured = true) {
    SocketClient client = connect();
    client.handshake(structured);
    return client;
  }
  /// How long the server took to stop.
  Clock::duration stop() {
    const auto start = Clock::now();
    server_->request_stop();
    thread_->join();
    thread_.reset();
    return Clock::now() - start;
  }
  Server& operator*() { return *server_; }
  Server* operator->() { return server_.get(); }
  const std::string& path() const { return path_; }

 private:
  TempDir directory_;
  std::unique_ptr<Server> server_;
  std::string path_;
  std::optional<ServerThread> thread_;
};

std::shared_ptr<MemoryDevice> memory_device(std::size_t size) {
  return std::make_shared<MemoryDevice>(pattern_bytes(size));
}

Bytes part_of(const MemoryDevice& device, std::size_t offset, std::size_t length) {
  const auto from = device.bytes().begin() + static_cast<std::ptrdiff_t>(offset);
  return {from, from + static_cast<std::ptrdiff_t>(length)};
}

std::uint16_t port_of(const std::string& uri) {
  const std::size_t colon = uri.rfind(':');
  return static_cast<std::uint16_t>(std::stoi(uri.substr(colon + 1)));
}

/// A memfd that FileStore can open.
struct MemoryFile {
  explicit MemoryFile(std::span<const std::byte> bytes)
      : fd(::memfd_create("nbd-test", MFD_CLOEXEC)) {
    REQUIRE(::pwrite(fd.get(), bytes.data(), bytes.size(), 0) ==
            static_cast<ssize_t>(bytes.size()));
  }
  std::string path() const { return fmt::format("/proc/self/fd/{}", fd.get()); }
  UniqueFd fd;
};

/// Computed bytes, counting how many were asked for; optionally it waits at a gate.
class CountingDevice final : public BlockDevice {
 public:
  explicit CountingDevice(std::uint64_t size) { geometry_.size_bytes = size; }
  const Geometry& geometry() const noexcept override { return geometry_; }
  bool may_wait(DeviceCall, Range) const override { return false; }
  Result<void> read(std::uint64_t offset, std::span<std::byte> out) override {
    if (throws) throw std::runtime_error("the device is out of its mind");
    bytes_read += out.size();
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = ExtentDevice::computed_byte(offset + i);
    return {};
  }
  void map(Range range, ExtentSink& sink) const override {
    mkvirtfs::testing::map_computed(range, sink);
  }
  std::atomic<std::uint64_t> bytes_read = 0;
  std::atomic<bool> throws = false;

 private:
  Geometry geometry_;
};

/// A session as a client would have it: everything it sends, in one piece.
Bytes recorded_session() {
  Bytes session = testing::client_flags();
  session += testing::option(Option::list);
  session += testing::option(12345, Bytes(40));
  session += testing::option(Option::structured_reply);
  session += testing::option(Option::set_meta_context, testing::meta_data("", {"base:allocation"}));
  session += testing::option(Option::go, testing::info_data("", {1, 2, 3}));
  session += testing::request(Command::read, 1, 0, 100'000);
  session += testing::request(Command::block_status, 2, 0, 1 << 20);
  session += testing::request(Command::write, 3, 0, 50);
  session += Bytes(50);
  session += testing::request(Command::read, 4, 0, 1 << 20);
  session += testing::request(Command::disc, 5, 0, 0);
  return session;
}

}  // namespace

// --- Transports ----------------------------------------------------------------------------------

TEST_CASE("a client on a Unix socket is served", "[server]") {
  const auto device = memory_device(3 << 20);
  RunningServer server(device);
  const bool structured = GENERATE(true, false);
  SocketClient client = server.ready_client(structured);
  CHECK(client.read(100, 5000).data == part_of(*device, 100, 5000));
  CHECK(client.read(0, 3 << 20).data == part_of(*device, 0, 3 << 20));
  CHECK(client.read(3 << 20, 1).is(WireError::inval));
  CHECK(server->connection_count() == 1);
  client.send_request({0, Command::disc, 1, 0, 0});
  CHECK(client.receive_rest().empty());
  CHECK(soon([&] { return server->connection_count() == 0; }));
}

TEST_CASE("TCP listeners have true URIs, also when the kernel chose the port", "[server]") {
  const auto device = memory_device(1 << 20);
  auto server = *Server::create(*make_single_export(device, "disk"));
  const auto [host, family, shown] = GENERATE(table<std::string, int, std::string>({
      {"127.0.0.1", AF_INET, "127.0.0.1"},
      {"0.0.0.0", AF_INET, "127.0.0.1"},
      {"::1", AF_INET6, "[::1]"},
      {"::", AF_INET6, "[::1]"},
  }));
  CAPTURE(host);
  const Result<void> listening = server->listen_tcp(host, 0);
  if (!listening && family == AF_INET6) {
    WARN("no IPv6 here: " << listening.error().what);
    return;
  }
  REQUIRE(listening);
  REQUIRE(server->uris().size() == 1);
  const std::uint16_t port = port_of(server->uris()[0]);
  CHECK(port != 0);
  CHECK(server->uris("a disk/50%")[0] == fmt::format("nbd://{}:{}/a%20disk/50%25", shown, port));
  ServerThread runner(*server);
  {
    SocketClient client = SocketClient::on_loopback(family, port);
    client.handshake(true);
    CHECK(client.read(0, 1 << 20).data == device->bytes());
  }
  server->request_stop();
  runner.join();
}

TEST_CASE("a name with several addresses gives one port to all of them", "[server]") {
  auto server = *Server::create(*make_single_export(memory_device(512)));
  REQUIRE(server->listen_tcp("localhost", 0));
  const auto uris = server->uris();
  REQUIRE_FALSE(uris.empty());
  for (const std::string& uri : uris) CHECK(port_of(uri) == port_of(uris[0]));
}

TEST_CASE("a port in use and a host that is none are errors of one line", "[server]") {
  auto server = *Server::create(*make_single_export(memory_device(512)));
  REQUIRE(server->listen_tcp("127.0.0.1", 0));
  const std::uint16_t port = port_of(server->uris()[0]);
  const auto again = server->listen_tcp("127.0.0.1", port);
  REQUIRE_FALSE(again);
  CHECK_THAT(again.error().what, Catch::Contains(fmt::format("127.0.0.1 port {}", port)));
  const std::string host =
      GENERATE(as<std::string>(), "", "no such host.invalid", "300.1.1.1", "a\nb");
  const auto failed = server->listen_tcp(host, 0);
  REQUIRE_FALSE(failed);
  // The line feed of the last one is in the error as it is, once; what prints it escapes it.
  CHECK(std::ranges::count(failed.error().what, '\n') == std::ranges::count(host, '\n'));
  CHECK(server->uris().size() == 1);
}

TEST_CASE("several listeners serve at once", "[server]") {
  const auto device = memory_device(1 << 20);
  const TempDir directory;
  auto server = *Server::create(*make_single_export(device));
  REQUIRE(server->listen_unix((directory / "one").native()));
  REQUIRE(server->listen_tcp("127.0.0.1", 0));
  REQUIRE(server->listen_unix((directory / "two %").native()));
  const auto uris = server->uris();
  REQUIRE(uris.size() == 3);
  CHECK(uris[0] == "nbd+unix:///?socket=" + (directory / "one").native());
  CHECK(uris[2] == "nbd+unix:///?socket=" + (directory / "two").native() + "%20%25");
  ServerThread runner(*server);
  {
    SocketClient one = SocketClient::on_unix((directory / "one").native());
    SocketClient two = SocketClient::on_unix((directory / "two %").native());
    SocketClient tcp = SocketClient::on_loopback(AF_INET, port_of(uris[1]));
    for (SocketClient* client : {&one, &two, &tcp}) client->handshake(true);
    for (SocketClient* client : {&one, &two, &tcp}) {
      CHECK(client->read(5, 5000).data == part_of(*device, 5, 5000));
    }
  }
  server->request_stop();
  runner.join();
  CHECK_FALSE(std::filesystem::exists((directory / "one").native()));
  CHECK_FALSE(std::filesystem::exists((directory / "two %").native()));
}

TEST_CASE("paths that cannot be sockets are refused", "[server]") {
  const TempDir directory;
  auto server = *Server::create(*make_single_export(memory_device(512)));
  const auto error_of = [&](const std::string& path) {
    const auto result = server->listen_unix(path);
    REQUIRE_FALSE(result);
    CHECK(result.error().what.find('\n') == std::string::npos);
    return result.error();
  };
  CHECK(error_of("").code == Errc::usage);
  CHECK(error_of(std::string("a\0b", 3)).code == Errc::usage);
  const std::string longest =
      (directory / std::string(107 - (directory / "").native().size(), 'x')).native();
  REQUIRE(longest.size() == 107);
  CHECK_THAT(error_of(longest + "x").what, Catch::Contains("108 bytes") && Catch::Contains("107"));
  CHECK(error_of(longest + "x").code == Errc::usage);
  CHECK(server->listen_unix(longest));
  CHECK_THAT(error_of((directory / "no/such/directory").native()).what,
             Catch::Contains("No such file or directory"));

  std::ofstream((directory / "plain").native()) << "precious";
  CHECK_THAT(error_of((directory / "plain").native()).what, Catch::Contains("not a socket"));
  CHECK(std::filesystem::file_size((directory / "plain").native()) == 8);
  std::filesystem::create_symlink("/nowhere", (directory / "link").native());
  CHECK_THAT(error_of((directory / "link").native()).what, Catch::Contains("not a socket"));
}

TEST_CASE("the socket of a live server is left alone, that of a dead one replaced", "[server]") {
  const TempDir directory;
  const std::string path = (directory / "socket").native();
  const auto tree = *make_single_export(memory_device(512));
  SECTION("live") {
    auto first = *Server::create(tree);
    REQUIRE(first->listen_unix(path));
    auto second = *Server::create(tree);
    const auto result = second->listen_unix(path);
    REQUIRE_FALSE(result);
    CHECK_THAT(result.error().what, Catch::Contains("in use"));
    second.reset();
    CHECK(std::filesystem::exists(path));
    first.reset();
    CHECK_FALSE(std::filesystem::exists(path));
  }
  SECTION("dead") {
    {
      const UniqueFd dead(::socket(AF_UNIX, SOCK_STREAM, 0));
      sockaddr_un address{};
      address.sun_family = AF_UNIX;
      std::memcpy(address.sun_path, path.data(), path.size());
      REQUIRE(::bind(dead.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    }
    REQUIRE(std::filesystem::exists(path));
    auto server = *Server::create(tree);
    CHECK(server->listen_unix(path));
  }
  SECTION("many at once: one gets it") {
    {
      const UniqueFd dead(::socket(AF_UNIX, SOCK_STREAM, 0));
      sockaddr_un address{};
      address.sun_family = AF_UNIX;
      std::memcpy(address.sun_path, path.data(), path.size());
      REQUIRE(::bind(dead.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    }
    std::vector<std::unique_ptr<Server>> servers;
    for (int i = 0; i < 8; ++i) servers.push_back(*Server::create(tree));
    std::atomic<int> winners = 0;
    std::vector<std::thread> contenders;
    for (auto& server : servers) {
      contenders.emplace_back([&] { winners += server->listen_unix(path).has_value(); });
    }
    for (std::thread& contender : contenders) contender.join();
    CHECK(winners == 1);
  }
  SECTION("another server's socket in our place is not removed") {
    auto server = *Server::create(tree);
    REQUIRE(server->listen_unix(path));
    std::filesystem::remove(path);
    auto other = *Server::create(tree);
    REQUIRE(other->listen_unix(path));
    server.reset();
    CHECK(std::filesystem::exists(path));
  }
}

TEST_CASE("a client that is connected already can be handed over", "[server]") {
  const auto device = memory_device(1 << 20);
  auto server = *Server::create(*make_single_export(device));
  int ends[2];
  // Non-blocking on purpose: its maker may have had other plans.
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
  REQUIRE(server->adopt(UniqueFd(ends[0])));
  ::fcntl(ends[1], F_SETFL, 0);
  SocketClient client{UniqueFd(ends[1])};
  client.handshake(true);
  CHECK(client.read(0, 1 << 20).data == device->bytes());
  server.reset();  // without run(): the client is cut off, and nobody waits
  CHECK(client.receive_rest().empty());
}

TEST_CASE("a socket that listens already is taken over", "[server]") {
  const TempDir directory;
  const std::string path = (directory / "socket").native();
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  const auto bound_socket = [&] {
    UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM, 0));
    REQUIRE(::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    return socket;
  };
  auto server = *Server::create(*make_single_export(memory_device(4096)));
  SECTION("when it listens") {
    UniqueFd socket = bound_socket();
    REQUIRE(::listen(socket.get(), 5) == 0);
    const auto taken = server->listen_on(std::move(socket));
    REQUIRE(taken);
    CHECK(server->uris() == std::vector{"nbd+unix:///?socket=" + path});
    ServerThread runner(*server);
    SocketClient client = SocketClient::on_unix(path);
    client.handshake(true);
    CHECK(client.read(0, 512).is(WireError::ok));
    server->request_stop();
    runner.join();
    server.reset();
    CHECK(std::filesystem::exists(path));  // its maker's to remove
  }
  SECTION("not when it does not") {
    const auto result = server->listen_on(bound_socket());
    REQUIRE_FALSE(result);
    CHECK(result.error().code == Errc::usage);
  }
  SECTION("an abstract one has no URI") {
    address.sun_path[0] = '\0';
    UniqueFd socket = bound_socket();
    REQUIRE(::listen(socket.get(), 5) == 0);
    const auto taken = server->listen_on(std::move(socket));
    REQUIRE(taken);
    CHECK(server->uris().empty());
  }
  SECTION("nor what is no socket") {
    CHECK_FALSE(server->listen_on(UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC))));
  }
}

TEST_CASE("a server may end with its last client", "[server]") {
  ServerOptions options;
  options.stop_after_last = GENERATE(0ms, 200ms);
  auto server = *Server::create(*make_single_export(memory_device(4096)), options);
  const TempDir directory;
  const std::string path = (directory / "socket").native();
  REQUIRE(server->listen_unix(path));
  ServerThread runner(*server);
  std::this_thread::sleep_for(50ms);
  CHECK_FALSE(runner.ended());  // nobody has come yet
  auto left = Clock::now();
  {
    SocketClient first = SocketClient::on_unix(path);
    first.handshake(true);
    {
      SocketClient second = SocketClient::on_unix(path);
      second.handshake(true);
    }
    std::this_thread::sleep_for(*options.stop_after_last + 50ms);
    CHECK(first.read(0, 512).is(WireError::ok));
    left = Clock::now();
  }
  runner.join();
  CHECK(Clock::now() - left >= *options.stop_after_last);
}

TEST_CASE("a server does not end with a client that never finished the handshake", "[server]") {
  ServerOptions options;
  options.stop_after_last = GENERATE(0ms, 100ms);
  auto server = *Server::create(*make_single_export(memory_device(4096)), options);
  const TempDir directory;
  const std::string path = (directory / "socket").native();
  REQUIRE(server->listen_unix(path));
  ServerThread runner(*server);
  for (int probe = 0; probe < 3; ++probe) {
    SocketClient::on_unix(path).receive(kGreetingBytes);
    REQUIRE(soon([&] { return server->connection_count() == 0; }));
    // One that leaves politely, and that only asked what there is.
    SocketClient curious = SocketClient::on_unix(path);
    curious.receive(kGreetingBytes);
    Bytes hello = testing::client_flags();
    hello += testing::option(Option::list);
    hello += testing::option(Option::abort);
    curious.send(hello);
    curious.receive_rest();
    REQUIRE(soon([&] { return server->connection_count() == 0; }));
  }
  std::this_thread::sleep_for(*options.stop_after_last + 50ms);
  CHECK_FALSE(runner.ended());
  {
    SocketClient client = SocketClient::on_unix(path);
    client.handshake(true);
    CHECK(client.read(0, 512).is(WireError::ok));
  }
  // Probes that come and go meanwhile do not make it stay for ever.
  CHECK(soon([&] {
    try {
      if (!runner.ended()) SocketClient::on_unix(path);
    } catch (const std::exception&) {
      // it is gone
    }
    return runner.ended();
  }));
  runner.join();
}

TEST_CASE("a server without listeners ends with its one client, however far that got", "[server]") {
  ServerOptions options;
  options.stop_after_last = 0ms;
  auto server = *Server::create(*make_single_export(memory_device(4096)), options);
  int fds[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
  REQUIRE(server->adopt(UniqueFd(fds[0])));
  ::close(fds[1]);
  CHECK(server->run());
}

TEST_CASE("the log has a line for each client that is refused, comes or goes", "[server]") {
  LogOfTest log;
  ServerOptions options;
  options.log = &log;
  options.most_connections = 2;
  options.handshake_timeout = 200ms;
  const std::string user = fmt::format("(user {} (process {})", ::geteuid(), ::getpid());
  RunningServer server(memory_device(4096), options);
  {
    SocketClient client = server.ready_client();
    CHECK(client.read(0, 512).is(WireError::ok));
    REQUIRE(soon([&] { return !log.lines(LogLevel::debug).empty(); }));
    CHECK(log.lines(LogLevel::debug) ==
          std::vector<std::string>{"client 1 " + user + ", export \"disk\"): connected"});
  }
  REQUIRE(soon([&] { return log.lines(LogLevel::debug).size() == 2; }));
  CHECK_THAT(log.lines(LogLevel::debug)[1],
             Catch::StartsWith("client 1 " + user + ", export \"disk\"): gone after ") &&
                 Catch::EndsWith(" s: the client hung up"));
  CHECK(log.lines(LogLevel::info).empty());

  SECTION("who asks for what is not there") {
    SocketClient client = server.connect();
    client.receive(kGreetingBytes);
    Bytes hello = testing::client_flags();
    hello += testing::option(Option::go, testing::info_data("nothing"));
    client.send(hello);
    CHECK(client.receive_option_answer().is_error());
    client.close();
    REQUIRE(soon([&] { return log.lines(LogLevel::info).size() == 1; }));
    CHECK(log.lines(LogLevel::info)[0] ==
          "client 2 " + user + "): refused: there is no export \"nothing\"");
  }
  SECTION("who takes too long") {
    SocketClient client = server.connect();
    client.receive_rest();
    REQUIRE(soon([&] { return log.lines(LogLevel::info).size() == 1; }));
    CHECK_THAT(
        log.lines(LogLevel::info)[0],
        Catch::StartsWith("client 2 " + user + "): refused: ") && Catch::Contains("in time"));
  }
  SECTION("each of a crowd") {
    SocketClient one = server.ready_client();
    SocketClient two = server.ready_client();
    for (int i = 0; i < 3; ++i) CHECK(server.connect().receive_rest().empty());
    REQUIRE(soon([&] { return log.lines(LogLevel::info).size() == 3; }));
    for (const std::string& line : log.lines(LogLevel::info)) {
      CHECK(line == "a client was refused: " + user.substr(1) +
                        ": 2 clients are connected, which is the limit");
    }
  }
  SECTION("and who only looked is no refusal") {
    SocketClient client = server.connect();
    client.receive(kGreetingBytes);
    client.close();
    REQUIRE(soon([&] { return log.lines(LogLevel::debug).size() == 3; }));
    CHECK_THAT(log.lines(LogLevel::debug)[2],
               Catch::StartsWith("client 2 " + user + "): gone after ") &&
                   Catch::EndsWith(": the client hung up"));
    CHECK(log.lines(LogLevel::info).empty());
  }
}

TEST_CASE("the server adds up what its clients asked, also those that are gone", "[server]") {
  std::vector<Export> exports;
  exports.push_back({"a", "", memory_device(1 << 20)});
  exports.push_back({"b", "", memory_device(1 << 20)});
  ServerOptions options;
  options.most_connections = 3;
  RunningServer server(*make_fixed_exports(exports), options);
  const auto client_of = [&](std::string_view name) {
    SocketClient client = server.connect();
    client.handshake(true, name);
    return client;
  };
  CHECK(server->statistics().exports.empty());
  {
    SocketClient gone = client_of("a");
    for (int i = 0; i < 10; ++i) gone.read(0, 4096);
  }
  REQUIRE(soon([&] { return server->connection_count() == 0; }));
  SocketClient staying = client_of("a");
  staying.read(0, 8192);
  SocketClient other = client_of("b");
  CHECK(other.read(1 << 20, 1).is(WireError::inval));
  const SocketClient idle = server.connect();
  REQUIRE(soon([&] { return server->connection_count() == 3; }));
  // Full: it hears nothing.
  CHECK(server.connect().receive_rest().empty());

  const ServerStatistics statistics = server->statistics();
  CHECK(statistics.connections_open == 3);
  CHECK(statistics.connections_total == 4);
  CHECK(statistics.connections_refused == 1);
  REQUIRE(statistics.exports.size() == 2);
  const ExportStatistics& a = statistics.exports[0];
  CHECK(a.name == "a");
  CHECK(a.connections_open == 1);
  CHECK(a.connections_total == 2);
  CHECK(a.of(CommandKind::read).requests == 11);
  CHECK(a.of(CommandKind::read).bytes == 10 * 4096 + 8192);
  const ExportStatistics& b = statistics.exports[1];
  CHECK(b.name == "b");
  CHECK(b.of(CommandKind::read).requests == 1);
  CHECK(b.of(CommandKind::read).error_count() == 1);
  server.stop();
  const ServerStatistics after = server->statistics();
  CHECK(after.connections_open == 0);
  REQUIRE(after.exports.size() == 2);
  CHECK(after.exports[0].connections_open == 0);
  CHECK(after.exports[0].of(CommandKind::read).requests == 11);
  // Every answer was timed.
  std::uint64_t timed = 0;
  for (const std::uint64_t count : after.exports[0].of(CommandKind::read).latency) timed += count;
  CHECK(timed == 11);
}

TEST_CASE("a client that may not come in hears nothing", "[server][A15]") {
  std::atomic<int> asked = 0;
  std::atomic<bool> open = false;
  ServerOptions options;
  options.admits = [&](const net::Peer& peer) {
    ++asked;
    return open && peer.kind == net::Peer::Kind::unix_socket && peer.uid == ::geteuid();
  };
  RunningServer server(memory_device(4096), options);
  for (int i = 0; i < 3; ++i) CHECK(server.connect().receive_rest().empty());
  CHECK(asked == 3);
  CHECK(server->statistics().connections_refused == 3);
  CHECK(server->statistics().connections_total == 0);
  // Nor a client that is brought along.
  int fds[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
  SocketClient brought{UniqueFd(fds[0])};
  CHECK_FALSE(server->adopt(UniqueFd(fds[1])));
  CHECK(brought.receive_rest().empty());
  open = true;
  CHECK(server.ready_client().read(0, 512).data.size() == 512);
}

TEST_CASE("rules keep clients of TCP out by their address", "[server]") {
  const std::string denied = GENERATE("127.0.0.0/8", "::1", "any");
  ServerOptions options;
  const std::vector<std::string> deny = {denied};
  const Result<net::PeerRules> rules = net::PeerRules::parse({}, deny);
  REQUIRE(rules);
  options.admits = [&](const net::Peer& peer) { return rules->admits(peer); };
  const auto server = *Server::create(*make_single_export(memory_device(4096), "disk"), options);
  REQUIRE(server->listen_tcp("127.0.0.1", 0));
  REQUIRE(server->listen_tcp("::1", 0));
  const auto uris = server->uris();
  std::thread serving([&] { server->run().value(); });
  const auto answers = [&](int family, const std::string& uri) {
    return !SocketClient::on_loopback(family, port_of(uri.substr(0, uri.size() - 1)))
                .receive_up_to(1)
                .empty();
  };
  const bool v4 = answers(AF_INET, uris[0]);
  const bool v6 = answers(AF_INET6, uris[1]);
  server->request_stop();
  serving.join();
  CHECK(v4 == (denied == "::1"));
  CHECK(v6 == (denied == "127.0.0.0/8"));
}

TEST_CASE("vsock is listened on as far as the machine has it", "[server]") {
  const auto device = memory_device(4096);
  const auto server = *Server::create(*make_single_export(device, "disk"));
  const Result<void> anywhere = server->listen_vsock(net::kAnyCid, 0);
  if (!UniqueFd(::socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0))) {
    REQUIRE_FALSE(anywhere);
    CHECK(anywhere.error().os_errno == EAFNOSUPPORT);
    CHECK_THAT(anywhere.error().what, Catch::StartsWith("listen on vsock port 0: "));
    return;
  }
  REQUIRE(anywhere);
  const std::string uri = server->uris("a name").front();
  CHECK_THAT(uri, Catch::Matches("nbd\\+vsock://1:[1-9][0-9]*/a%20name"));
  const auto port = static_cast<std::uint32_t>(std::stoul(uri.substr(uri.rfind(':') + 1)));
  const Result<void> again = server->listen_vsock(net::kAnyCid, port);
  REQUIRE_FALSE(again);
  CHECK(again.error().os_errno == EADDRINUSE);
  CHECK_THAT(again.error().what, Catch::StartsWith(fmt::format("listen on vsock port {}: ", port)));
  const Result<void> elsewhere = server->listen_vsock(0x7777, 1);
  REQUIRE_FALSE(elsewhere);
  CHECK_THAT(elsewhere.error().what, Catch::StartsWith("listen on vsock 30583:1: "));

  // Whether one can come from this machine itself shows when its loopback context is bound.
  const Result<void> loopback = server->listen_vsock(VMADDR_CID_LOCAL, 0);
  if (!loopback) {
    CHECK(loopback.error().os_errno == EADDRNOTAVAIL);
    CHECK_THAT(loopback.error().what, Catch::StartsWith("listen on vsock 1:0: "));
    return;
  }
  std::thread serving([&] { server->run().value(); });
  sockaddr_vm address{};
  address.svm_family = AF_VSOCK;
  address.svm_cid = VMADDR_CID_LOCAL;
  address.svm_port = port;
  UniqueFd socket(::socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0));
  REQUIRE(::connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  SocketClient client(std::move(socket));
  client.handshake(true);
  const Answer answer = client.read(0, 4096);
  server->request_stop();
  serving.join();
  CHECK(answer.data == part_of(*device, 0, 4096));
}

TEST_CASE("two servers live in one process", "[server]") {
  const auto small = memory_device(4096);
  const auto large = memory_device(8192);
  RunningServer one(small);
  RunningServer two(large);
  SocketClient first = one.ready_client();
  SocketClient second = two.ready_client();
  CHECK(first.read(0, 4096).data == small->bytes());
  CHECK(second.read(0, 8192).data == large->bytes());
  one.stop();
  CHECK(second.read(0, 8192).data == large->bytes());
}

// --- Clients -------------------------------------------------------------------------------------

TEST_CASE("many clients at once see the same bytes", "[server]") {
  const auto device = memory_device(4 << 20);
  const MemoryFile file(device->bytes());
  const auto store = std::make_shared<FileStore>(file.path());
  const auto content = std::make_shared<ExtentDevice>();
  content->content(store, ContentNo{0}, 0, 4 << 20);
  RunningServer server(content);
  std::atomic<int> wrong = 0;
  std::vector<std::thread> clients;
  for (unsigned seed = 0; seed < 8; ++seed) {
    clients.emplace_back([&, seed] {
      std::mt19937 random(seed);
      SocketClient client = server.ready_client(seed % 2 == 0);
      for (int i = 0; i < 50; ++i) {
        const std::uint64_t offset = random() % (4 << 20);
        const auto length = static_cast<std::uint32_t>(std::min<std::uint64_t>(
            (4 << 20) - offset, 1 + random() % (i % 5 == 0 ? 1 << 20 : 5000)));
        if (client.read(offset, length).data != part_of(*device, offset, length)) ++wrong;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  CHECK(wrong == 0);
  CHECK(store->pins > 0);
}

TEST_CASE("a pipeline of requests is answered in full", "[server]") {
  const auto device = memory_device(1 << 20);
  RunningServer server(device);
  SocketClient client = server.ready_client();
  std::vector<Request> asked;
  Bytes message;
  for (std::uint64_t i = 0; i < 2000; ++i) {
    asked.push_back({0, Command::read, i, (i * 4096) % (1 << 20), 4096});
    message += encode_request(asked.back());
  }
  std::thread sender([&] { client.send(message); });
  std::size_t wrong = 0;
  for (const Request& request : asked) {
    wrong += client.receive_answer(request).data != part_of(*device, request.offset, 4096);
  }
  sender.join();
  CHECK(wrong == 0);
}

TEST_CASE("a file that is cut short while it is served is an error with its name",
          "[server][A23]") {
  const MemoryFile file(pattern_bytes(2 << 20));
  const auto device = std::make_shared<ExtentDevice>();
  device->content(std::make_shared<FileStore>(file.path()), ContentNo{0}, 0, 2 << 20);
  RunningServer server(device);
  SocketClient client = server.ready_client();
  CHECK(client.read(0, 2 << 20).is(WireError::ok));
  REQUIRE(::ftruncate(file.fd.get(), 100) == 0);
  const Answer answer = client.read(0, 2 << 20);
  CHECK(answer.is(WireError::io));
  CHECK_THAT(answer.text, Catch::Contains(file.path()));
  CHECK(client.read(0, 4096).is(WireError::io));
}

TEST_CASE("a client that hangs up while a file is sent to it does no harm", "[server][A7]") {
  // sendfile() raises SIGPIPE, whose default is death.
  struct sigaction before{};
  ::sigaction(SIGPIPE, nullptr, &before);
  REQUIRE(before.sa_handler == SIG_DFL);
  const MemoryFile file(pattern_bytes(32 << 20));
  const auto device = std::make_shared<ExtentDevice>();
  device->content(std::make_shared<FileStore>(file.path()), ContentNo{0}, 0, 32 << 20);
  RunningServer server(device);
  for (int i = 0; i < 20; ++i) {
    SocketClient client = server.ready_client(i % 2 == 0);
    client.send_request({0, Command::read, 1, 0, 32 << 20});
    client.send_request({0, Command::read, 2, 0, 32 << 20});
    client.receive(static_cast<std::size_t>(i) * 10'000 + 100);
  }
  CHECK(soon([&] { return server->connection_count() == 0; }));
}

TEST_CASE("garbage ends its connection and nothing else", "[server]") {
  const auto device = memory_device(1 << 20);
  RunningServer server(device);
  SocketClient good = server.ready_client();
  std::mt19937 random(11);
  for (int i = 0; i < 200; ++i) {
    SocketClient bad = server.connect();
    Bytes junk = i % 2 == 0 ? Bytes() : testing::client_flags();
    const std::size_t length = random() % 3000;
    while (junk.size() < length) junk.push_back(static_cast<std::byte>(random()));
    bad.try_send(junk);
  }
  CHECK(good.read(0, 4096).data == part_of(*device, 0, 4096));
  CHECK(soon([&] { return server->connection_count() == 1; }));
}

TEST_CASE("a client that leaves at any byte of a session leaves nothing behind",
          "[server][A7][A22]") {
  const auto device = memory_device(1 << 20);
  RunningServer server(device);
  const std::size_t threads_at_rest = threads();  // a sanitizer's own thread among them
  const Bytes session = recorded_session();
  {
    SocketClient warm_up = server.ready_client();
  }
  REQUIRE(soon([&] { return server->connection_count() == 0 && threads() == threads_at_rest; }));
  const std::size_t descriptors_before = open_descriptors();
  for (std::size_t sent = 0; sent <= session.size(); ++sent) {
    CAPTURE(sent);
    SocketClient client = server.connect();
    client.try_send(std::span(session).first(sent));
    // Some wait for answers and some do not.
    if (sent % 3 == 0) client.receive(kGreetingBytes);
    if (sent % 7 == 0) ::shutdown(client.fd(), SHUT_WR);
  }
  // The whole session, for comparison, ends by itself.
  SocketClient client = server.connect();
  client.send(session);
  CHECK(client.receive_rest().size() > (1 << 20) + 100'000);
  client.close();
  CHECK(soon([&] { return server->connection_count() == 0; }));
  CHECK(soon([&] { return threads() == threads_at_rest; }));
  CHECK(soon([&] { return open_descriptors() == descriptors_before; }));
}

namespace {

/// A file whose first megabyte can be had at once, and the rest when the test says so.
class SlowStore final : public ContentStore {
 public:
  Result<void> read(ContentNo content, std::uint64_t offset, std::span<std::byte> out) override {
    if (!is_at_hand(content, offset, out.size())) fetch(content, offset, out.size());
    std::ranges::fill(out, std::byte{0x77});
    return {};
  }
  Result<bool> read_at_once(ContentNo content, std::uint64_t offset,
                            std::span<std::byte> out) override {
    if (!is_at_hand(content, offset, out.size())) return false;
    std::ranges::fill(out, std::byte{0x77});
    return true;
  }
  bool is_at_hand(ContentNo, std::uint64_t offset, std::uint64_t) override {
    return offset < (1U << 20) || opened;
  }
  void fetch(ContentNo, std::uint64_t, std::uint64_t) override {
    std::unique_lock lock(mutex);
    ++waiting;
    open.wait(lock, [&] { return opened.load(); });
    --waiting;
  }
  bool keeps_fetched(ContentNo) override { return true; }
  Result<Pin> pin(ContentNo) override { return Pin{}; }
  Result<void> recheck(ContentNo, const PinnedFile&) override { return {}; }
  std::string name(ContentNo) const override { return "slow"; }

  void let_go() {
    const std::lock_guard lock(mutex);
    opened = true;
    open.notify_all();
  }

  std::mutex mutex;
  std::condition_variable open;
  std::atomic<bool> opened = false;
  std::atomic<int> waiting = 0;
};

}  // namespace

TEST_CASE("a cold read holds up no other", "[server][L12]") {
  const auto store = std::make_shared<SlowStore>();
  const auto device = std::make_shared<ExtentDevice>();
  device->content(store, ContentNo{0}, 0, 64U << 20);
  RunningServer server(device);
  const bool structured = GENERATE(false, true);
  SocketClient client = server.ready_client(structured);
  SocketClient other = server.ready_client();
  const Request cold{0, Command::read, 1, 8U << 20, 32U << 20};
  client.send_request(cold);
  REQUIRE(soon([&] { return store->waiting == 1; }));
  for (int i = 0; i < 10; ++i) {
    CHECK(client.read(4096, 4096).data == Bytes(4096, std::byte{0x77}));
    CHECK(other.read(4096, 4096).data == Bytes(4096, std::byte{0x77}));
  }
  // A crowd of them has a bounded number of threads.
  std::vector<SocketClient> crowd;
  for (int i = 0; i < 40; ++i) {
    crowd.push_back(server.ready_client());
    crowd.back().send_request({0, Command::read, 1, 8U << 20, 4096});
  }
  CHECK(soon([&] { return store->waiting >= 16; }));
  CHECK(other.read(0, 4096).is(WireError::ok));
  CHECK(store->waiting <= 16);
  store->let_go();
  CHECK(client.receive_answer(cold).data == Bytes(32U << 20, std::byte{0x77}));
  for (SocketClient& one : crowd) {
    CHECK(one.receive_answer({0, Command::read, 1, 8U << 20, 4096}).is(WireError::ok));
  }
  CHECK(client.read(0, 4096).is(WireError::ok));
}

TEST_CASE("forty clients that wait for a device do not starve the next one", "[server][point6]") {
  const auto command =
      GENERATE(Command::read, Command::write, Command::write_zeroes, Command::trim, Command::flush);
  CAPTURE(command);
  const auto slow = std::make_shared<GatedDevice>(1 << 20);
  const auto other = std::make_shared<GatedDevice>(1 << 20);
  slow->close_gate();
  RunningServer server(*make_fixed_exports({{"slow", "", slow}, {"other", "", other}}));
  const std::uint32_t length = command == Command::flush ? 0 : 4096;
  const Request waits{0, command, 1, 0, length};
  const Bytes payload(command == Command::write ? length : 0, std::byte{0x55});
  std::vector<SocketClient> crowd;
  for (int i = 0; i < 40; ++i) {
    crowd.push_back(server.connect());
    crowd.back().handshake(true, "slow");
    crowd.back().send_request(waits);
    crowd.back().send(payload);
  }
  REQUIRE(soon([&] { return slow->waiting() == 16; }));

  SocketClient next = server.connect();
  next.handshake(true, "other");
  next.send_request({0, Command::write, 1, 8192, 4096});
  next.send(Bytes(4096, std::byte{0x66}));
  CHECK(next.receive_answer({0, Command::write, 1, 8192, 4096}).is(WireError::ok));
  CHECK(next.ask({0, Command::flush, 2, 0, 0}).is(WireError::ok));
  CHECK(next.read(8192, 4096).data == Bytes(4096, std::byte{0x66}));
  CHECK(next.ask({0, Command::write_zeroes, 3, 8192, 4096}).is(WireError::ok));
  CHECK(next.ask({0, Command::trim, 4, 0, 4096}).is(WireError::ok));
  // Nor do they starve each other's requests that need nothing of the device.
  CHECK(crowd[0].ask({0, Command::block_status, 5, 65536, 4096}).is(WireError::ok));

  CHECK(slow->waiting() == 16);
  slow->open_gate();
  for (SocketClient& one : crowd) CHECK(one.receive_answer(waits).is(WireError::ok));
}

TEST_CASE("a write that must be joined with a slow base holds up no other", "[server][point6]") {
  const auto store = std::make_shared<SlowStore>();
  const auto base = std::make_shared<ExtentDevice>();
  base->content(store, ContentNo{0}, 0, 64U << 20);
  auto kept = OverlayStore::in_memory(64U << 20);
  REQUIRE(kept);
  RunningServer server(std::make_shared<Overlay>(base, *std::move(kept), Overlay::Options{}));
  SocketClient client = server.ready_client();
  SocketClient other = server.ready_client();
  const Request part{0, Command::write, 1, (8U << 20) + 10, 20};
  client.send_request(part);
  client.send(Bytes(20, std::byte{0x11}));
  REQUIRE(soon([&] { return store->waiting == 1; }));
  // Blocks of the same 2 MiB, by this client and by another: no lock is held while it waits.
  const Request whole{0, Command::write, 2, (8U << 20) + 4096, 4096};
  for (SocketClient* one : {&client, &other}) {
    one->send_request(whole);
    one->send(Bytes(4096, std::byte{0x22}));
    CHECK(one->receive_answer(whole).is(WireError::ok));
    CHECK(one->read((8U << 20) + 4096, 4096).data == Bytes(4096, std::byte{0x22}));
  }
  store->let_go();
  CHECK(client.receive_answer(part).is(WireError::ok));
  CHECK(other.read((8U << 20) + 10, 20).data == Bytes(20, std::byte{0x11}));
}

TEST_CASE("a client that leaves while its write waits is forgotten", "[server][A22][point6]") {
  const auto slow = std::make_shared<GatedDevice>(8 << 20);
  slow->close_gate();
  RunningServer server(slow);
  {
    SocketClient client = server.ready_client();
    client.send_request({0, Command::write, 1, 0, 2 << 20});
    client.send(Bytes((1 << 20) + 100));
    REQUIRE(soon([&] { return slow->waiting() == 1; }));
  }
  slow->open_gate();
  CHECK(soon([&] { return server->connection_count() == 0; }));
  CHECK(slow->writes().size() == 1);
}

// Compiled with -Wextra: each option can be named alone.
TEST_CASE("options of a server are named as needed", "[server][point6]") {
  LogOfTest log;
  auto device = memory_device(4096);
  const auto exports = make_fixed_exports({Export{.name = "disk", .device = device}});
  const auto server = Server::create(*exports, {.most_connections = 7, .log = &log});
  REQUIRE(server);
  CHECK(ServerOptions{.most_job_threads = 3}.most_connections == 1024);
  CHECK(ServerOptions{.tls = TlsMode::off}.log == &null_log());
}

namespace {

/// A file system like FUSE: reads take as long as the test wants, and nobody can ask which.
class GatedFileSystem final : public mkvirtfs::testing::WaitingFileSystem {
 public:
  ssize_t pread(int fd, std::span<std::byte> out, std::uint64_t offset) override {
    {
      std::unique_lock lock(mutex_);
      ++waiting;
      open_.wait(lock, [&] { return is_open_; });
      --waiting;
    }
    return FileOperations::pread(fd, out, offset);
  }
  void let_go() {
    const std::lock_guard lock(mutex_);
    is_open_ = true;
    open_.notify_all();
  }

  std::atomic<int> waiting = 0;

 private:
  std::mutex mutex_;
  std::condition_variable open_;
  bool is_open_ = false;
};

}  // namespace

TEST_CASE("reads of a file system without RWF_NOWAIT wait beside each other", "[server]") {
  constexpr std::size_t kFiles = 6;
  constexpr std::size_t kBytes = 100'000;
  const TempDir directory;
  const auto table = std::make_shared<mkvirtfs::testing::DirectoryTable>(directory.path());
  const auto device = std::make_shared<ExtentDevice>();
  GatedFileSystem files;
  for (std::size_t i = 0; i < kFiles; ++i) {
    write_file(directory / std::to_string(i), std::string(kBytes, static_cast<char>('a' + i)));
    table->add(std::to_string(i));
  }
  const auto store = make_host_files(table, OnChange::error, null_log(), 100, files);
  for (std::size_t i = 0; i < kFiles; ++i) {
    device->content(store, static_cast<ContentNo>(i), 0, kBytes);
  }
  device->computed(4096);
  RunningServer server(device);
  const bool structured = GENERATE(false, true);
  SocketClient client = server.ready_client(structured);
  SocketClient other = server.ready_client(structured);
  // Small ones and such that would be left to the kernel.
  std::vector<Request> asked;
  for (std::size_t i = 0; i < kFiles; ++i) {
    asked.push_back({0, Command::read, i, i * kBytes, i % 2 == 0 ? 4096 : kBytes});
    client.send_request(asked.back());
  }
  // All of them wait at the same time, and what needs no file waits for none.
  REQUIRE(soon([&] { return files.waiting == static_cast<int>(kFiles); }));
  const Request metadata{0, Command::read, 100, kFiles * kBytes, 4096};
  CHECK(client.ask(metadata).is(WireError::ok));
  CHECK(other.ask(metadata).is(WireError::ok));
  CHECK(files.waiting == static_cast<int>(kFiles));
  files.let_go();
  std::map<std::uint64_t, Bytes> answers;
  // Whichever comes first: the cookie says which it is.
  for (std::size_t i = 0; i < kFiles; ++i) {
    const std::uint64_t cookie = client.next_cookie();
    REQUIRE(cookie < kFiles);
    answers[cookie] = client.receive_answer(asked[cookie]).data;
  }
  for (std::size_t i = 0; i < kFiles; ++i) {
    CHECK(answers[i] == Bytes(asked[i].length, static_cast<std::byte>('a' + i)));
  }
}

TEST_CASE("a client that leaves while its job is done is forgotten", "[server][A22]") {
  const auto store = std::make_shared<SlowStore>();
  const auto device = std::make_shared<ExtentDevice>();
  device->content(store, ContentNo{0}, 0, 64U << 20);
  RunningServer server(device);
  const std::size_t descriptors_before = open_descriptors();
  {
    SocketClient client = server.ready_client();
    client.send_request({0, Command::read, 1, 8U << 20, 4096});
    REQUIRE(soon([&] { return store->waiting == 1; }));
  }
  SECTION("and the job ends") {
    store->let_go();
    CHECK(soon([&] { return server->connection_count() == 0; }));
    CHECK(soon([&] { return open_descriptors() == descriptors_before; }));
  }
  SECTION("and the server stops") {
    std::thread later([&] {
      std::this_thread::sleep_for(200ms);
      store->let_go();
    });
    CHECK(server.stop() < 4s);
    later.join();
  }
}

TEST_CASE("an export may take longer to be built than a client's handshake", "[server][O10]") {
  ServerOptions options;
  options.handshake_timeout = 200ms;
  const auto device = memory_device(4096);
  const auto tree = *make_lazy_exports({LazyExport{
      .name = "slow",
      .description = {},
      .build = [&]() -> Result<std::shared_ptr<BlockDevice>> {
        std::this_thread::sleep_for(400ms);
        return device;
      },
  }});
  RunningServer server(tree, options);
  SocketClient client = server.connect();
  client.handshake(true, "slow");
  CHECK(client.read(0, 512).is(WireError::ok));
}

TEST_CASE("to open an export waits for no other's build, however many wait for that",
          "[server][point5]") {
  const auto slow = std::make_shared<GatedDevice>(1 << 20);
  const auto other = std::make_shared<GatedDevice>(1 << 20);
  slow->close_gate();
  const auto tree = *make_lazy_exports({
      {.name = "slow",
       .build = [&]() -> Result<std::shared_ptr<BlockDevice>> {
         if (Result<void> built = slow->flush(); !built) return propagate(built);
         return slow;
       }},
      {.name = "other", .build = [&] { return other; }},
  });
  ServerOptions options;
  options.handshake_timeout = 0ms;
  RunningServer server(tree, options);
  std::vector<SocketClient> crowd;
  for (int i = 0; i < 40; ++i) {
    crowd.push_back(server.connect());
    crowd.back().receive(kGreetingBytes);
    crowd.back().send(testing::client_flags());
    crowd.back().send(testing::option(Option::go, testing::info_data("slow")));
  }
  REQUIRE(soon([&] { return slow->waiting() == 1; }));
  SocketClient next = server.connect();
  next.handshake(true, "other");
  CHECK(next.read(0, 4096).is(WireError::ok));
  CHECK(slow->waiting() == 1);
  slow->open_gate();
  for (SocketClient& one : crowd) {
    CHECK(one.receive_option_answer().is(OptionReply::info));
    CHECK(one.receive_option_answer().is(OptionReply::ack));
  }
  CHECK(slow->calls() == 1);
}

TEST_CASE("what a device throws is EIO to its request, in the log, and the end of no client",
          "[server]") {
  const auto device = std::make_shared<CountingDevice>(1 << 20);
  LogOfTest log;
  ServerOptions options;
  options.log = &log;
  RunningServer server(device, options);
  SocketClient good = server.ready_client();
  SocketClient bad = server.ready_client(GENERATE(false, true));
  device->throws = true;
  CHECK(bad.read(0, 4096).is(WireError::io));
  CHECK(bad.read(4096, 4096).is(WireError::io));
  device->throws = false;
  CHECK(bad.read(0, 4096).is(WireError::ok));
  CHECK(good.read(0, 4096).is(WireError::ok));
  REQUIRE(soon([&] { return log.lines(LogLevel::error).size() == 2; }));
  CHECK_THAT(log.lines(LogLevel::error)[0], Catch::StartsWith("client 2 (user ") &&
                                                Catch::Contains("export \"disk\"") &&
                                                Catch::Contains("a read failed by an exception"));
}

// --- Limits --------------------------------------------------------------------------------------

TEST_CASE("a client that dawdles in its handshake is disconnected", "[server][O10][A6]") {
  ServerOptions options;
  options.handshake_timeout = 200ms;
  const auto device = memory_device(4096);
  RunningServer server(device, options);
  SocketClient done = server.ready_client();
  const auto start = Clock::now();
  SECTION("silent") {
    SocketClient client = server.connect();
    CHECK(client.receive_rest().size() == kGreetingBytes);
    CHECK(Clock::now() - start >= 180ms);
  }
  SECTION("a byte now and then") {
    SocketClient client = server.connect();
    const Bytes session = recorded_session();
    std::size_t sent = 0;
    while (sent < session.size() && client.try_send(std::span(session).subspan(sent, 1))) {
      ++sent;
      std::this_thread::sleep_for(20ms);
    }
    CHECK(sent < 100);
  }
  SECTION("asking, and never reading the answers") {
    std::vector<Export> exports;
    for (int i = 0; i < 500; ++i) {
      exports.push_back({fmt::format("{:0>2000}", i), "", memory_device(512)});
    }
    // Time grows with the names it was told, so it shall not be told any in time.
    ServerOptions short_options;
    short_options.handshake_timeout = 2ms;
    RunningServer crowded(*make_fixed_exports(exports), short_options);
    SocketClient client = crowded.connect();
    Bytes message = testing::client_flags();
    for (int i = 0; i < 30; ++i) message += testing::option(Option::list);
    client.try_send(message);
    CHECK(soon([&] { return crowded->connection_count() == 0; }));
  }
  CHECK(Clock::now() - start < 8s);
  // Who has finished its handshake may be silent for as long as it likes.
  std::this_thread::sleep_for(300ms);
  CHECK(done.read(0, 4096).is(WireError::ok));
}

TEST_CASE("a client that was sent names has time to ask for each", "[server][O10]") {
  ServerOptions options;
  options.handshake_timeout = 200ms;
  std::vector<Export> exports;
  for (int i = 0; i < 20; ++i) exports.push_back({std::to_string(i), "", memory_device(512)});
  RunningServer server(*make_fixed_exports(exports), options);
  SocketClient client = server.connect();
  client.receive(kGreetingBytes);
  Bytes hello = testing::client_flags();
  hello += testing::option(Option::list);
  client.send(hello);
  for (int i = 0; i < 21; ++i) client.receive_option_answer();
  std::this_thread::sleep_for(500ms);
  client.send(testing::option(Option::go, testing::info_data("7")));
  CHECK(client.receive_option_answer().is(OptionReply::info));
}

TEST_CASE("clients beyond the limit are refused at once", "[server]") {
  ServerOptions options;
  options.most_connections = 3;
  RunningServer server(memory_device(4096), options);
  std::vector<SocketClient> clients;
  for (int i = 0; i < 3; ++i) clients.push_back(server.ready_client());
  SocketClient fourth = server.connect();
  CHECK(fourth.receive_rest().empty());
  for (SocketClient& client : clients) CHECK(client.read(0, 512).is(WireError::ok));
  clients.pop_back();
  CHECK(soon([&] { return server->connection_count() == 2; }));
  SocketClient another = server.ready_client();
  CHECK(another.read(0, 512).is(WireError::ok));
}

TEST_CASE("a client that never reads costs one batch, and the others nothing", "[server][A16]") {
  const auto device = std::make_shared<CountingDevice>(64 << 20);
  RunningServer server(device);
  SocketClient slow = server.ready_client();
  for (std::uint64_t i = 0; i < 64; ++i) {
    slow.send_request({0, Command::read, i, i << 20, 1 << 20});
  }
  SocketClient quick = server.ready_client();
  for (int i = 0; i < 20; ++i) CHECK(quick.read(0, 4096).is(WireError::ok));
  std::this_thread::sleep_for(100ms);
  // What the kernel buffers for the socket, and one batch.
  CHECK(device->bytes_read < 16 << 20);
  // And it is all there when it reads after all.
  for (std::uint64_t i = 0; i < 64; ++i) {
    REQUIRE(slow.receive_answer({0, Command::read, i, i << 20, 1 << 20}).is(WireError::ok));
  }
}

TEST_CASE("descriptors are kept for what is served, and new clients refused instead", "[server]") {
  const TempDir directory;
  const auto table = std::make_shared<mkvirtfs::testing::DirectoryTable>(directory.path());
  const auto device = std::make_shared<ExtentDevice>();
  constexpr std::size_t kFiles = 40;
  LogOfTest log;
  const auto store = make_host_files(table, OnChange::error, log, kFiles);
  for (std::size_t i = 0; i < kFiles; ++i) {
    write_file(directory / std::to_string(i), std::string(4096, static_cast<char>('a' + i % 26)));
    device->content(store, table->add(std::to_string(i)), 0, 4096);
  }
  ServerOptions options;
  options.log = &log;
  RunningServer server(device, options);
  {
    SocketClient warm_up = server.ready_client();  // the pool's threads and what they need
  }
  REQUIRE(soon([&] { return server->connection_count() == 0; }));
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  rlimit narrow = before;
  narrow.rlim_cur = open_descriptors() + 100;
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &narrow) == 0);
  std::vector<SocketClient> clients;
  bool refused = false;
  while (!refused && clients.size() < 100) {
    SocketClient client = server.connect();
    refused = client.receive_up_to(kGreetingBytes).empty();
    if (!refused) clients.push_back(std::move(client));
  }
  const std::size_t reserve =
      std::min<std::size_t>(options.descriptor_reserve, narrow.rlim_cur / 4);
  std::vector<UniqueFd> spare;
  while (true) {
    UniqueFd fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    if (!fd) break;
    spare.push_back(std::move(fd));
  }
  const std::size_t left = spare.size();
  spare.clear();
  // All of them read, and every file is another one.
  std::size_t good = 0;
  if (!clients.empty()) {
    Bytes hello = testing::client_flags();
    hello += testing::option(Option::go, testing::info_data(""));
    clients[0].send(hello);
    while (!clients[0].receive_option_answer().is(OptionReply::ack)) {
    }
    for (std::size_t i = 0; i < kFiles; ++i) {
      const Answer answer = clients[0].read(i * 4096, 4096);
      good += answer.data == Bytes(4096, static_cast<std::byte>('a' + i % 26)) ? 1 : 0;
    }
  }
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
  CHECK(refused);
  CHECK(clients.size() > 10);
  CHECK(left >= reserve);
  CHECK(good == kFiles);
  const auto lines = log.lines(LogLevel::info);
  REQUIRE(lines.size() == 1);
  CHECK_THAT(lines[0],
             Catch::StartsWith("a client was refused: user ") && Catch::Contains("(ulimit -n)"));
}

TEST_CASE("a lack of descriptors passes", "[server]") {
  ServerOptions options;
  options.descriptor_reserve = 0;
  RunningServer server(memory_device(4096), options);
  {
    SocketClient warm_up = server.ready_client();
  }
  REQUIRE(soon([&] { return server->connection_count() == 0; }));
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  // Sockets made beforehand: only the server's accept() will want more.
  std::vector<UniqueFd> sockets;
  for (int i = 0; i < 5; ++i)
    sockets.emplace_back(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  rlimit narrow = before;
  narrow.rlim_cur = static_cast<rlim_t>(sockets.back().get()) + 1;
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &narrow) == 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, server.path().data(), server.path().size());
  std::vector<SocketClient> clients;
  bool connected = true;
  for (UniqueFd& socket : sockets) {
    connected = connected &&
                ::connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
    clients.emplace_back(std::move(socket));
  }
  std::this_thread::sleep_for(50ms);
  const std::size_t served = server->connection_count();
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
  CHECK(connected);
  CHECK(served < clients.size());
  for (SocketClient& client : clients) client.handshake(true);
  CHECK(server->connection_count() == clients.size());
}

// --- Stopping ------------------------------------------------------------------------------------

TEST_CASE("a stop at once gives no grace", "[server]") {
  ServerOptions options;
  options.stop_grace = std::chrono::minutes(10);
  RunningServer server(std::make_shared<CountingDevice>(64 << 20), options);
  // A client that does not take its replies, for which a stop waits.
  SocketClient slow = server.ready_client();
  slow.send_request({0, Command::read, 1, 0, 32 << 20});
  slow.receive(1000);  // it is at work; later requests would be refused, with short replies
  server->request_stop();
  std::this_thread::sleep_for(100ms);
  CHECK(server->connection_count() == 1);
  server->request_stop_at_once();
  CHECK(server.stop() < 4s);
}

TEST_CASE("a thousand idle clients do not hold up the stop", "[server][A6]") {
  rlimit limit{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
  const std::size_t count = std::min<std::size_t>(1000, limit.rlim_cur / 2 - 100);
  RunningServer server(memory_device(4096));
  std::vector<SocketClient> clients;
  for (std::size_t i = 0; i < count; ++i) {
    clients.push_back(server.connect());
    if (i % 2 == 0) clients.back().handshake(i % 4 == 0);
  }
  REQUIRE(soon([&] { return server->connection_count() == count; }));
  // They have no threads, and little memory.
  CHECK(soon([&] { return threads() <= 5; }));
  CHECK(server.stop() < 4s);
  for (SocketClient& client : clients) client.receive_rest();
  CHECK_FALSE(std::filesystem::exists(server.path()));
}

TEST_CASE("what was asked before the stop is answered", "[server][D3]") {
  const auto device = std::make_shared<CountingDevice>(64 << 20);
  RunningServer server(device);
  SocketClient client = server.ready_client();
  client.send_request({0, Command::read, 1, 0, 32 << 20});
  client.receive(1000);  // it is at work
  server->request_stop();
  CHECK(client.receive_rest().size() > (32 << 20) - 1000);
  CHECK(server.stop() < 4s);
}

TEST_CASE("stuck clients are cut off when the grace is over", "[server][A6][D3]") {
  ServerOptions options;
  options.stop_grace = 300ms;
  const auto device = std::make_shared<CountingDevice>(64 << 20);
  const MemoryFile file(pattern_bytes(32 << 20));
  const auto content = std::make_shared<ExtentDevice>();
  content->content(std::make_shared<FileStore>(file.path()), ContentNo{0}, 0, 32 << 20);
  const bool by_sendfile = GENERATE(false, true);
  RunningServer server(by_sendfile ? std::shared_ptr<BlockDevice>(content) : device, options);
  std::vector<SocketClient> stuck;
  for (int i = 0; i < 5; ++i) {
    stuck.push_back(server.ready_client());
    stuck.back().send_request({0, Command::read, 1, 0, 32 << 20});
  }
  std::this_thread::sleep_for(50ms);
  const auto took = server.stop();
  CHECK(took >= 280ms);
  CHECK(took < 3s);
}

TEST_CASE("a client that keeps talking cannot hold up the stop", "[server][D3]") {
  ServerOptions options;
  options.stop_grace = 300ms;
  auto server = *Server::create(*make_single_export(memory_device(1 << 20)), options);
  REQUIRE(server->listen_tcp("127.0.0.1", 0));
  ServerThread runner(*server);
  SocketClient client = SocketClient::on_loopback(AF_INET, port_of(server->uris()[0]));
  client.handshake(true);
  std::atomic<bool> told_shutdown = false;
  std::thread talker([&] {
    try {
      for (std::uint64_t i = 0;; ++i) {
        told_shutdown = client.ask({0, Command::read, i, 0, 512}).is(WireError::shutdown);
      }
    } catch (const std::exception&) {
    }
  });
  std::this_thread::sleep_for(50ms);
  const auto start = Clock::now();
  server->request_stop();
  runner.join();
  CHECK(Clock::now() - start < 3s);
  talker.join();
}

TEST_CASE("a stop may come before the run, and more than once", "[server]") {
  auto server = *Server::create(*make_single_export(memory_device(512)));
  const TempDir directory;
  REQUIRE(server->listen_unix((directory / "socket").native()));
  server->request_stop();
  server->request_stop();
  CHECK(server->run());
  CHECK_FALSE(std::filesystem::exists((directory / "socket").native()));
}

TEST_CASE("a server that is destroyed without a run removes its socket", "[server]") {
  const TempDir directory;
  {
    auto server = *Server::create(*make_single_export(memory_device(512)));
    REQUIRE(server->listen_unix((directory / "socket").native()));
    CHECK(std::filesystem::exists((directory / "socket").native()));
  }
  CHECK_FALSE(std::filesystem::exists((directory / "socket").native()));
}

}  // namespace mkvirtfs::nbd
