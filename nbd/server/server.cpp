// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/server/server.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cassert>
#include <cerrno>
#include <exception>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <system_error>
#include <unordered_map>
#include <utility>
#include <vector>

#include "nbd/server/connection.h"
#include "nbd/server/uri.h"
#include "net/job_queue.h"
#include "net/listener.h"
#include "support/message.h"
#include "support/mutex.h"
#include "support/worker_pool.h"

namespace mkvirtfs::nbd {
namespace {

using Clock = std::chrono::steady_clock;

/// How long accepting rests when the machine has no descriptor or memory for one more client.
constexpr std::chrono::milliseconds kAcceptRest{100};

/// When clients that were found late are looked at again.
constexpr std::chrono::milliseconds kLookAgain{50};

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
    eventfd_t count;
    ::eventfd_read(fd_.get(), &count);  // it never waits, and fails when there is nothing to clear
  }

 private:
  UniqueFd fd_;
};

/// What a name that a client or an operator chose may take of a line in the log.
constexpr std::size_t kMostLoggedName = 128;

std::string for_log(std::string_view name) {
  return name.size() <= kMostLoggedName ? std::string(name)
                                        : std::string(name.substr(0, kMostLoggedName)) + "...";
}

/// Descriptors that are left to the process, when `newest` is the one that it was given last: the
/// kernel gives the lowest free one.
std::size_t descriptors_behind(int newest, std::size_t limit) noexcept {
  const auto used = static_cast<std::size_t>(newest) + 1;
  return limit > used ? limit - used : 0;
}

// What epoll tells of: clients by their number, listeners by their place, and the wakeup.
constexpr std::uint64_t kListenerBit = std::uint64_t{1} << 63;
constexpr std::uint64_t kWakeupTag = ~std::uint64_t{0};

}  // namespace

class Server::Implementation {
 public:
  Implementation(std::shared_ptr<ExportTree> exports, ServerOptions options, Wakeup wakeup,
                 UniqueFd epoll)
      : exports_(std::move(exports)),
        options_(options),
        wakeup_(std::move(wakeup)),
        epoll_(std::move(epoll)),
        connection_threads_(options.most_connection_threads),
        jobs_(options.most_job_threads) {}
  ~Implementation();

  Result<void> watch_wakeup() { return watch(wakeup_.fd(), EPOLLIN, kWakeupTag, EPOLL_CTL_ADD); }
  Result<void> add_listener(net::Listener listener);

  std::vector<std::string> uris(std::string_view export_name) const {
    std::vector<std::string> result;
    result.reserve(listeners_.size());
    const net::TlsCredentials* const tls =
        options_.tls != TlsMode::off ? options_.tls_credentials.get() : nullptr;
    for (const net::Listener& listener : listeners_) {
      std::string uri = uri_of(listener.address(), export_name, tls);
      if (!uri.empty()) result.push_back(std::move(uri));
    }
    return result;
  }

  std::size_t connection_count() const {
    const MutexLock lock(mutex_);
    return clients_.size();
  }

  ServerStatistics statistics() const;

  Result<void> adopt(UniqueFd socket);
  Result<void> run();

  void request_stop() noexcept {
    stop_requested_.store(true, std::memory_order_release);
    wakeup_.notify();
  }
  void request_stop_at_once() noexcept {
    stop_at_once_.store(true, std::memory_order_release);
    request_stop();
  }

 private:
  /// A client, as a task that goes on with its connection. It is in one of three places: parked,
  /// until the poll or a job wakes it; queued for a thread; running on one.
  class Client final : public Task, public std::enable_shared_from_this<Client> {
   public:
    Client(Implementation& server, std::uint64_t its_number, net::Peer its_peer, UniqueFd socket,
           const ConnectionOptions& options)
        : number(its_number),
          peer(its_peer),
          connection(std::move(socket), *server.exports_, options, Connection::Patience::linger),
          server_(server) {}
    void run() noexcept override { server_.serve(*this); }

    const std::uint64_t number;
    const net::Peer peer;
    const Clock::time_point connected_at = Clock::now();
    Connection connection;                // of the thread that runs it
    bool told_of_come = false;            // of that thread, too
    std::atomic<bool> is_served = false;  // it has opened an export
    /// When it must be woken at the latest.
    std::atomic<Clock::time_point> deadline = Clock::time_point::max();

    enum class Place : std::uint8_t { parked, queued, running, gone };
    Mutex mutex;
    Place place GUARDED_BY(mutex) = Place::parked;
    bool woken GUARDED_BY(mutex) = false;  // while it was running
    std::vector<std::shared_ptr<Job>> done_jobs GUARDED_BY(mutex);
    bool watched = false;  // known to epoll; of the thread that runs it

   private:
    Implementation& server_;
  };

  class ClientJob final : public Task {
   public:
    ClientJob(Implementation& server, std::shared_ptr<Client> client, std::shared_ptr<Job> job)
        : server_(server), client_(std::move(client)), job_(std::move(job)) {}
    void run() noexcept override {
      job_->run();
      {
        const MutexLock lock(client_->mutex);
        client_->done_jobs.push_back(job_);
      }
      server_.wake(*client_);
    }

   private:
    Implementation& server_;
    const std::shared_ptr<Client> client_;
    const std::shared_ptr<Job> job_;
  };

  Result<void> watch(int fd, std::uint32_t events, std::uint64_t tag, int operation);
  void wake(Client& client) noexcept;
  void serve(Client& client) noexcept;
  void go_on(Client& client);
  void log_progress(Client& client);
  void log_end(const Client& client);
  static std::string describe(const Client& client);
  Result<void> check_room(const net::Peer& peer, int socket) REQUIRES(mutex_);
  /// Since when nobody is served any more who once was; nothing while somebody is, or nobody was.
  std::optional<Clock::time_point> deserted_since() const;
  bool may_leave(Clock::time_point& next_look) const;
  bool park(Client& client, std::vector<std::shared_ptr<Job>>& done_jobs);
  void start_jobs(Client& client);
  void remove(Client& client) noexcept;
  void keep_statistics(const RequestMeter& meter) noexcept REQUIRES(mutex_);
  void accept_from(const net::Listener& listener);
  void dispatch(Clock::time_point until);
  void watch_listeners(bool accepting);
  void wake_late_clients(Clock::time_point now);
  void stop();
  std::vector<std::shared_ptr<Client>> clients() const;

  template <class... Arguments>
  void log(LogLevel level, fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    options_.log->write(level, fmt::format(format, std::forward<Arguments>(arguments)...));
  }

  const std::shared_ptr<ExportTree> exports_;
  const ServerOptions options_;
  const Wakeup wakeup_;
  const UniqueFd epoll_;
  std::atomic<bool> stop_requested_ = false;
  std::atomic<bool> stop_at_once_ = false;

  // The server's thread's own.
  std::vector<net::Listener> listeners_;
  bool accepting_ = true;
  Clock::time_point accept_again_at_;

  mutable Mutex mutex_;
  std::uint64_t clients_accepted_ GUARDED_BY(mutex_) = 0;
  Clock::time_point look_at_ GUARDED_BY(mutex_) = Clock::time_point::max();  // none is late before
  std::unordered_map<std::uint64_t, std::shared_ptr<Client>> clients_ GUARDED_BY(mutex_);
  std::uint64_t clients_refused_ GUARDED_BY(mutex_) = 0;
  std::size_t clients_served_ GUARDED_BY(mutex_) = 0;  // at this moment
  std::optional<Clock::time_point> last_served_gone_at_ GUARDED_BY(mutex_);
  std::optional<Clock::time_point> last_gone_at_ GUARDED_BY(mutex_);
  // Of clients that are gone.
  std::map<std::string, ExportStatistics> kept_statistics_ GUARDED_BY(mutex_);
  ExportStatistics other_statistics_ GUARDED_BY(mutex_);

  // Last, so that they end first: connections give jobs away, and jobs wake connections.
  WorkerPool connection_threads_;
  net::JobQueue jobs_;
};

Server::Implementation::~Implementation() {
  while (true) {
    const auto left = clients();
    if (left.empty()) break;
    for (const auto& client : left) {
      client->connection.cut();
      wake(*client);
    }
    pollfd waited{wakeup_.fd(), POLLIN, 0};
    ::poll(&waited, 1, 100);
    wakeup_.clear();
  }
}

Result<void> Server::Implementation::watch(int fd, std::uint32_t events, std::uint64_t tag,
                                           int operation) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = tag;
  if (::epoll_ctl(epoll_.get(), operation, fd, &event) != 0) return fail_errno(errno, "epoll_ctl");
  return {};
}

Result<void> Server::Implementation::add_listener(net::Listener listener) {
  const std::uint64_t tag = kListenerBit | listeners_.size();
  if (auto watched = watch(listener.fd(), EPOLLIN, tag, EPOLL_CTL_ADD); !watched) return watched;
  listeners_.push_back(std::move(listener));
  return {};
}

std::vector<std::shared_ptr<Server::Implementation::Client>> Server::Implementation::clients()
    const {
  std::vector<std::shared_ptr<Client>> result;
  const MutexLock lock(mutex_);
  result.reserve(clients_.size());
  for (const auto& [number, client] : clients_) result.push_back(client);
  return result;
}

Result<void> Server::Implementation::check_room(const net::Peer& peer, int socket) {
  if (clients_.size() >= options_.most_connections) {
    return fail(Errc::no_space, fmt::format("{}: {} clients are connected, which is the limit",
                                            peer.text(), clients_.size()));
  }
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return {};
  const auto most = static_cast<std::size_t>(limit.rlim_cur);
  const std::size_t reserve = std::min(options_.descriptor_reserve, most / 4);
  if (descriptors_behind(socket, most) >= reserve) return {};
  return fail(Errc::no_space,
              fmt::format("{}: {} clients are connected, and of the {} files that the process may "
                          "have open (ulimit -n) {} are kept for what is served",
                          peer.text(), clients_.size(), most, reserve));
}

Result<void> Server::Implementation::adopt(UniqueFd socket) {
  const net::Peer peer = net::Peer::of_socket(socket.get());
  if (options_.admits && !options_.admits(peer)) {
    const MutexLock lock(mutex_);
    ++clients_refused_;
    return fail(Errc::io, fmt::format("{} may not connect", peer.text()));
  }
  ConnectionOptions options;
  options.handshake_timeout = options_.handshake_timeout;
  options.tls = options_.tls;
  options.tls_credentials = options_.tls_credentials;
  if (options_.extensions) options.extensions = options_.extensions.get();
  options.features = options_.features;
  options.most_names_listed = options_.most_names_listed;
  std::shared_ptr<Client> client;
  {
    const MutexLock lock(mutex_);
    if (Result<void> room = check_room(peer, socket.get()); !room) {
      ++clients_refused_;
      return room;
    }
    client = std::make_shared<Client>(*this, ++clients_accepted_, peer, std::move(socket), options);
    client->deadline = client->connection.deadline().value_or(Clock::time_point::max());
    look_at_ = std::min(look_at_, client->deadline.load());
    clients_.emplace(client->number, client);
  }
  wakeup_.notify();  // to look at the deadlines: this may be another thread
  wake(*client);
  return {};
}

/// Sees to it that the client's connection is looked after: now, or once more when it is already.
void Server::Implementation::wake(Client& client) noexcept {
  {
    const MutexLock lock(client.mutex);
    if (client.place == Client::Place::running) client.woken = true;
    if (client.place != Client::Place::parked) return;
    client.place = Client::Place::queued;
  }
  if (connection_threads_.submit(client.shared_from_this())) return;
  options_.log->write(LogLevel::error, "a client was cut off: no thread can be started");
  remove(client);
}

void Server::Implementation::serve(Client& client) noexcept {
  // The thread's border: what a device throws, or a lack of memory, ends this client and no more.
  try {
    go_on(client);
    return;
  } catch (...) {
    options_.log->write(LogLevel::error,
                        error_of_exception("serve a client, which is cut off").what);
  }
  remove(client);
}

void Server::Implementation::go_on(Client& client) {
  Connection& connection = client.connection;
  std::vector<std::shared_ptr<Job>> done_jobs;
  {
    const MutexLock lock(client.mutex);
    client.place = Client::Place::running;
    client.woken = false;
    done_jobs.swap(client.done_jobs);
  }
  do {
    for (const auto& job : done_jobs) connection.job_done(job);
    done_jobs.clear();
    connection.on_ready(connection_threads_.is_crowded() ? Connection::Patience::none
                                                         : Connection::Patience::linger);
    start_jobs(client);
    log_progress(client);
    if (connection.ended()) {
      log_end(client);
      remove(client);
      return;
    }
  } while (!park(client, done_jobs));
}

/// `client 7 (192.0.2.7:49152, export "disk", key "alice")`.
std::string Server::Implementation::describe(const Client& client) {
  const Connection& connection = client.connection;
  std::string text = fmt::format("client {} ({}", client.number, client.peer.text());
  if (connection.meter().has_begun()) {
    text += fmt::format(", export \"{}\"", for_log(connection.meter().export_name()));
  }
  if (const std::string identity = connection.peer_identity(); !identity.empty()) {
    text += ", " + for_log(identity);
  }
  return text + ")";
}

void Server::Implementation::log_progress(Client& client) {
  Connection& connection = client.connection;
  if (!client.is_served && connection.has_opened_export()) {
    const MutexLock lock(mutex_);
    client.is_served = true;
    ++clients_served_;
  }
  if (!client.told_of_come && connection.meter().has_begun()) {
    client.told_of_come = true;
    log(LogLevel::debug, "{}: connected", describe(client));
  }
  for (const Remark& remark : connection.take_remarks()) {
    log(remark.level, "{}: {}", describe(client), remark.text);
  }
}

void Server::Implementation::log_end(const Client& client) {
  const Connection& connection = client.connection;
  if (const std::string why = connection.refusal(); !why.empty()) {
    log(LogLevel::info, "{}: refused: {}", describe(client), why);
    return;
  }
  const std::string& reason = connection.end_reason();
  const std::chrono::duration<double> stay = Clock::now() - client.connected_at;
  log(LogLevel::debug, "{}: gone after {:.3f} s{}{}", describe(client), stay.count(),
      reason.empty() ? "" : ": ", reason);
}

/// Leaves the connection to the poll, or to another turn when others wait for a thread. False when
/// there is something to do for it already: then `done_jobs` are what came back.
bool Server::Implementation::park(Client& client, std::vector<std::shared_ptr<Job>>& done_jobs) {
  const Connection& connection = client.connection;
  const Clock::time_point deadline = connection.deadline().value_or(Clock::time_point::max());
  client.deadline.store(deadline, std::memory_order_relaxed);
  MutexLock lock(client.mutex);
  const bool busy = client.woken || !client.done_jobs.empty() || connection.has_more();
  if (busy && !connection_threads_.is_crowded()) {
    client.woken = false;
    done_jobs.swap(client.done_jobs);
    return false;
  }
  if (busy) {
    client.place = Client::Place::queued;
    lock.unlock();
    if (!connection_threads_.submit(client.shared_from_this())) remove(client);
    return true;
  }
  client.place = Client::Place::parked;
  std::uint32_t events = EPOLLONESHOT;
  if (connection.want_read()) {
    events |= EPOLLIN;
    client.connection.trim();
  }
  if (connection.want_write()) events |= EPOLLOUT;
  // Wanting nothing, it waits for a job; a client that hangs up meanwhile is seen later.
  if (events == EPOLLONESHOT) return true;
  const Result<void> watched =
      watch(connection.fd(), events, client.number, client.watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD);
  client.watched = true;
  if (!watched) {
    lock.unlock();
    log(LogLevel::error, "client {}: cut off: {}", client.number, watched.error().what);
    remove(client);
  }
  return true;
}

void Server::Implementation::start_jobs(Client& client) {
  while (std::shared_ptr<Job> job = client.connection.take_job()) {
    jobs_.submit(job->lane(), std::make_shared<ClientJob>(*this, client.shared_from_this(), job));
  }
}

void Server::Implementation::remove(Client& client) noexcept {
  {
    const MutexLock lock(client.mutex);
    client.place = Client::Place::gone;
  }
  client.connection.cut();
  // Jobs may hold it for a while, and its descriptor with it.
  if (client.watched) ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, client.connection.fd(), nullptr);
  std::shared_ptr<Client> last;  // freed when the lock is left
  {
    const MutexLock lock(mutex_);
    const auto found = clients_.find(client.number);
    if (found != clients_.end()) {
      keep_statistics(client.connection.meter());
      last = std::move(found->second);
      clients_.erase(found);
      const Clock::time_point now = Clock::now();
      last_gone_at_ = now;
      if (client.is_served && --clients_served_ == 0) last_served_gone_at_ = now;
    }
  }
  wakeup_.notify();
}

void Server::Implementation::keep_statistics(const RequestMeter& meter) noexcept {
  if (!meter.has_begun()) return;
  try {
    ExportStatistics gone = meter.statistics();
    gone.connections_open = 0;
    const auto found = kept_statistics_.find(gone.name);
    if (found != kept_statistics_.end()) {
      found->second += gone;
    } else if (kept_statistics_.size() < ServerStatistics::kMostExports) {
      std::string name = gone.name;
      kept_statistics_.emplace(std::move(name), std::move(gone));
    } else {
      other_statistics_ += gone;
    }
  } catch (const std::bad_alloc&) {
    // Where there is no memory, the numbers of one client are the least that is lost.
  }
}

ServerStatistics Server::Implementation::statistics() const {
  ServerStatistics result;
  std::map<std::string, ExportStatistics> exports;
  {
    const MutexLock lock(mutex_);
    result.connections_open = clients_.size();
    result.connections_total = clients_accepted_;
    result.connections_refused = clients_refused_;
    result.others = other_statistics_;
    exports = kept_statistics_;
    for (const auto& [number, client] : clients_) {
      const RequestMeter& meter = client->connection.meter();
      if (!meter.has_begun()) continue;
      ExportStatistics& exported = exports[meter.export_name()];
      exported.name = meter.export_name();
      exported += meter.statistics();
    }
  }
  result.exports.reserve(exports.size());
  for (auto& [name, exported] : exports) result.exports.push_back(std::move(exported));
  return result;
}

void Server::Implementation::accept_from(const net::Listener& listener) {
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
        watch_listeners(false);
        break;
      default:
        break;  // it left already, or something of that kind
    }
    return;
  }
  const Result<void> adopted = adopt(std::move(socket));
  if (!adopted) log(LogLevel::info, "a client was refused: {}", adopted.error().what);
}

void Server::Implementation::watch_listeners(bool accepting) {
  accepting_ = accepting;
  for (std::size_t i = 0; i < listeners_.size(); ++i) {
    // Modifying what is watched needs no memory: it can not fail.
    [[maybe_unused]] const auto watched =
        watch(listeners_[i].fd(), accepting ? EPOLLIN : 0U, kListenerBit | i, EPOLL_CTL_MOD);
  }
}

void Server::Implementation::wake_late_clients(Clock::time_point now) {
  std::vector<std::shared_ptr<Client>> late;
  {
    const MutexLock lock(mutex_);
    if (now < look_at_) return;
    look_at_ = Clock::time_point::max();
    for (const auto& [number, client] : clients_) {
      const Clock::time_point deadline = client->deadline.load(std::memory_order_relaxed);
      if (deadline <= now) {
        late.push_back(client);
        // It may have been given more time meanwhile, and ends else.
        look_at_ = std::min(look_at_, now + kLookAgain);
      } else {
        look_at_ = std::min(look_at_, deadline);
      }
    }
  }
  for (const auto& client : late) wake(*client);
}

/// One round of the poll.
void Server::Implementation::dispatch(Clock::time_point until) {
  {
    const MutexLock lock(mutex_);
    until = std::min(until, look_at_);
  }
  if (!accepting_) until = std::min(until, accept_again_at_);
  int timeout_ms = -1;
  if (until != Clock::time_point::max()) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
    timeout_ms = static_cast<int>(std::clamp<std::int64_t>(left, 0, 1'000'000));
  }
  std::array<epoll_event, 64> events;
  const int count =
      ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), timeout_ms);
  for (int i = 0; i < count; ++i) {
    const std::uint64_t tag = events[static_cast<std::size_t>(i)].data.u64;
    if (tag == kWakeupTag) {
      wakeup_.clear();
    } else if ((tag & kListenerBit) != 0) {
      const std::size_t place = tag & ~kListenerBit;
      if (place < listeners_.size()) accept_from(listeners_[place]);
    } else {
      std::shared_ptr<Client> client;
      {
        const MutexLock lock(mutex_);
        const auto found = clients_.find(tag);
        if (found != clients_.end()) client = found->second;
      }
      if (client) wake(*client);
    }
  }
  const Clock::time_point now = Clock::now();
  if (!accepting_ && now >= accept_again_at_) watch_listeners(true);
  wake_late_clients(now);
}

std::optional<Clock::time_point> Server::Implementation::deserted_since() const {
  const MutexLock lock(mutex_);
  if (clients_served_ > 0) return std::nullopt;
  // Without a listener nobody else can come: then it does not matter how far the last one got.
  return listeners_.empty() && clients_.empty() ? last_gone_at_ : last_served_gone_at_;
}

/// Whether the server was left long enough; else when to ask again.
bool Server::Implementation::may_leave(Clock::time_point& next_look) const {
  next_look = Clock::time_point::max();
  const auto since = options_.stop_after_last ? deserted_since() : std::nullopt;
  if (!since) return false;
  const Clock::time_point leave_at = *since + *options_.stop_after_last;
  if (Clock::now() < leave_at) {
    next_look = leave_at;
    return false;
  }
  // Who is just in the handshake may become a client; that has an end, which is heard of.
  return connection_count() == 0;
}

Result<void> Server::Implementation::run() {
  Clock::time_point next_look;
  while (!stop_requested_.load(std::memory_order_acquire) && !may_leave(next_look)) {
    dispatch(next_look);
  }
  stop();
  return {};
}

void Server::Implementation::stop() {
  listeners_.clear();
  const Clock::time_point deadline = Clock::now() + options_.stop_grace;
  for (const auto& client : clients()) {
    client->connection.begin_shutdown();
    wake(*client);
  }
  while (connection_count() > 0 && Clock::now() < deadline &&
         !stop_at_once_.load(std::memory_order_acquire)) {
    dispatch(deadline);
  }
  const auto stuck = clients();
  for (const auto& client : stuck) {
    client->connection.cut();
    wake(*client);
  }
  if (!stuck.empty())
    log(LogLevel::info, "{} clients did not leave in time: cut off", stuck.size());
  while (connection_count() > 0) dispatch(Clock::time_point::max());
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
  UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return fail_errno(errno, "make an epoll descriptor");
  auto implementation = std::make_unique<Implementation>(
      std::move(exports), options, Wakeup(std::move(wakeup)), std::move(epoll));
  if (auto watched = implementation->watch_wakeup(); !watched) {
    return propagate(watched);
  }
  return std::unique_ptr<Server>(new Server(std::move(implementation)));
}

Result<void> Server::listen_unix(const std::string& path) {
  Result<net::Listener> listener = net::Listener::on_unix(path);
  if (!listener) return propagate(listener);
  return implementation_->add_listener(*std::move(listener));
}

Result<void> Server::listen_tcp(const std::string& host, std::uint16_t port) {
  Result<std::vector<net::Listener>> listeners = net::Listener::on_tcp(host, port);
  if (!listeners) return propagate(listeners);
  for (net::Listener& listener : *listeners) {
    if (auto added = implementation_->add_listener(std::move(listener)); !added) return added;
  }
  return {};
}

Result<void> Server::listen_vsock(std::uint32_t cid, std::uint32_t port) {
  Result<net::Listener> listener = net::Listener::on_vsock(cid, port);
  if (!listener) return propagate(listener);
  return implementation_->add_listener(*std::move(listener));
}

Result<void> Server::listen_on(UniqueFd socket) {
  Result<net::Listener> listener = net::Listener::on_socket(std::move(socket));
  if (!listener) return propagate(listener);
  return implementation_->add_listener(*std::move(listener));
}

Result<void> Server::adopt(UniqueFd connected) {
  return implementation_->adopt(std::move(connected));
}

std::vector<std::string> Server::uris(std::string_view export_name) const {
  return implementation_->uris(export_name);
}

std::size_t Server::connection_count() const { return implementation_->connection_count(); }

ServerStatistics Server::statistics() const { return implementation_->statistics(); }

Result<void> Server::run() { return implementation_->run(); }

void Server::request_stop() noexcept { implementation_->request_stop(); }

void Server::request_stop_at_once() noexcept { implementation_->request_stop_at_once(); }

}  // namespace mkvirtfs::nbd
