// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "net/job_queue.h"
#include "net/peer.h"
#include "net/served_client.h"
#include "net/server_loop.h"
#include "support/error.h"
#include "support/mutex.h"
#include "support/worker_pool.h"

// The clients of a ServerLoop. For its own sources alone.

namespace mkvirtfs::net {

/// A client, as a task that gives it turns. It is in one place at a time: parked, until the poll or
/// a job wakes it; queued for a thread; running on one.
class RosterClient : public Task {
 public:
  using Clock = ServedClient::Clock;
  enum class Place : std::uint8_t { parked, queued, running, gone };

  RosterClient(std::uint64_t its_number, std::unique_ptr<ServedClient> its_served)
      : number(its_number), served(std::move(its_served)), deadline(served->first_deadline()) {}

  const std::uint64_t number;
  const std::unique_ptr<ServedClient> served;  // of the thread that runs it
  std::atomic<bool> is_served = false;         // see ServedClient::Wants
  /// When it must be woken at the latest.
  std::atomic<Clock::time_point> deadline;

  Mutex mutex;
  Place place GUARDED_BY(mutex) = Place::parked;
  bool woken GUARDED_BY(mutex) = false;  // while it was running
  std::vector<std::shared_ptr<LaneTask>> done_jobs GUARDED_BY(mutex);
  bool watched = false;  // known to epoll; of the thread that runs it
};

/// Which clients there are, and how many there may be. Any thread.
class ClientRoster {
 public:
  using Clock = ServedClient::Clock;
  using Clients = std::vector<std::shared_ptr<RosterClient>>;

  ClientRoster(std::size_t most_clients, std::size_t descriptor_reserve)
      : most_clients_(most_clients), descriptor_reserve_(descriptor_reserve) {}

  /// Admits a client with that socket, and keeps it a seat until add() or leave_seat(). Gives its
  /// number. Errc::no_space, and it is counted as refused, when there is no room.
  Result<std::uint64_t> take_seat(const Peer& peer, int socket);
  void leave_seat() noexcept;
  /// In its seat. May throw std::bad_alloc, and then the seat is still taken.
  void add(const std::shared_ptr<RosterClient>& client);
  /// False when it was not there.
  bool remove(const RosterClient& client) noexcept;
  /// A filter refused one.
  void count_refused() noexcept;
  /// It got what clients come for.
  void count_served(RosterClient& client) noexcept;

  ServerLoop::Counts counts() const;
  std::size_t size() const;
  Clients all() const;
  /// Null when it is gone.
  std::shared_ptr<RosterClient> find(std::uint64_t number) const;
  /// Since when no client is served any more, where one once was; of Who::anyone, since when none
  /// is connected, where one was. Nothing while one is.
  enum class Who : std::uint8_t { served, anyone };
  std::optional<Clock::time_point> deserted_since(Who who) const;

  /// When the deadlines must be looked at.
  Clock::time_point next_look() const;
  /// Moves that forward. False when it was as soon already.
  bool look_at(Clock::time_point when) noexcept;
  /// The clients whose deadline has come.
  Clients late_clients(Clock::time_point now);

 private:
  Result<void> check_room(const Peer& peer, int socket) const REQUIRES(mutex_);

  const std::size_t most_clients_;
  const std::size_t descriptor_reserve_;

  mutable Mutex mutex_;
  std::unordered_map<std::uint64_t, std::shared_ptr<RosterClient>> clients_ GUARDED_BY(mutex_);
  std::size_t seats_ GUARDED_BY(mutex_) = 0;  // that are kept for clients not in clients_ yet
  std::uint64_t admitted_ GUARDED_BY(mutex_) = 0;
  std::uint64_t refused_ GUARDED_BY(mutex_) = 0;
  std::size_t served_ GUARDED_BY(mutex_) = 0;  // at this moment
  std::optional<Clock::time_point> last_served_gone_at_ GUARDED_BY(mutex_);
  std::optional<Clock::time_point> last_gone_at_ GUARDED_BY(mutex_);
  Clock::time_point look_at_ GUARDED_BY(mutex_) = Clock::time_point::max();  // none is late before
};

}  // namespace mkvirtfs::net
