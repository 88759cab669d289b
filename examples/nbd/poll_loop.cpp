// SPDX-License-Identifier: BSD-3-Clause
// poll_loop SOCKET: clients in a poll loop that knows nothing of NBD, on one thread, as the loop of
// a program that has other things to do. The server has an option and a metadata context of its
// own.
#include <mkvirtfs/nbd/connection.h>

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <list>

using namespace mkvirtfs;

namespace {

/// A mebibyte that consists of stripes: 64 KiB of 'a', 64 KiB of 'b'...
class StripedDisk final : public BlockDevice {
 public:
  static constexpr std::size_t kStripeBytes = 64U << 10;

  StripedDisk() : bytes_(1U << 20), geometry_{.size_bytes = bytes_.size()} {
    for (std::size_t i = 0; i < bytes_.size(); ++i) {
      bytes_[i] = static_cast<std::byte>('a' + i / kStripeBytes);
    }
  }
  const Geometry& geometry() const noexcept override { return geometry_; }
  Result<void> read(std::uint64_t offset, std::span<std::byte> out) override {
    std::memcpy(out.data(), bytes_.data() + offset, out.size());
    return {};
  }
  void map(Range range, ExtentSink& sink) const override {
    if (range.length == 0) return;
    sink.extent({range.offset, range.length, ExtentKind::memory, bytes_.data() + range.offset});
  }

 private:
  std::vector<std::byte> bytes_;
  const Geometry geometry_;
};

/// "x-example:stripe": the number of each stripe as its status.
class StripeContext final : public nbd::MetaContext {
 public:
  std::string_view name() const noexcept override { return "x-example:stripe"; }
  void append_status(const BlockDevice&, Range request, const nbd::StatusLimits& limits,
                     std::vector<nbd::StatusRun>& runs) const override {
    const std::size_t most = runs.size() + limits.most_runs;
    while (request.length != 0 && runs.size() < most) {
      const std::uint64_t stripe = request.offset / StripedDisk::kStripeBytes;
      const std::uint64_t end = std::min(request.end(), (stripe + 1) * StripedDisk::kStripeBytes);
      runs.push_back({{request.offset, end - request.offset}, static_cast<std::uint32_t>(stripe)});
      request = {end, request.end() - end};
    }
  }
};

class ExampleNamespace final : public nbd::MetaNamespace {
 public:
  std::string_view name() const noexcept override { return "x-example"; }
  void list(std::string_view query, nbd::QueriedExport&,
            nbd::ContextListing& listing) const override {
    if (query.empty() || query == "stripe") listing.tell("x-example:stripe");
  }
  std::shared_ptr<const nbd::MetaContext> select(std::string_view query,
                                                 nbd::QueriedExport&) const override {
    return query == "stripe" ? std::make_shared<StripeContext>() : nullptr;
  }
};

/// An option that asks how many clients there are. It has no data; the answer is one number.
constexpr nbd::Option kCountClients{0x65780001};
constexpr nbd::OptionReply kClientCount{0x65780002};

nbd::OptionExtension count_clients(const std::list<nbd::Connection>& clients) {
  nbd::OptionExtension extension;
  extension.rule = {.option = kCountClients, .least_bytes = 0, .most_bytes = 0};
  extension.handler = [&clients](std::span<const std::byte>,
                                 nbd::OptionCall& call) -> std::expected<void, nbd::OptionRefusal> {
    const auto count = static_cast<std::uint32_t>(clients.size());
    const std::array<std::byte, 4> big_endian = {std::byte(count >> 24), std::byte(count >> 16),
                                                 std::byte(count >> 8), std::byte(count)};
    call.reply(kClientCount, big_endian);
    return {};
  };
  return extension;
}

volatile sig_atomic_t stopping = 0;

/// SIGTERM arrives only while the loop waits.
sigset_t block_stop_signal() {
  struct sigaction action{};
  action.sa_handler = [](int) { stopping = 1; };
  ::sigaction(SIGTERM, &action, nullptr);
  sigset_t stop, before;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  ::pthread_sigmask(SIG_BLOCK, &stop, &before);
  return before;
}

UniqueFd listen_on(const char* path) {
  UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path, sizeof address.sun_path - 1);
  ::unlink(path);
  if (::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(listener.get(), 16) != 0) {
    std::perror(path);
    listener.reset();
  }
  return listener;
}

/// Lets a client get on. What would wait for a disk comes as a job, which this loop has no disk
/// for.
void turn(nbd::Connection& client) {
  client.on_ready();
  while (const std::shared_ptr<nbd::Job> job = client.take_job()) {
    job->run();
    client.job_done(job);
    client.on_ready();
  }
}

void serve(int listener, nbd::ExportTree& exports) {
  using Clock = nbd::Connection::Clock;
  std::list<nbd::Connection> clients;
  nbd::Extensions extensions;
  if (!extensions.add_option(count_clients(clients)) ||
      !extensions.add_namespace(std::make_shared<ExampleNamespace>())) {
    return;
  }
  nbd::ConnectionOptions options;
  options.extensions = &extensions;
  const sigset_t while_waiting = block_stop_signal();
  std::vector<pollfd> polled;
  while (stopping == 0 || !clients.empty()) {
    polled.assign(1, {stopping == 0 ? listener : -1, POLLIN, 0});
    std::optional<Clock::time_point> deadline;
    for (const nbd::Connection& client : clients) {
      const int events = (client.want_read() ? POLLIN : 0) | (client.want_write() ? POLLOUT : 0);
      polled.push_back({client.fd(), static_cast<short>(events), 0});
      if (const auto one = client.deadline()) deadline = std::min(deadline.value_or(*one), *one);
    }
    timespec left{};
    if (deadline) {
      const auto ns = std::max(*deadline - Clock::now(), Clock::duration::zero()).count();
      left = {ns / 1'000'000'000, ns % 1'000'000'000};
    }
    if (::ppoll(polled.data(), polled.size(), deadline ? &left : nullptr, &while_waiting) < 0) {
      if (errno != EINTR) return;
      polled.clear();  // holds nothing true
    }
    std::size_t at = 1;
    for (auto client = clients.begin(); client != clients.end(); ++at) {
      const auto late = client->deadline();
      const bool ready = at < polled.size() && polled[at].revents != 0;
      if (stopping != 0) client->begin_shutdown();
      if (ready || stopping != 0 || (late && *late <= Clock::now())) turn(*client);
      client = client->ended() ? clients.erase(client) : std::next(client);
    }
    if (!polled.empty() && polled[0].revents != 0) {
      if (UniqueFd socket{::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)}) {
        clients.emplace_back(std::move(socket), exports, options);
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const auto exports = nbd::make_single_export(std::make_shared<StripedDisk>(), "stripes");
  const UniqueFd listener = listen_on(argv[1]);
  if (!exports || !listener) return 1;
  serve(listener.get(), **exports);
  ::unlink(argv[1]);
}
