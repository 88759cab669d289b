// SPDX-License-Identifier: BSD-3-Clause
#include "net/client_roster.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>

namespace mkvirtfs::net {
namespace {

/// When clients that were found late are looked at again.
constexpr std::chrono::milliseconds kLookAgain{50};

/// Descriptors that are left to the process, when `newest` is the one that it was given last: the
/// kernel gives the lowest free one.
std::size_t descriptors_behind(int newest, std::size_t limit) noexcept {
  const auto used = static_cast<std::size_t>(newest) + 1;
  return limit > used ? limit - used : 0;
}

}  // namespace

Result<void> ClientRoster::check_room(const Peer& peer, int socket) const {
  const std::size_t connected = clients_.size() + seats_;
  if (connected >= most_clients_) {
    return fail(Errc::no_space, fmt::format("{}: {} clients are connected, which is the limit",
                                            peer.text(), connected));
  }
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return {};
  const auto most = static_cast<std::size_t>(limit.rlim_cur);
  const std::size_t reserve = std::min(descriptor_reserve_, most / 4);
  if (descriptors_behind(socket, most) >= reserve) return {};
  return fail(Errc::no_space,
              fmt::format("{}: {} clients are connected, and of the {} files that the process may "
                          "have open (ulimit -n) {} are kept for what is served",
                          peer.text(), connected, most, reserve));
}

Result<std::uint64_t> ClientRoster::take_seat(const Peer& peer, int socket) {
  const MutexLock lock(mutex_);
  if (Result<void> room = check_room(peer, socket); !room) {
    ++refused_;
    return propagate(room);
  }
  ++seats_;
  return ++admitted_;
}

void ClientRoster::leave_seat() noexcept {
  const MutexLock lock(mutex_);
  --seats_;
}

void ClientRoster::add(const std::shared_ptr<RosterClient>& client) {
  const MutexLock lock(mutex_);
  clients_.emplace(client->number, client);
  --seats_;
}

bool ClientRoster::remove(const RosterClient& client) noexcept {
  std::shared_ptr<RosterClient> removed;  // freed when the lock is left
  const MutexLock lock(mutex_);
  const auto found = clients_.find(client.number);
  if (found == clients_.end()) return false;
  removed = std::move(found->second);
  clients_.erase(found);
  const Clock::time_point now = Clock::now();
  last_gone_at_ = now;
  if (client.is_served && --served_ == 0) last_served_gone_at_ = now;
  return true;
}

void ClientRoster::count_refused() noexcept {
  const MutexLock lock(mutex_);
  ++refused_;
}

void ClientRoster::count_served(RosterClient& client) noexcept {
  const MutexLock lock(mutex_);
  client.is_served = true;
  ++served_;
}

ServerLoop::Counts ClientRoster::counts() const {
  const MutexLock lock(mutex_);
  return {clients_.size(), admitted_, refused_};
}

std::size_t ClientRoster::size() const {
  const MutexLock lock(mutex_);
  return clients_.size();
}

ClientRoster::Clients ClientRoster::all() const {
  Clients result;
  const MutexLock lock(mutex_);
  result.reserve(clients_.size());
  for (const auto& [number, client] : clients_) result.push_back(client);
  return result;
}

std::shared_ptr<RosterClient> ClientRoster::find(std::uint64_t number) const {
  const MutexLock lock(mutex_);
  const auto found = clients_.find(number);
  return found != clients_.end() ? found->second : nullptr;
}

std::optional<ClientRoster::Clock::time_point> ClientRoster::deserted_since(Who who) const {
  const MutexLock lock(mutex_);
  if (served_ > 0) return std::nullopt;
  return who == Who::anyone && clients_.empty() ? last_gone_at_ : last_served_gone_at_;
}

ClientRoster::Clock::time_point ClientRoster::next_look() const {
  const MutexLock lock(mutex_);
  return look_at_;
}

bool ClientRoster::look_at(Clock::time_point when) noexcept {
  const MutexLock lock(mutex_);
  if (when >= look_at_) return false;
  look_at_ = when;
  return true;
}

ClientRoster::Clients ClientRoster::late_clients(Clock::time_point now) {
  Clients late;
  const MutexLock lock(mutex_);
  if (now < look_at_) return late;
  look_at_ = Clock::time_point::max();
  for (const auto& [number, client] : clients_) {
    const Clock::time_point deadline = client->deadline.load(std::memory_order_relaxed);
    if (deadline <= now) {
      late.push_back(client);
      // It may have been given more time meanwhile, and ends otherwise.
      look_at_ = std::min(look_at_, now + kLookAgain);
    } else {
      look_at_ = std::min(look_at_, deadline);
    }
  }
  return late;
}

}  // namespace mkvirtfs::net
