// SPDX-License-Identifier: BSD-3-Clause
#include "net/server_loop.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cassert>
#include <cerrno>
#include <chrono>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "net/client_roster.h"
#include "net/job_queue.h"
#include "net/wakeup.h"
#include "support/message.h"
#include "support/mutex.h"
#include "support/worker_pool.h"

// One thread polls the idle clients and the listeners; a client that is ready is queued for a pool,
// whose thread gives it turns until it is quiet. A client is in one place at a time (Place), and
// woken in the middle of a turn it gets another. What a turn cannot do without waiting comes back
// as jobs, which run on a second pool and wake the client when they are done.

namespace mkvirtfs::net {
namespace {

using Clock = std::chrono::steady_clock;

/// How long accepting rests when the machine has no descriptor or memory for one more client.
constexpr std::chrono::milliseconds kAcceptRest{100};

// What epoll reports: clients by their number, listeners by their place, and the wakeup.
constexpr std::uint64_t kListenerBit = std::uint64_t{1} << 63;
constexpr std::uint64_t kWakeupTag = ~std::uint64_t{0};

}  // namespace

class ServerLoop::Implementation {
 public:
  Implementation(MakeClient make_client, ServerLoopOptions options, Wakeup wakeup, UniqueFd epoll)
      : make_client_(std::move(make_client)),
        options_(std::move(options)),
        wakeup_(std::move(wakeup)),
        epoll_(std::move(epoll)),
        roster_(options_.most_connections, options_.descriptor_reserve),
        client_threads_(options_.most_connection_threads),
        jobs_(options_.most_job_threads) {}
  ~Implementation();

  Result<void> watch_wakeup() { return watch(wakeup_.fd(), EPOLLIN, kWakeupTag, EPOLL_CTL_ADD); }
  Result<void> add_listener(Listener listener);
  std::span<const Listener> listeners() const noexcept { return listeners_; }

  Counts counts() const { return roster_.counts(); }

  Result<void> adopt(UniqueFd socket);
  void run();

  void request_stop() noexcept {
    stop_requested_.store(true, std::memory_order_release);
    wakeup_.notify();
  }
  void request_stop_at_once() noexcept {
    stop_at_once_.store(true, std::memory_order_release);
    request_stop();
  }

 private:
  /// A client that this loop gives its turns.
  class Client final : public RosterClient, public std::enable_shared_from_this<Client> {
   public:
    Client(Implementation& loop, std::uint64_t its_number, std::unique_ptr<ServedClient> its_served)
        : RosterClient(its_number, std::move(its_served)), loop_(loop) {}
    void run() noexcept override { loop_.serve(*this); }

   private:
    Implementation& loop_;
  };
  /// The roster of this loop holds no others.
  static Client& own(RosterClient& client) noexcept { return static_cast<Client&>(client); }

  class ClientJob final : public Task {
   public:
    ClientJob(Implementation& loop, std::shared_ptr<Client> client, std::shared_ptr<LaneTask> job)
        : loop_(loop), client_(std::move(client)), job_(std::move(job)) {}
    void run() noexcept override {
      job_->run();
      {
        const MutexLock lock(client_->mutex);
        client_->done_jobs.push_back(job_);
      }
      loop_.wake(*client_);
    }

   private:
    Implementation& loop_;
    const std::shared_ptr<Client> client_;
    const std::shared_ptr<LaneTask> job_;
  };

  Result<void> watch(int fd, std::uint32_t events, std::uint64_t tag, int operation);
  void wake(Client& client) noexcept;
  void serve(Client& client) noexcept;
  void go_on(Client& client);
  bool may_leave(Clock::time_point& next_look) const;
  bool park(Client& client, const ServedClient::Wants& wants,
            std::vector<std::shared_ptr<LaneTask>>& done_jobs);
  bool watch_parked(Client& client, const ServedClient::Wants& wants) REQUIRES(client.mutex);
  void look_at(Clock::time_point when) noexcept;
  void start_jobs(Client& client);
  void remove(Client& client) noexcept;
  void accept_from(const Listener& listener);
  int poll_timeout_ms(Clock::time_point until) const;
  void dispatch(Clock::time_point until);
  void watch_listeners(bool accepting);
  void wake_late_clients(Clock::time_point now);
  void stop();

  template <class... Arguments>
  void log(LogLevel level, fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    options_.log->write(level, fmt::format(format, std::forward<Arguments>(arguments)...));
  }

  const MakeClient make_client_;
  const ServerLoopOptions options_;
  const Wakeup wakeup_;
  const UniqueFd epoll_;
  std::atomic<bool> stop_requested_ = false;
  std::atomic<bool> stop_at_once_ = false;

  // Of the thread of run().
  std::vector<Listener> listeners_;
  bool accepting_ = true;
  Clock::time_point accept_again_at_;

  ClientRoster roster_;

  // Last, so that they end first: clients give jobs away, and jobs wake clients.
  WorkerPool client_threads_;
  JobQueue jobs_;
};

ServerLoop::Implementation::~Implementation() {
  while (true) {
    const ClientRoster::Clients left = roster_.all();
    if (left.empty()) break;
    for (const auto& client : left) {
      client->served->cut();
      wake(own(*client));
    }
    pollfd waited{wakeup_.fd(), POLLIN, 0};
    ::poll(&waited, 1, 100);
    wakeup_.clear();
  }
}

Result<void> ServerLoop::Implementation::watch(int fd, std::uint32_t events, std::uint64_t tag,
                                               int operation) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = tag;
  if (::epoll_ctl(epoll_.get(), operation, fd, &event) != 0) return fail_errno(errno, "epoll_ctl");
  return {};
}

Result<void> ServerLoop::Implementation::add_listener(Listener listener) {
  const std::uint64_t tag = kListenerBit | listeners_.size();
  if (auto watched = watch(listener.fd(), EPOLLIN, tag, EPOLL_CTL_ADD); !watched) return watched;
  listeners_.push_back(std::move(listener));
  return {};
}

Result<void> ServerLoop::Implementation::adopt(UniqueFd socket) {
  const Peer peer = Peer::of_socket(socket.get());
  if (options_.admits && !options_.admits(peer)) {
    roster_.count_refused();
    return fail(Errc::io, fmt::format("{} may not connect", peer.text()));
  }
  const Result<std::uint64_t> number = roster_.take_seat(peer, socket.get());
  if (!number) return propagate(number);
  std::shared_ptr<Client> client;
  try {
    client =
        std::make_shared<Client>(*this, *number, make_client_({std::move(socket), *number, peer}));
    roster_.add(client);
  } catch (...) {
    roster_.leave_seat();
    return std::unexpected(error_of_exception("serve a client"));
  }
  look_at(client->deadline.load());
  wake(*client);
  return {};
}

/// Sees to it that deadlines are looked at then, at the latest. The poll may be another thread's.
void ServerLoop::Implementation::look_at(Clock::time_point when) noexcept {
  if (roster_.look_at(when)) wakeup_.notify();
}

/// Sees to it that the client gets a turn: now, or once more when it has one already.
void ServerLoop::Implementation::wake(Client& client) noexcept {
  {
    const MutexLock lock(client.mutex);
    if (client.place == Client::Place::running) client.woken = true;
    if (client.place != Client::Place::parked) return;
    client.place = Client::Place::queued;
  }
  if (client_threads_.submit(client.shared_from_this())) return;
  options_.log->write(LogLevel::error, "a client was cut off: no thread can be started");
  remove(client);
}

void ServerLoop::Implementation::serve(Client& client) noexcept {
  // The thread's border: what a turn throws, or a lack of memory, ends this client and no more.
  try {
    go_on(client);
    return;
  } catch (...) {
    options_.log->write(LogLevel::error,
                        error_of_exception("serve a client, which is cut off").what);
  }
  remove(client);
}

void ServerLoop::Implementation::go_on(Client& client) {
  ServedClient& served = *client.served;
  std::vector<std::shared_ptr<LaneTask>> done_jobs;
  {
    const MutexLock lock(client.mutex);
    client.place = Client::Place::running;
    client.woken = false;
    done_jobs.swap(client.done_jobs);
  }
  while (true) {
    for (const auto& job : done_jobs) served.job_done(job);
    done_jobs.clear();
    const ServedClient::Wants wants =
        served.turn(client_threads_.is_crowded() ? Patience::none : Patience::linger);
    start_jobs(client);
    if (wants.is_served && !client.is_served) roster_.count_served(client);
    if (wants.ended) return remove(client);
    if (park(client, wants, done_jobs)) return;
  }
}

/// Leaves the client to the poll, or to another turn when others wait for a thread. False when
/// there is something to do for it already: then `done_jobs` are what came back.
bool ServerLoop::Implementation::park(Client& client, const ServedClient::Wants& wants,
                                      std::vector<std::shared_ptr<LaneTask>>& done_jobs) {
  const Clock::time_point before = client.deadline.load(std::memory_order_relaxed);
  client.deadline.store(wants.deadline, std::memory_order_relaxed);
  if (wants.deadline < before) look_at(wants.deadline);
  MutexLock lock(client.mutex);
  const bool busy = client.woken || !client.done_jobs.empty() || wants.another_turn;
  if (busy && !client_threads_.is_crowded()) {
    client.woken = false;
    done_jobs.swap(client.done_jobs);
    return false;
  }
  bool is_kept = true;
  if (busy) {
    client.place = Client::Place::queued;
    lock.unlock();
    is_kept = client_threads_.submit(client.shared_from_this());
  } else {
    client.place = Client::Place::parked;
    is_kept = watch_parked(client, wants);
    lock.unlock();
  }
  if (!is_kept) remove(client);
  return true;
}

/// Has the poll wake a parked client. False, and the log says why, when it cannot.
bool ServerLoop::Implementation::watch_parked(Client& client, const ServedClient::Wants& wants) {
  std::uint32_t events = EPOLLONESHOT;
  if (wants.read) {
    events |= EPOLLIN;
    client.served->trim();
  }
  if (wants.write) events |= EPOLLOUT;
  // Wanting nothing, it waits for a job; a client that hangs up meanwhile is seen later.
  if (events == EPOLLONESHOT) return true;
  const int operation = client.watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
  const Result<void> watched = watch(client.served->fd(), events, client.number, operation);
  client.watched = true;
  if (!watched) log(LogLevel::error, "client {}: cut off: {}", client.number, watched.error().what);
  return watched.has_value();
}

void ServerLoop::Implementation::start_jobs(Client& client) {
  while (std::shared_ptr<LaneTask> job = client.served->take_job()) {
    const LaneKey lane = job->lane();
    jobs_.submit(lane,
                 std::make_shared<ClientJob>(*this, client.shared_from_this(), std::move(job)));
  }
}

void ServerLoop::Implementation::remove(Client& client) noexcept {
  bool is_first = false;
  {
    const MutexLock lock(client.mutex);
    is_first = std::exchange(client.place, Client::Place::gone) != Client::Place::gone;
  }
  client.served->cut();
  // Jobs may hold it for a while, and its descriptor with it.
  if (client.watched) ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, client.served->fd(), nullptr);
  if (is_first) client.served->removed();
  roster_.remove(client);
  wakeup_.notify();
}

void ServerLoop::Implementation::accept_from(const Listener& listener) {
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

void ServerLoop::Implementation::watch_listeners(bool accepting) {
  accepting_ = accepting;
  for (std::size_t i = 0; i < listeners_.size(); ++i) {
    // Modifying what is watched needs no memory: it cannot fail.
    [[maybe_unused]] const auto watched =
        watch(listeners_[i].fd(), accepting ? EPOLLIN : 0U, kListenerBit | i, EPOLL_CTL_MOD);
  }
}

void ServerLoop::Implementation::wake_late_clients(Clock::time_point now) {
  for (const auto& client : roster_.late_clients(now)) wake(own(*client));
}

int ServerLoop::Implementation::poll_timeout_ms(Clock::time_point until) const {
  until = std::min(until, roster_.next_look());
  if (!accepting_) until = std::min(until, accept_again_at_);
  if (until == Clock::time_point::max()) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
  return static_cast<int>(std::clamp<std::int64_t>(left, 0, 1'000'000));
}

/// One round of the poll.
void ServerLoop::Implementation::dispatch(Clock::time_point until) {
  std::array<epoll_event, 64> events;
  const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()),
                                 poll_timeout_ms(until));
  for (int i = 0; i < count; ++i) {
    const std::uint64_t tag = events[static_cast<std::size_t>(i)].data.u64;
    if (tag == kWakeupTag) {
      wakeup_.clear();
    } else if ((tag & kListenerBit) != 0) {
      const std::size_t place = tag & ~kListenerBit;
      if (place < listeners_.size()) accept_from(listeners_[place]);
    } else {
      if (const auto client = roster_.find(tag)) wake(own(*client));
    }
  }
  const Clock::time_point now = Clock::now();
  if (!accepting_ && now >= accept_again_at_) watch_listeners(true);
  wake_late_clients(now);
}

/// Whether the loop was left long enough; else when to ask again.
bool ServerLoop::Implementation::may_leave(Clock::time_point& next_look) const {
  next_look = Clock::time_point::max();
  if (!options_.stop_after_last) return false;
  // Without a listener no other can come: then it does not matter how far the last one got.
  const auto since = roster_.deserted_since(listeners_.empty() ? ClientRoster::Who::anyone
                                                               : ClientRoster::Who::served);
  if (!since) return false;
  const Clock::time_point leave_at = *since + *options_.stop_after_last;
  if (Clock::now() < leave_at) {
    next_look = leave_at;
    return false;
  }
  // One that has just connected may still be served; either way it ends, which wakes the poll.
  return roster_.size() == 0;
}

void ServerLoop::Implementation::run() {
  Clock::time_point next_look;
  while (!stop_requested_.load(std::memory_order_acquire) && !may_leave(next_look)) {
    dispatch(next_look);
  }
  stop();
}

void ServerLoop::Implementation::stop() {
  listeners_.clear();
  const Clock::time_point deadline = Clock::now() + options_.stop_grace;
  for (const auto& client : roster_.all()) {
    client->served->begin_shutdown();
    wake(own(*client));
  }
  while (roster_.size() > 0 && Clock::now() < deadline &&
         !stop_at_once_.load(std::memory_order_acquire)) {
    dispatch(deadline);
  }
  const ClientRoster::Clients stuck = roster_.all();
  for (const auto& client : stuck) {
    client->served->cut();
    wake(own(*client));
  }
  if (!stuck.empty())
    log(LogLevel::info, "{} clients did not leave in time: cut off", stuck.size());
  while (roster_.size() > 0) dispatch(Clock::time_point::max());
}

ServerLoop::ServerLoop(std::unique_ptr<Implementation> implementation)
    : implementation_(std::move(implementation)) {}

ServerLoop::~ServerLoop() = default;

Result<std::unique_ptr<ServerLoop>> ServerLoop::create(MakeClient make_client,
                                                       ServerLoopOptions options) {
  assert(make_client && options.log != nullptr);
  Result<Wakeup> wakeup = Wakeup::create();
  if (!wakeup) return propagate(wakeup);
  UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return fail_errno(errno, "make an epoll descriptor");
  auto implementation = std::make_unique<Implementation>(std::move(make_client), std::move(options),
                                                         *std::move(wakeup), std::move(epoll));
  if (auto watched = implementation->watch_wakeup(); !watched) return propagate(watched);
  return std::unique_ptr<ServerLoop>(new ServerLoop(std::move(implementation)));
}

Result<void> ServerLoop::add_listener(Listener listener) {
  return implementation_->add_listener(std::move(listener));
}

std::span<const Listener> ServerLoop::listeners() const noexcept {
  return implementation_->listeners();
}

Result<void> ServerLoop::adopt(UniqueFd connected) {
  return implementation_->adopt(std::move(connected));
}

ServerLoop::Counts ServerLoop::counts() const { return implementation_->counts(); }

void ServerLoop::run() { implementation_->run(); }

void ServerLoop::request_stop() noexcept { implementation_->request_stop(); }

void ServerLoop::request_stop_at_once() noexcept { implementation_->request_stop_at_once(); }

}  // namespace mkvirtfs::net
