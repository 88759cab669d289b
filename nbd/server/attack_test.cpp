// SPDX-License-Identifier: BSD-3-Clause
#include <malloc.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <deque>
#include <filesystem>
#include <mutex>
#include <random>
#include <set>
#include <thread>

#include <fmt/format.h>

#include "block/testing/computed_extent.h"
#include "block/testing/memory_device.h"
#include "nbd/server/list_hier.h"
#include "nbd/server/server.h"
#include "nbd/server/session.h"
#include "nbd/server/testing/memory_driver.h"
#include "nbd/server/testing/socket_client.h"

// Attacks that concern the server as a whole, by the numbers of docs/nbd-support.md. Those on one
// part of it stand beside that part.

namespace mkvirtfs::nbd {
namespace {

using namespace std::chrono_literals;
using testing::Answer;
using testing::Bytes;
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

/// What malloc has given out. Sanitizers have another malloc: then it is always 0, and they look
/// for leaks themselves.
std::size_t heap_bytes() { return ::mallinfo2().uordblks + ::mallinfo2().hblkhd; }

template <class Condition>
bool soon(Condition&& condition) {
  for (const auto until = Clock::now() + 5s; Clock::now() < until;) {
    if (condition()) return true;
    std::this_thread::sleep_for(2ms);
  }
  return condition();
}

/// A disk that may be written by several threads.
class SharedDisk final : public BlockDevice {
 public:
  explicit SharedDisk(std::size_t size) : bytes_(size) {
    geometry_.size_bytes = size;
    geometry_.writable = true;
  }
  const Geometry& geometry() const noexcept override { return geometry_; }
  Result<void> read(std::uint64_t offset, std::span<std::byte> out) override {
    const std::lock_guard lock(mutex_);
    std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(offset), out.size(), out.begin());
    return {};
  }
  void map(Range range, ExtentSink& sink) const override {
    mkvirtfs::testing::map_computed(range, sink);
  }
  Result<void> write(std::uint64_t offset, std::span<const std::byte> data) override {
    const std::lock_guard lock(mutex_);
    std::ranges::copy(data, bytes_.begin() + static_cast<std::ptrdiff_t>(offset));
    return {};
  }
  Result<void> zero(Range range, bool) override { return write(range.offset, Bytes(range.length)); }
  Result<void> trim(Range) override { return {}; }
  Result<void> flush() override { return {}; }

 private:
  std::mutex mutex_;
  std::vector<std::byte> bytes_;
  Geometry geometry_;
};

/// A server without listeners, which is handed its clients.
class Served {
 public:
  explicit Served(std::shared_ptr<BlockDevice> device, ServerOptions options = {})
      : Served(*make_single_export(std::move(device), "disk"), std::move(options)) {}
  explicit Served(std::shared_ptr<ExportTree> tree, ServerOptions options = {})
      : server_(*Server::create(std::move(tree), std::move(options))),
        thread_([this] { result_ = server_->run(); }) {}
  ~Served() {
    server_->request_stop();
    join();
  }
  Served(const Served&) = delete;
  Served& operator=(const Served&) = delete;

  SocketClient connect() {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
      throw std::runtime_error("socketpair");
    }
    SocketClient client{UniqueFd(ends[1])};
    if (!server_->adopt(UniqueFd(ends[0]))) throw std::runtime_error("adopt");
    return client;
  }
  /// Waits until run() has returned; whether it went well.
  bool join() {
    if (thread_.joinable()) thread_.join();
    return result_.has_value();
  }
  Server* operator->() { return server_.get(); }

 private:
  std::unique_ptr<Server> server_;
  Result<void> result_;
  std::thread thread_;
};

}  // namespace

TEST_CASE("clients that only connect, or were busy once, cost little memory", "[attack][A4][A6]") {
  rlimit limit{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
  const std::size_t count = std::min<std::size_t>(500, limit.rlim_cur / 2 - 100);
  Served server(std::make_shared<MemoryDevice>(pattern_bytes(1 << 20)));
  std::vector<SocketClient> clients;
  clients.reserve(count);
  server.connect().handshake(true);
  REQUIRE(soon([&] { return server->connection_count() == 0; }));

  const std::size_t before = heap_bytes();
  for (std::size_t i = 0; i < count; ++i) clients.push_back(server.connect());
  for (SocketClient& client : clients) {
    CHECK(client.receive(kGreetingBytes).size() == kGreetingBytes);
  }
  const std::size_t connected = heap_bytes() - std::min(before, heap_bytes());
  CAPTURE(connected / count);
  CHECK(connected / count < 16 << 10);
  CHECK(soon([&] { return threads() <= 5; }));
  clients.clear();
  REQUIRE(soon([&] { return server->connection_count() == 0; }));

  for (std::size_t i = 0; i < count; ++i) {
    clients.push_back(server.connect());
    clients.back().handshake(i % 2 == 0);
    CHECK(clients.back().read(0, 1 << 20).is(WireError::ok));
  }
  // They have been quiet for long enough when their threads are gone.
  CHECK(soon([&] { return threads() <= 5; }));
  const std::size_t idle = heap_bytes() - std::min(before, heap_bytes());
  CAPTURE(idle / count);
  CHECK(idle / count < 64 << 10);
}

TEST_CASE("options in any order are answered one by one", "[attack][A3][A4][A14]") {
  const auto tree =
      *make_fixed_exports({{"disk", "", std::make_shared<MemoryDevice>(pattern_bytes(1 << 16))},
                           {"more/other", "", std::make_shared<MemoryDevice>(pattern_bytes(512))}});
  Extensions extensions;
  REQUIRE(add_list_hier(extensions));
  std::mt19937 random(5);
  const auto any = [&](std::size_t count) { return random() % count; };
  constexpr std::array<Option, 12> kOptions = {Option::abort,
                                               Option::list,
                                               Option::peek_export,
                                               Option::starttls,
                                               Option::info,
                                               Option::go,
                                               Option::structured_reply,
                                               Option::list_meta_context,
                                               Option::set_meta_context,
                                               Option::extended_headers,
                                               kListHier,
                                               Option{77}};
  constexpr std::array<const char*, 6> kNames = {"", "disk", "more/other", "more", "dis", "\n%n"};
  std::size_t agreed = 0;
  std::size_t broken = 0;

  for (int sequence = 0; sequence < 4000; ++sequence) {
    CAPTURE(sequence);
    const auto mode = std::array{TlsMode::off, TlsMode::on, TlsMode::require}[any(3)];
    Session session(*tree, {}, mode, extensions);
    testing::MemoryDriver driver(session, any(4) == 0 ? 1 : SIZE_MAX);
    testing::Stream stream(driver.exchange(testing::client_flags()));
    testing::take_greeting(stream);
    // What a right server would remember.
    bool secured = mode == TlsMode::off;
    ReplyStyle style = ReplyStyle::simple;
    std::string selected_for = "none";
    for (int i = 0; i < 20 && session.in_handshake() && !session.finished(); ++i) {
      const bool leaves = any(30) == 0;
      const Option number = leaves ? Option::abort : kOptions[1 + any(kOptions.size() - 1)];
      const std::string name = kNames[any(kNames.size())];
      Bytes data;
      if (number == Option::info || number == Option::go) data = testing::info_data(name, {1, 3});
      if (number == Option::list_meta_context || number == Option::set_meta_context) {
        data = testing::meta_data(name, {"base:allocation", "x-mkvirtfs:", "\n"});
      }
      if (number == kListHier) data = Bytes(16);
      if (any(8) == 0) data += Bytes(any(20));
      if (any(8) == 0) data.resize(data.size() - std::min(data.size(), any(4)));
      const auto answered = driver.exchange(testing::option(std::to_underlying(number), data));
      testing::Stream replies(answered);
      std::optional<testing::OptionAnswer> last;
      while (!replies.empty() && (!last || !(last->is(OptionReply::ack) || last->is_error()))) {
        last = testing::take_option_answer(replies);
        if (Option{last->option} != number) ++broken;
        if (last->is_error() && testing::text_of(last->data).find('\n') != std::string::npos) {
          ++broken;
        }
      }
      if (!last || !replies.empty()) ++broken;
      if (!last) break;
      const bool good = last->is(OptionReply::ack);
      if (mode == TlsMode::require && !secured && good && number != Option::starttls &&
          number != Option::abort) {
        ++broken;
      }
      if (!good) {
        if (number == Option::set_meta_context && !last->is(OptionReply::err_tls_reqd)) {
          selected_for = "none";
        }
        continue;
      }
      switch (number) {
        case Option::starttls:
          if (!session.wants_tls()) ++broken;
          session.tls_established();
          secured = true;
          style = ReplyStyle::simple;
          selected_for = "none";
          break;
        case Option::structured_reply:
          style = ReplyStyle::structured;
          break;
        case Option::extended_headers:
          style = ReplyStyle::extended;
          break;
        case Option::set_meta_context:
          selected_for = name.empty() ? "disk" : name;
          break;
        case Option::go: {
          ++agreed;
          const bool structured = style != ReplyStyle::simple;
          const bool extended = style == ReplyStyle::extended;
          const auto ask = [&](const Request& asked) {
            Bytes message;
            if (extended) {
              message += encode_extended_request(asked);
            } else {
              message += encode_request(asked);
            }
            testing::Stream answers(driver.exchange(message));
            const Answer answer = testing::take_answer(answers, asked, structured, extended);
            if (!answers.empty()) ++broken;
            return answer;
          };
          if (!ask({0, Command::read, 1, 0, 512}).is(WireError::ok)) ++broken;
          const bool selected = structured && selected_for == (name.empty() ? "disk" : name);
          if (ask({0, Command::block_status, 2, 0, 512}).is(WireError::ok) != selected) ++broken;
          break;
        }
        default:
          break;
      }
    }
  }
  CHECK(broken == 0);
  CHECK(agreed > 1000);
}

TEST_CASE("a client that leaves at any byte leaves no byte of memory", "[attack][A7][A22]") {
  constexpr std::size_t kSize = 64 << 10;
  const auto style = GENERATE(ReplyStyle::simple, ReplyStyle::structured, ReplyStyle::extended);
  const bool extended = style == ReplyStyle::extended;
  // Everything there is: contexts, a write, block status, a flush and two reads.
  Bytes session = testing::client_flags();
  if (style == ReplyStyle::structured) session += testing::option(Option::structured_reply);
  if (extended) session += testing::option(Option::extended_headers);
  session += testing::option(Option::set_meta_context,
                             testing::meta_data("disk", {"base:allocation", "x-y:z"}));
  session += testing::option(Option::info, testing::info_data("disk", {1, 2, 3}));
  session += testing::option(Option::go, testing::info_data("disk"));
  const auto add = [&](std::uint16_t flags, Command command, std::uint64_t length) {
    const Request request{flags, command, session.size(), 0, length};
    if (extended) {
      session += encode_extended_request(request);
    } else {
      session += encode_request(request);
    }
  };
  add(0, Command::read, 5000);
  add(extended ? kPayloadLen : std::uint16_t{0}, Command::write, 600);
  session += Bytes(600);
  add(0, Command::block_status, kSize);
  add(0, Command::write_zeroes, 4096);
  add(0, Command::flush, 0);
  add(0, Command::read, 3000);
  add(0, Command::disc, 0);

  Served server(std::make_shared<SharedDisk>(kSize));
  const std::size_t threads_at_rest = threads();  // a sanitizer's own among them
  const auto at_rest = [&] {
    return soon([&] { return server->connection_count() == 0 && threads() == threads_at_rest; });
  };
  const std::size_t all_replies = [&] {
    SocketClient client = server.connect();
    client.send(session);
    return client.receive_rest().size();
  }();
  CHECK(all_replies > 8000);
  const auto leave_everywhere = [&] {
    for (std::size_t sent = 0; sent <= session.size(); ++sent) {
      SocketClient client = server.connect();
      client.try_send(std::span(session).first(sent));
      if (sent % 3 == 0) client.receive(kGreetingBytes);
    }
    // Also with replies half taken.
    for (std::size_t taken = 0; taken <= all_replies; taken += taken < 300 ? 1 : 61) {
      SocketClient client = server.connect();
      client.send(session);
      client.receive(taken);
    }
    return at_rest();
  };
  REQUIRE(leave_everywhere());  // what is kept for the next client is there now
  const std::size_t descriptors_before = open_descriptors();
  // More than a thousand clients: 16 bytes of each would be more. A leak grows each time, and what
  // is kept for more clients at once than there were before does not.
  constexpr std::size_t kNoise = 16384;
  std::size_t grown = kNoise;
  for (int turn = 0; turn < 4 && grown >= kNoise; ++turn) {
    const std::size_t heap_before = heap_bytes();
    REQUIRE(leave_everywhere());
    const std::size_t heap_after = heap_bytes();
    grown = heap_after > heap_before ? heap_after - heap_before : 0;
  }
  CHECK(open_descriptors() == descriptors_before);
  CHECK(grown < kNoise);
}

namespace {

Server* stopped_by_signal = nullptr;

}  // namespace

TEST_CASE("a signal handler may stop a busy server", "[attack][A10]") {
  struct sigaction action{};
  struct sigaction before{};
  action.sa_handler = [](int) { stopped_by_signal->request_stop(); };
  REQUIRE(::sigaction(SIGUSR2, &action, &before) == 0);
  for (int round = 0; round < 20; ++round) {
    Served server(std::make_shared<MemoryDevice>(pattern_bytes(1 << 20)));
    stopped_by_signal = &*server.operator->();
    std::atomic<bool> over = false;
    std::vector<std::thread> busy;
    for (int i = 0; i < 2; ++i) {
      busy.emplace_back([&] {
        try {
          while (!over) {
            SocketClient client = server.connect();
            client.handshake(true);
            for (int n = 0; n < 20; ++n) client.read(0, 100'000);
          }
        } catch (const std::exception&) {  // the server is gone
        }
      });
    }
    std::this_thread::sleep_for(std::chrono::microseconds(500 * round));
    // Delivered to this thread, wherever the others are; twice, because people are impatient.
    ::raise(SIGUSR2);
    ::raise(SIGUSR2);
    CHECK(server.join());
    over = true;
    for (std::thread& thread : busy) thread.join();
  }
  ::sigaction(SIGUSR2, &before, nullptr);
}

TEST_CASE("what a client calls an export is printable wherever it is printed",
          "[attack][A2][A15]") {
  const UniqueFd log_file(::memfd_create("log", MFD_CLOEXEC));
  FdLog log(log_file.get(), LogLevel::debug);
  ServerOptions options;
  options.log = &log;
  const std::string evil = "a\n\x1b[2J\x7f%n%s\xc2\x9b" + std::string(4000, '\r');
  // The source of one export has such a name, too.
  const auto tree =
      *make_lazy_exports({{"disk", "", []() -> Result<std::shared_ptr<BlockDevice>> {
                             return fail(Errc::unreadable, "read a\n\x1b[2J\x7f%n%s: No such file");
                           }}});
  const auto is_printable = [](std::string_view text) {
    return std::ranges::none_of(text, [](char c) {
      return static_cast<unsigned char>(c) < 0x20 || c == 0x7f || c == '\x9b';
    });
  };
  {
    Served server(tree, options);
    for (const std::string& name : {evil, std::string("disk")}) {
      SocketClient client = server.connect();
      client.receive(kGreetingBytes);
      client.send(testing::client_flags());
      for (const Option number : {Option::info, Option::go}) {
        client.send(testing::option(number, testing::info_data(name)));
        const auto answer = client.receive_option_answer();
        CHECK(answer.is_error());
        CHECK(answer.data.size() < 600);
        CHECK(is_printable(testing::text_of(answer.data)));
      }
      client.send(testing::option(Option::list_meta_context, testing::meta_data(name, {evil})));
      CHECK(is_printable(testing::text_of(client.receive_option_answer().data)));
      client.send(testing::option(Option::export_name, testing::bytes_of(name)));
      CHECK(client.receive_rest().empty());
    }
  }
  std::string told(static_cast<std::size_t>(::lseek(log_file.get(), 0, SEEK_END)), '\0');
  REQUIRE(::pread(log_file.get(), told.data(), told.size(), 0) == std::ssize(told));
  CHECK_FALSE(told.empty());
  std::size_t lines = 0;
  for (std::size_t at = 0; at < told.size(); ++lines) {
    const std::size_t end = told.find('\n', at);
    REQUIRE(end != std::string::npos);
    CHECK(is_printable(std::string_view(told).substr(at, end - at)));
    CHECK(told.substr(at).starts_with("mkvirtfs: "));
    CHECK(end - at < 6000);
    at = end + 1;
  }
  CHECK(lines < 20);
}

TEST_CASE("clients that send a byte now and then hold up no other", "[attack][A17]") {
  const auto device = std::make_shared<MemoryDevice>(pattern_bytes(1 << 20));
  Served server(device);
  std::vector<SocketClient> slow;
  for (int i = 0; i < 60; ++i) {
    slow.push_back(server.connect());
    slow.back().handshake(i % 2 == 0);
  }
  SocketClient quick = server.connect();
  quick.handshake(true);
  const Request asked{0, Command::read, 1, 4096, 100};
  const auto message = encode_request(asked);
  std::chrono::nanoseconds waited{};
  for (std::size_t at = 0; at < message.size(); ++at) {
    for (SocketClient& client : slow) client.send(std::span(message).subspan(at, 1));
    const auto start = Clock::now();
    REQUIRE(quick.read(0, 4096).is(WireError::ok));
    waited += Clock::now() - start;
  }
  CHECK(waited < 5s);
  CHECK(server->connection_count() == slow.size() + 1);
  for (SocketClient& client : slow) {
    const Answer answer = client.receive_answer(asked);
    CHECK(std::ranges::equal(answer.data, std::span(device->bytes()).subspan(4096, 100)));
  }
}

TEST_CASE("a write that races the stop is done and answered, or not done", "[attack][A21]") {
  constexpr std::size_t kClients = 3;
  constexpr std::size_t kWriteBytes = 8192;
  constexpr std::size_t kWrites = 400;
  for (int round = 0; round < 8; ++round) {
    const auto disk = std::make_shared<SharedDisk>(kClients * kWrites * kWriteBytes);
    std::vector<std::set<std::uint64_t>> answered(kClients);
    std::atomic<std::size_t> acknowledged = 0;
    std::atomic<int> wrong = 0;
    {
      Served server(disk);
      std::vector<std::thread> writers;
      for (std::size_t who = 0; who < kClients; ++who) {
        writers.emplace_back([&, who] {
          SocketClient client = server.connect();
          try {
            client.handshake(true);
            const Bytes data(kWriteBytes, std::byte{0x5a});
            std::deque<Request> sent;
            for (std::uint64_t n = 0; n < kWrites || !sent.empty();) {
              while (n < kWrites && sent.size() < 8) {
                sent.push_back(
                    {0, Command::write, n, (who * kWrites + n) * kWriteBytes, kWriteBytes});
                Bytes message;
                message += encode_request(sent.back());
                message += data;
                client.send(message);
                ++n;
              }
              const auto [request, answer] = client.receive_answer(sent);
              if (answer.is(WireError::ok)) {
                answered[who].insert(request.cookie);
                ++acknowledged;
              } else if (!answer.is(WireError::shutdown)) {
                ++wrong;
              }
              std::erase_if(sent, [&](const Request& one) { return one.cookie == request.cookie; });
            }
          } catch (const std::exception&) {  // the server is gone
          }
        });
      }
      // Each round stops at another place.
      const std::size_t stop_at = static_cast<std::size_t>(round) * 100 + 1;
      CHECK(soon([&] { return acknowledged >= stop_at; }));
      server->request_stop();
      CHECK(server.join());
      for (std::thread& writer : writers) writer.join();
    }
    CHECK(wrong == 0);
    std::size_t lost = 0;
    std::size_t torn = 0;
    for (std::size_t who = 0; who < kClients; ++who) {
      for (std::uint64_t n = 0; n < kWrites; ++n) {
        for (std::uint64_t block = 0; block < kWriteBytes; block += 4096) {
          Bytes bytes(4096);
          REQUIRE(disk->read((who * kWrites + n) * kWriteBytes + block, bytes));
          const bool written = bytes[0] == std::byte{0x5a};
          if (!written && answered[who].contains(n)) ++lost;
          if (std::ranges::adjacent_find(bytes, std::not_equal_to{}) != bytes.end()) ++torn;
        }
      }
    }
    CHECK(lost == 0);
    CHECK(torn == 0);
  }
}

TEST_CASE("ten thousand clients come and go", "[attack][A22]") {
  Served server(std::make_shared<MemoryDevice>(pattern_bytes(4096)));
  const std::size_t threads_at_rest = threads();
  const auto come_and_go = [&](int count) {
    for (int i = 0; i < count; ++i) {
      SocketClient client = server.connect();
      if (i % 4 == 0) client.try_send(testing::client_flags());
      if (i % 64 == 0) client.receive(kGreetingBytes);
    }
    return soon([&] { return server->connection_count() == 0 && threads() == threads_at_rest; });
  };
  REQUIRE(come_and_go(2000));
  const std::size_t heap_before = heap_bytes();
  const std::size_t descriptors_before = open_descriptors();
  REQUIRE(come_and_go(10'000));
  CHECK(open_descriptors() == descriptors_before);
  CHECK(heap_bytes() < heap_before + 65536);
}

}  // namespace mkvirtfs::nbd
