// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/server.h"

#include <fmt/format.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cassert>
#include <cerrno>
#include <exception>
#include <list>
#include <system_error>
#include <thread>
#include <utility>

#include "nbd/connection.h"
#include "nbd/listener.h"
#include "support/mutex.h"

namespace mkvirtfs::nbd {
namespace {

using Clock = std::chrono::steady_clock;

/// How long accepting rests when the machine has no descriptor or memory for one more client.
constexpr std::chrono::milliseconds kAcceptRest{100};

/// An eventfd: notify() is safe in signal handlers and from any thread.
class Wakeup {
 public:
  explicit Wakeup(UniqueFd fd) : fd_(std::move(fd)) {}
  int fd() const noexcept { return fd_.get(); }
  void notify() const noexcept {
    const int kept = errno;
    const std::uint64_t one = 1;
    // It can only fail when the counter is full, and then there is a wakeup already.
    [[maybe_unused]] const ssize_t written = ::write(fd_.get(), &one, sizeof one);
    errno = kept;
  }
  void clear() const noexcept {
    std::uint64_t count;
    [[maybe_unused]] const ssize_t taken = ::read(fd_.get(), &count, sizeof count);
  }

 private:
  UniqueFd fd_;
};

/// Blocks asynchronous signals in this thread and in those it starts, while it lives. Signals that
/// tell of a thread's own fault stay as they are.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t blocked;
    ::sigfillset(&blocked);
    for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS}) {
      ::sigdelset(&blocked, fault);
    }
    ::pthread_sigmask(SIG_SETMASK, &blocked, &before_);
  }
  ~SignalsBlocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

}  // namespace

class Server::Implementation {
 public:
  Implementation(std::shared_ptr<ExportTree> exports, ServerOptions options, Wakeup wakeup)
      : exports_(std::move(exports)), options_(options), wakeup_(std::move(wakeup)) {}

  ~Implementation() {
    for_each_client([](Client& client) { client.connection.cut(); });
    join_all();
  }

  void add_listener(Listener listener) { listeners_.push_back(std::move(listener)); }

  std::vector<std::string> uris(std::string_view export_name) const {
    std::vector<std::string> result;
    result.reserve(listeners_.size());
    const TlsCredentials* const tls =
        options_.tls != TlsMode::off ? options_.tls_credentials.get() : nullptr;
    for (const Listener& listener : listeners_) result.push_back(listener.uri(export_name, tls));
    return result;
  }

  std::size_t connection_count() const {
    const MutexLock lock(mutex_);
    return running_;
  }

  Result<void> adopt(UniqueFd socket);
  Result<void> run();

  void request_stop() noexcept {
    stop_requested_.store(true, std::memory_order_release);
    wakeup_.notify();
  }

 private:
  /// A client and its thread. Made and destroyed by the server's thread.
  struct Client {
    Client(UniqueFd socket, ExportTree& exports, const ConnectionOptions& options)
        : connection(std::move(socket), exports, options) {}
    Connection connection;
    std::thread thread;
    std::uint64_t number = 0;
    bool gone = false;  // guarded by the server's mutex
  };

  void serve(Client& client) noexcept;
  void accept_from(const Listener& listener);
  void reap();
  void join_all();
  void stop();

  template <class Visit>
  void for_each_client(Visit&& visit) {
    const MutexLock lock(mutex_);
    for (Client& client : clients_) visit(client);
  }

  template <class... Arguments>
  void log(LogLevel level, fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    options_.log->write(level, fmt::format(format, std::forward<Arguments>(arguments)...));
  }

  const std::shared_ptr<ExportTree> exports_;
  const ServerOptions options_;
  const Wakeup wakeup_;
  std::atomic<bool> stop_requested_ = false;

  // The server's thread's own.
  std::vector<Listener> listeners_;
  std::uint64_t clients_accepted_ = 0;
  bool told_full_ = false;
  Clock::time_point accept_again_at_;

  mutable Mutex mutex_;
  std::list<Client> clients_ GUARDED_BY(mutex_);
  std::size_t running_ GUARDED_BY(mutex_) = 0;
};

Result<void> Server::Implementation::adopt(UniqueFd socket) {
  reap();
  ConnectionOptions options;
  options.handshake_timeout = options_.handshake_timeout;
  options.tls = options_.tls;
  options.tls_credentials = options_.tls_credentials;
  if (options_.extensions) options.extensions = options_.extensions.get();
  const MutexLock lock(mutex_);
  if (running_ >= options_.most_connections) {
    return fail(Errc::no_space,
                fmt::format("{} clients are connected, which is the limit", running_));
  }
  Client& client = clients_.emplace_back(std::move(socket), *exports_, options);
  client.number = ++clients_accepted_;
  try {
    // The new thread inherits the mask: it must not raise SIGPIPE, nor take the program's signals.
    const SignalsBlocked blocked;
    client.thread = std::thread([this, &client] { serve(client); });
  } catch (const std::system_error& error) {
    clients_.pop_back();
    return fail(Errc::no_space, fmt::format("start a thread for a client: {}", error.what()));
  }
  ++running_;
  return {};
}

void Server::Implementation::serve(Client& client) noexcept {
  // The thread's border: what a device throws, or a lack of memory, ends this client and no more.
  try {
    log(LogLevel::debug, "client {}: connected", client.number);
    const std::string reason = client.connection.serve();
    log(LogLevel::debug, "client {}: gone{}{}", client.number, reason.empty() ? "" : ": ", reason);
  } catch (const std::exception& error) {
    client.connection.cut();
    options_.log->write(LogLevel::error, "a client was cut off by an exception");
    options_.log->write(LogLevel::error, error.what());
  } catch (...) {
    client.connection.cut();
    options_.log->write(LogLevel::error, "a client was cut off by an unknown exception");
  }
  {
    const MutexLock lock(mutex_);
    client.gone = true;
    --running_;
  }
  wakeup_.notify();
}

void Server::Implementation::reap() {
  std::list<Client> gone;
  {
    const MutexLock lock(mutex_);
    for (auto at = clients_.begin(); at != clients_.end();) {
      const auto next = std::next(at);
      if (at->gone) gone.splice(gone.end(), clients_, at);
      at = next;
    }
  }
  for (Client& client : gone) client.thread.join();
}

void Server::Implementation::join_all() {
  std::list<Client> all;
  {
    const MutexLock lock(mutex_);
    all.swap(clients_);
  }
  for (Client& client : all) client.thread.join();
}

void Server::Implementation::accept_from(const Listener& listener) {
  UniqueFd socket(::accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!socket) {
    switch (errno) {
      case EMFILE:
      case ENFILE:
      case ENOBUFS:
      case ENOMEM:
        // The client stays in the queue, so asking again at once would only burn time.
        log(LogLevel::warning, "accept a client: {}; waiting for others to leave",
            std::generic_category().message(errno));
        accept_again_at_ = Clock::now() + kAcceptRest;
        break;
      default:
        break;  // it left already, or something of that kind
    }
    return;
  }
  const Result<void> adopted = adopt(std::move(socket));
  if (!adopted && !told_full_) {
    log(LogLevel::warning, "a client was turned away: {}", adopted.error().what);
  }
  // A crowd is told of once, not once a head.
  told_full_ = !adopted;
}

Result<void> Server::Implementation::run() {
  std::vector<pollfd> waited;
  while (!stop_requested_.load(std::memory_order_acquire)) {
    waited.assign(1, {wakeup_.fd(), POLLIN, 0});
    int timeout_ms = -1;
    const auto rest = std::chrono::ceil<std::chrono::milliseconds>(accept_again_at_ - Clock::now());
    if (rest.count() > 0) {
      timeout_ms = static_cast<int>(rest.count());
    } else {
      for (const Listener& listener : listeners_) waited.push_back({listener.fd(), POLLIN, 0});
    }
    if (::poll(waited.data(), waited.size(), timeout_ms) < 0 && errno != EINTR) {
      const int error = errno;
      stop();
      return fail_errno(error, "wait for clients");
    }
    if (waited[0].revents != 0) {
      wakeup_.clear();
      reap();
    }
    for (std::size_t i = 1; i < waited.size(); ++i) {
      if (waited[i].revents != 0) accept_from(listeners_[i - 1]);
    }
  }
  stop();
  return {};
}

void Server::Implementation::stop() {
  listeners_.clear();
  const Clock::time_point deadline = Clock::now() + options_.stop_grace;
  for_each_client([](Client& client) { client.connection.begin_shutdown(); });
  while (connection_count() > 0) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) break;
    pollfd waited{wakeup_.fd(), POLLIN, 0};
    ::poll(&waited, 1, static_cast<int>(std::min<std::int64_t>(left, 1'000'000)));
    wakeup_.clear();
    reap();
  }
  std::size_t cut_off = 0;
  for_each_client([&](Client& client) {
    if (!client.gone) ++cut_off;
    client.connection.cut();
  });
  if (cut_off > 0) log(LogLevel::info, "{} clients did not leave in time: cut off", cut_off);
  join_all();
}

Server::Server(std::unique_ptr<Implementation> implementation)
    : implementation_(std::move(implementation)) {}

Server::~Server() = default;

Result<std::unique_ptr<Server>> Server::create(std::shared_ptr<ExportTree> exports,
                                               ServerOptions options) {
  assert(exports != nullptr && options.log != nullptr);
  assert(options.tls == TlsMode::off || options.tls_credentials != nullptr);
  UniqueFd wakeup(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wakeup) return fail_errno(errno, "make an eventfd");
  return std::unique_ptr<Server>(new Server(
      std::make_unique<Implementation>(std::move(exports), options, Wakeup(std::move(wakeup)))));
}

Result<void> Server::listen_unix(const std::string& path) {
  Result<Listener> listener = Listener::on_unix(path);
  if (!listener) return std::unexpected(std::move(listener).error());
  implementation_->add_listener(*std::move(listener));
  return {};
}

Result<void> Server::listen_tcp(const std::string& host, std::uint16_t port) {
  Result<std::vector<Listener>> listeners = Listener::on_tcp(host, port);
  if (!listeners) return std::unexpected(std::move(listeners).error());
  for (Listener& listener : *listeners) implementation_->add_listener(std::move(listener));
  return {};
}

Result<void> Server::adopt(UniqueFd connected) {
  return implementation_->adopt(std::move(connected));
}

std::vector<std::string> Server::uris(std::string_view export_name) const {
  return implementation_->uris(export_name);
}

std::size_t Server::connection_count() const { return implementation_->connection_count(); }

Result<void> Server::run() { return implementation_->run(); }

void Server::request_stop() noexcept { implementation_->request_stop(); }

}  // namespace mkvirtfs::nbd
