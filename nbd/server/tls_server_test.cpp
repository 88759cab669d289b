// SPDX-License-Identifier: BSD-3-Clause
// TLS where it meets the rest: a whole server, and clients on sockets.
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <chrono>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "block/testing/extent_device.h"
#include "block/testing/memory_device.h"
#include "nbd/server/server.h"
#include "nbd/server/testing/socket_client.h"
#include "net/testing/tls_party.h"

namespace mkvirtfs::nbd {
namespace {

using namespace std::chrono_literals;
using net::testing::ClientFiles;
using net::testing::Party;
using net::testing::TlsClient;
using testing::Answer;
using testing::Bytes;
using testing::OptionAnswer;
using testing::SocketClient;
using Clock = std::chrono::steady_clock;

const Party& party() {
  static const Party kParty;
  return kParty;
}

ServerOptions options_with(TlsMode mode, bool verify_peer = false) {
  ServerOptions options;
  options.tls = mode;
  options.tls_credentials = party().credentials(verify_peer);
  return options;
}

/// A server on a thread of its own.
class TlsServed {
 public:
  explicit TlsServed(std::shared_ptr<BlockDevice> device, const ServerOptions& options)
      : server_(*Server::create(*make_single_export(std::move(device), "disk"), options)),
        path_((directory_ / "socket").native()) {
    REQUIRE(server_->listen_unix(path_));
    thread_ = std::thread([this] { result_ = server_->run(); });
  }
  ~TlsServed() {
    if (thread_.joinable()) stop();
  }
  Clock::duration stop() {
    const auto start = Clock::now();
    server_->request_stop();
    thread_.join();
    CHECK(result_);
    return Clock::now() - start;
  }
  Server* operator->() { return server_.get(); }
  const std::string& path() const { return path_; }

 private:
  TempDir directory_;
  std::unique_ptr<Server> server_;
  std::string path_;
  std::thread thread_;
  Result<void> result_;
};

/// An NBD client that can go over to TLS in the middle of its handshake.
class Client {
 public:
  Client(const std::string& path, const ClientFiles& files)
      : socket_(SocketClient::on_unix(path)), tls_(files) {
    socket_.receive(kGreetingBytes);
    socket_.send(testing::client_flags());
  }

  SocketClient& plain() { return socket_; }
  TlsClient& tls() { return tls_; }

  /// False when either side refused.
  bool start_tls() {
    socket_.send(testing::option(Option::starttls));
    if (!socket_.receive_option_answer().is(OptionReply::ack)) return false;
    while (!tls_.shake_hands() && tls_.error() == 0) {
      socket_.try_send(tls_.take());
      if (!receive()) return false;
    }
    return socket_.try_send(tls_.take()) && tls_.error() == 0;
  }

  void send(std::span<const std::byte> bytes) {
    tls_.write(bytes);
    socket_.send(tls_.take());
  }
  std::span<const std::byte> take(std::size_t count) {
    while (stream_.left() < count) {
      const std::size_t before = stream_.left();
      stream_.add(tls_.read());
      if (tls_.error() != 0) throw std::runtime_error(gnutls_strerror(tls_.error()));
      if (stream_.left() == before && !receive()) throw std::runtime_error("the server hung up");
    }
    return stream_.take(count);
  }
  OptionAnswer ask(Option number, std::span<const std::byte> data = {}) {
    send(testing::option(number, data));
    return answer();
  }
  OptionAnswer answer() {
    Bytes whole;
    whole += take(kOptionReplyHeaderBytes);
    whole += take(load_be<std::uint32_t>(whole, 16));
    testing::Stream stream(std::move(whole));
    return testing::take_option_answer(stream);
  }
  bool go(bool structured = false) {
    if (structured) ask(Option::structured_reply);
    OptionAnswer told = ask(Option::go, testing::info_data("disk"));
    while (told.is(OptionReply::info)) told = answer();
    structured_ = structured;
    return told.is(OptionReply::ack);
  }
  /// A simple reply.
  Answer ask(const Request& request, std::span<const std::byte> payload = {}) {
    Bytes message;
    message += encode_request(request);
    message += payload;
    send(message);
    Bytes whole;
    whole += take(kSimpleReplyBytes);
    const bool has_data = request.command == Command::read && load_be<std::uint32_t>(whole, 4) == 0;
    if (has_data) whole += take(request.length);
    testing::Stream stream(std::move(whole));
    return testing::take_answer(stream, request, structured_);
  }

 private:
  bool receive() {
    std::array<std::byte, 65536> part;
    const ssize_t count = ::recv(socket_.fd(), part.data(), part.size(), 0);
    if (count <= 0) return false;
    tls_.give(std::span(part).first(static_cast<std::size_t>(count)));
    return true;
  }

  SocketClient socket_;
  TlsClient tls_;
  testing::Stream stream_;
  bool structured_ = false;
};

std::shared_ptr<testing::MemoryDevice> memory_device(std::size_t size) {
  return std::make_shared<testing::MemoryDevice>(testing::pattern_bytes(size));
}

/// Whether `condition` comes true within five seconds.
template <class Condition>
bool soon(Condition&& condition) {
  for (const auto until = Clock::now() + 5s; Clock::now() < until;) {
    if (condition()) return true;
    std::this_thread::sleep_for(2ms);
  }
  return condition();
}

}  // namespace

TEST_CASE("a disk travels through TLS, runs of files included", "[server][tls]") {
  const std::vector<std::byte> bytes = testing::pattern_bytes(8 << 20);
  const UniqueFd file(::memfd_create("tls-test", MFD_CLOEXEC));
  REQUIRE(::pwrite(file.get(), bytes.data(), bytes.size(), 0) ==
          static_cast<ssize_t>(bytes.size()));
  auto device = std::make_shared<testing::ExtentDevice>();
  const auto store =
      std::make_shared<testing::FileStore>(fmt::format("/proc/self/fd/{}", file.get()));
  device->content(store, ContentNo{0}, 0, bytes.size());
  device->hole(1 << 20);
  TlsServed server(device, options_with(GENERATE(TlsMode::on, TlsMode::require), true));
  const ClientFiles files =
      GENERATE(0, 1) == 0 ? party().with_certificate(&party().client) : Party::with_key();
  Client client(server.path(), files);
  REQUIRE(client.start_tls());
  REQUIRE(client.go());
  for (const auto& [offset, length] : std::vector<std::pair<std::uint64_t, std::uint32_t>>{
           {0, 512}, {1000, 100'000}, {0, 8 << 20}, {(8 << 20) - 5000, 10'000}}) {
    const Answer answer = client.ask({0, Command::read, 7, offset, length});
    REQUIRE(answer.is(WireError::ok));
    for (std::size_t i = 0; i < length; ++i) {
      const std::byte expected = offset + i < bytes.size() ? bytes[offset + i] : std::byte{0};
      if (answer.data[i] != expected) FAIL("byte " << offset + i << " is wrong");
    }
  }
  CHECK(store->pins == 0);  // nothing for the kernel to send
}

TEST_CASE("the payload of a refused write is dropped through TLS, too", "[server][tls][A13]") {
  const auto device = memory_device(1 << 20);
  TlsServed server(device, options_with(TlsMode::require));
  Client client(server.path(), Party::with_key());
  REQUIRE(client.start_tls());
  REQUIRE(client.go());
  for (const std::size_t length : {512UZ, 100'000UZ, 1UZ << 20}) {
    const Request write{0, Command::write, 1, 0, static_cast<std::uint32_t>(length)};
    CHECK(client.ask(write, Bytes(length, std::byte{0x25})).is(WireError::perm));
    const Answer answer = client.ask({0, Command::read, 2, 4096, 4096});
    CHECK(answer.is(WireError::ok));
    CHECK(std::ranges::equal(answer.data, std::span(device->bytes()).subspan(4096, 4096)));
  }
}

namespace {

class LogOfTest final : public LogSink {
 public:
  void write(LogLevel level, std::string_view message) noexcept override {
    const std::lock_guard lock(mutex_);
    if (level == LogLevel::info || level == LogLevel::debug) text_ += std::string(message) + "\n";
  }
  /// Whether the text is there within five seconds.
  bool has(const std::string& text) {
    for (const auto until = Clock::now() + 5s; Clock::now() < until;) {
      {
        const std::lock_guard lock(mutex_);
        if (text_.find(text) != std::string::npos) return true;
      }
      std::this_thread::sleep_for(2ms);
    }
    UNSCOPED_INFO(text_);
    return false;
  }

 private:
  std::mutex mutex_;
  std::string text_;
};

}  // namespace

TEST_CASE("the log has the names of certificates and keys", "[server][tls]") {
  LogOfTest log;
  ServerOptions options = options_with(TlsMode::require, true);
  options.log = &log;
  TlsServed server(std::make_shared<testing::MemoryDevice>(testing::pattern_bytes(4096)), options);
  const std::string user = fmt::format("(user {} (process {})", ::geteuid(), ::getpid());
  const char* const version = GENERATE(net::testing::kTls12, net::testing::kTls13);
  CAPTURE(version);
  {
    Client client(server.path(), party().with_certificate(&party().client, version));
    REQUIRE(client.start_tls());
    REQUIRE(client.go());
    CHECK(client.ask({0, Command::read, 1, 0, 512}).is(WireError::ok));
  }
  CHECK(log.has("client 1 " + user + ", export \"disk\", certificate \"CN=client\"): connected\n"));
  CHECK(log.has("client 1 " + user + ", export \"disk\", certificate \"CN=client\"): gone after "));
  {
    Client client(server.path(), Party::with_key("alice", std::string(32, '\x77'), version));
    REQUIRE(client.start_tls());
    REQUIRE(client.go());
  }
  CHECK(log.has("client 2 " + user + ", export \"disk\", key \"alice\"): connected\n"));
  {
    Client client(server.path(), party().with_certificate(&party().revoked, version));
    bool was_served = false;
    try {
      was_served = client.start_tls() && client.go();
    } catch (const std::runtime_error&) {
      // With TLS 1.3 the client is done before the server has seen its certificate.
    }
    CHECK_FALSE(was_served);
  }
  CHECK(log.has("client 3 " + user + ", unverified certificate \"CN=revoked\"): refused: TLS: "));
  {
    Client client(server.path(), {});
    client.plain().send(testing::option(Option::go, testing::info_data("disk")));
    CHECK(client.plain().receive_option_answer().is(OptionReply::err_tls_reqd));
  }
  CHECK(log.has("client 4 " + user + "): refused: it asked for an export without TLS\n"));
}

TEST_CASE("what was said before TLS is forgotten", "[server][tls][A3]") {
  TlsServed server(memory_device(4096), options_with(TlsMode::on));
  Client client(server.path(), party().with_certificate());
  client.plain().send(testing::option(Option::structured_reply));
  CHECK(client.plain().receive_option_answer().is(OptionReply::ack));
  REQUIRE(client.start_tls());
  // Were replies still structured, this simple one would be a violation, and a second
  // STRUCTURED_REPLY an error.
  REQUIRE(client.go());
  CHECK(client.ask({0, Command::read, 2, 0, 512}).is(WireError::ok));

  Client other(server.path(), party().with_certificate());
  other.plain().send(testing::option(Option::structured_reply));
  CHECK(other.plain().receive_option_answer().is(OptionReply::ack));
  REQUIRE(other.start_tls());
  CHECK(other.ask(Option::structured_reply).is(OptionReply::ack));
  CHECK(other.ask(Option::starttls).is(OptionReply::err_invalid));
  CHECK(other.go());
}

TEST_CASE("what stands between STARTTLS and TLS ends the connection", "[server][tls][A3][T4]") {
  TlsServed server(memory_device(4096), options_with(TlsMode::on));
  const Bytes injected = GENERATE(testing::option(Option::structured_reply),
                                  testing::option(Option::go, testing::info_data("")), Bytes(1));
  SocketClient client = SocketClient::on_unix(server.path());
  client.receive(kGreetingBytes);
  Bytes message = testing::client_flags();
  message += testing::option(Option::starttls);
  message += injected;
  client.send(message);
  // At most the answer to STARTTLS comes back: nothing that was injected is answered.
  CHECK(client.receive_rest().size() <= kOptionReplyHeaderBytes);
}

TEST_CASE("a client without TLS gets nothing from a server that requires it", "[server][tls]") {
  TlsServed server(memory_device(4096), options_with(TlsMode::require));
  SocketClient client = SocketClient::on_unix(server.path());
  client.receive(kGreetingBytes);
  client.send(testing::client_flags());
  for (const Option number : {Option::list, Option::structured_reply, Option::go}) {
    client.send(testing::option(number, number == Option::go ? testing::info_data("") : Bytes()));
    CHECK(client.receive_option_answer().is(OptionReply::err_tls_reqd));
  }
  client.send(testing::option(Option::export_name));
  CHECK(client.receive_rest().empty());
}

TEST_CASE("a client that fails TLS goes, and the others stay", "[server][tls]") {
  TlsServed server(memory_device(4096), options_with(TlsMode::on, true));
  Client good(server.path(), Party::with_key());
  REQUIRE(good.start_tls());
  REQUIRE(good.go());
  {
    Client wrong(server.path(), Party::with_key("alice", std::string(32, 'x')));
    CHECK_FALSE(wrong.start_tls());
    // The alert, then the end.
    CHECK(wrong.tls().error() != 0);
  }
  {
    Client stranger(server.path(),
                    party().with_certificate(&party().stranger, net::testing::kTls12));
    CHECK_FALSE(stranger.start_tls());
    CHECK(stranger.tls().error() != 0);
  }
  {
    SocketClient garbage = SocketClient::on_unix(server.path());
    garbage.receive(kGreetingBytes);
    garbage.send(testing::client_flags());
    garbage.send(testing::option(Option::starttls));
    CHECK(garbage.receive_option_answer().is(OptionReply::ack));
    garbage.send(testing::option(Option::go, testing::info_data("")));
    CHECK(garbage.receive_rest().size() < 100);
  }
  CHECK(soon([&] { return server->connection_count() == 1; }));
  CHECK(good.ask({0, Command::read, 2, 0, 512}).is(WireError::ok));
}

TEST_CASE("the handshake's deadline covers that of TLS", "[server][tls][O10]") {
  ServerOptions options = options_with(TlsMode::require);
  options.handshake_timeout = 200ms;
  TlsServed server(memory_device(4096), options);
  Client done(server.path(), Party::with_key());
  REQUIRE(done.start_tls());
  REQUIRE(done.go());
  const auto start = Clock::now();
  Client client(server.path(), Party::with_key());
  client.plain().send(testing::option(Option::starttls));
  CHECK(client.plain().receive_option_answer().is(OptionReply::ack));
  SECTION("silent") {}
  SECTION("a byte now and then") {
    client.tls().shake_hands();
    const Bytes hello = client.tls().take();
    std::size_t sent = 0;
    while (sent < hello.size() && client.plain().try_send(std::span(hello).subspan(sent, 1))) {
      ++sent;
      std::this_thread::sleep_for(20ms);
    }
    CHECK(sent < 100);
  }
  SECTION("TLS and nothing behind it") {
    Client other(server.path(), Party::with_key());
    REQUIRE(other.start_tls());
    other.plain().receive_rest();
  }
  client.plain().receive_rest();
  CHECK(Clock::now() - start >= 180ms);
  CHECK(Clock::now() - start < 5s);
  CHECK(done.ask({0, Command::read, 2, 0, 512}).is(WireError::ok));
}

TEST_CASE("a server says good-bye through TLS, and stops with idle clients", "[server][tls]") {
  TlsServed server(memory_device(4096), options_with(TlsMode::on));
  Client leaving(server.path(), Party::with_key());
  REQUIRE(leaving.start_tls());
  REQUIRE(leaving.go());
  leaving.send(testing::request(Command::disc, 1, 0, 0));
  leaving.tls().give(leaving.plain().receive_rest());
  leaving.tls().read();
  CHECK(leaving.tls().closed_by_server());

  Client idle(server.path(), Party::with_key());
  REQUIRE(idle.start_tls());
  REQUIRE(idle.go());
  CHECK(server.stop() < 3s);
}

TEST_CASE("a client that leaves at any byte of a TLS session leaves nothing", "[server][tls][A7]") {
  TlsServed server(memory_device(4096), options_with(TlsMode::on));
  for (std::size_t at = 0; at < 400; at += 13) {
    Client client(server.path(), Party::with_key());
    client.plain().send(testing::option(Option::starttls));
    CHECK(client.plain().receive_option_answer().is(OptionReply::ack));
    client.tls().shake_hands();
    const Bytes hello = client.tls().take();
    client.plain().try_send(std::span(hello).first(std::min(at, hello.size())));
    client.plain().close();
  }
  CHECK(soon([&] { return server->connection_count() == 0; }));
}

TEST_CASE("URIs lead clients to TLS and to the files", "[server][tls]") {
  const TempDir directory;
  write_file(directory / "keys", "the/user:00112233445566778899aabbccddeeff");
  net::TlsFiles files;
  files.psk_file = (directory / "keys").string();
  ServerOptions options;
  options.tls = TlsMode::on;
  options.tls_credentials = *net::TlsCredentials::load(files);
  const auto tree = *make_single_export(memory_device(512), "disk");
  const auto server = *Server::create(tree, options);
  const std::string path = (directory / "socket").string();
  REQUIRE(server->listen_unix(path));
  REQUIRE(server->listen_tcp("127.0.0.1", 0));
  const std::vector<std::string> uris = server->uris("disk");
  REQUIRE(uris.size() == 2);
  CHECK(uris[0] ==
        "nbds+unix://the%2Fuser@/disk?socket=" + path + "&tls-psk-file=" + files.psk_file);
  CHECK_THAT(uris[1], Catch::StartsWith("nbds://the%2Fuser@127.0.0.1:") &&
                          Catch::EndsWith("/disk?tls-psk-file=" + files.psk_file));

  options.tls_credentials = party().credentials(true, false);
  const auto other = *Server::create(tree, options);
  REQUIRE(other->listen_unix((directory / "other").string()));
  CHECK(other->uris("").front() == "nbds+unix:///?socket=" + (directory / "other").string() +
                                       "&tls-certificates=" + party().root.path().string());

  options.tls = TlsMode::off;
  const auto without = *Server::create(tree, options);
  REQUIRE(without->listen_unix((directory / "third").string()));
  CHECK(without->uris("").front() == "nbd+unix:///?socket=" + (directory / "third").string());
}

}  // namespace mkvirtfs::nbd
