// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "net/listener.h"
#include "net/peer.h"
#include "net/served_client.h"
#include "support/error.h"
#include "support/log.h"
#include "support/unique_fd.h"

namespace mkvirtfs::net {

struct ServerLoopOptions {
  /// Clients beyond this many are disconnected at once.
  std::size_t most_connections = 1024;
  /// New clients are refused, too, where they would leave fewer descriptors than this to the
  /// process, or than a quarter of what RLIMIT_NOFILE allows, if that is less.
  std::size_t descriptor_reserve = 64;
  /// Which clients may come in; null: all. What it refuses is disconnected before anything is sent.
  PeerFilter admits = nullptr;
  /// How long clients may go on receiving after request_stop(), before they are cut off.
  std::chrono::milliseconds stop_grace{5'000};
  /// run() returns when the last client that was served has been gone for so long; nothing: it does
  /// not. Without a listener any client counts.
  std::optional<std::chrono::milliseconds> stop_after_last = std::nullopt;
  /// Threads for clients that have something to do, started on demand.
  std::size_t most_connection_threads = 32;
  /// Threads for jobs, started on demand. Each lane that has some has one at least, beyond this
  /// number if need be.
  std::size_t most_job_threads = 16;
  /// Lives as long as the loop.
  LogSink* log = &null_log();
};

/// Accepts clients and gives each its turns, whatever protocol they speak: listeners, threads on
/// demand, limits, a graceful stop.
///
/// A client that has something to do has a thread of a pool, which stays with it while it is busy;
/// idle clients wait in one poll, and cost memory only. Jobs run on a second pool (JobQueue).
///
/// create(), add_listener(), listeners() and run() belong to one thread; the others may be called
/// from any. No lock is held while a client or `make_client` is called, but for Client::trim().
class ServerLoop {
 public:
  /// A client that has just connected.
  struct Arrival {
    UniqueFd socket;           ///< a stream socket of any kind
    std::uint64_t number = 0;  ///< counts the clients that were admitted, from 1
    Peer peer;
  };
  /// Makes the front end's half of a client. Called on any thread, several at once.
  using MakeClient = std::function<std::unique_ptr<ServedClient>(Arrival arrival)>;

  static Result<std::unique_ptr<ServerLoop>> create(MakeClient make_client,
                                                    ServerLoopOptions options = {});
  /// Cuts off the clients that are left, and closes the listeners.
  ~ServerLoop();
  ServerLoop(const ServerLoop&) = delete;
  ServerLoop& operator=(const ServerLoop&) = delete;

  Result<void> add_listener(Listener listener);
  std::span<const Listener> listeners() const noexcept;

  /// Serves a client that is already connected. An error when there are too many, or
  /// ServerLoopOptions::admits refuses it.
  Result<void> adopt(UniqueFd connected);

  struct Counts {
    std::uint64_t open = 0;     ///< connected at this moment
    std::uint64_t total = 0;    ///< admitted so far
    std::uint64_t refused = 0;  ///< for a limit or the filter
  };
  Counts counts() const;

  /// Accepts and serves clients until request_stop(), or ServerLoopOptions::stop_after_last. Then
  /// it stops listening, shuts the clients down, and returns when the last one is gone, at the
  /// latest shortly after ServerLoopOptions::stop_grace.
  void run();
  /// Makes run() return, also when it is called before run(). Safe in a signal handler.
  void request_stop() noexcept;
  /// request_stop() without any grace. What a job is just doing is still waited for. Safe in a
  /// signal handler.
  void request_stop_at_once() noexcept;

 private:
  class Implementation;
  explicit ServerLoop(std::unique_ptr<Implementation> implementation);
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace mkvirtfs::net
