// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "exports/export_tree.h"
#include "nbd/server/extension.h"
#include "nbd/server/feature_set.h"
#include "nbd/server/negotiation.h"
#include "nbd/server/statistics.h"
#include "nbd/server/tls_mode.h"
#include "net/peer.h"
#include "net/tls_credentials.h"
#include "support/error.h"
#include "support/log.h"
#include "support/unique_fd.h"

namespace mkvirtfs::nbd {

struct ServerOptions {
  /// Clients beyond this many are disconnected at once.
  std::size_t most_connections = 1024;
  /// New clients are refused, too, where they would leave fewer descriptors than this to the
  /// process, or than a quarter of what RLIMIT_NOFILE allows, if that is less: what is served needs
  /// descriptors for its own files.
  std::size_t descriptor_reserve = 64;
  /// Which clients may come in; null: all. What it refuses is disconnected before the greeting.
  net::PeerFilter admits = nullptr;
  /// How long a client may take from connect to the end of its handshake. A client that lists
  /// exports is given this long again for each name that it was sent. 0: no limit.
  std::chrono::milliseconds handshake_timeout{10'000};
  /// The most names that LIST sends to a client; the log says when there are more.
  std::size_t most_names_listed = kMostNamesListed;
  /// How long clients may go on receiving replies after request_stop(), before they are cut off.
  std::chrono::milliseconds stop_grace{5'000};
  TlsMode tls = TlsMode::off;
  /// Not null if there may be TLS.
  std::shared_ptr<const net::TlsCredentials> tls_credentials = nullptr;
  /// Options and metadata namespaces beyond the protocol's; nullptr: none.
  std::shared_ptr<const Extensions> extensions = nullptr;
  /// What clients are offered.
  Features features = {};
  /// run() returns when the last client has been gone for so long; nothing: it does not. A client
  /// that never asked for an export does not count, unless there is no way for others to come.
  std::optional<std::chrono::milliseconds> stop_after_last = std::nullopt;
  /// Threads for clients that have something to do, started on demand. An idle client has none.
  std::size_t most_connection_threads = 32;
  /// Threads that wait for devices, started on demand. Each device that clients wait for, and each
  /// export that is being opened, has one at least, beyond this number if need be.
  std::size_t most_job_threads = 16;
  /// Has a line for each client: at `info` when it is refused, at `debug` when it has finished its
  /// handshake and when it is gone. Lives as long as the server.
  LogSink* log = &null_log();
};

/// Serves an ExportTree to NBD clients: listeners, threads on demand, limits, a graceful stop.
///
/// A client that has something to do is served by a thread of a pool, which stays with it while it
/// is busy; idle clients wait in one poll, and cost memory only. What may have to wait (a flush,
/// and all that BlockDevice::may_wait() or a ContentStore says it of) is done by a second pool, so
/// that it holds up no other: not the clients of other devices, however many wait for one, and
/// not the same client's other requests, unless they are about bytes that are just being written.
/// So is ExportTree::open(), unless open_at_once() has the device.
///
/// Embeddable: it installs no signal handler, never exits, raises no SIGPIPE and holds nothing
/// global; several servers live in one process. Its threads block all asynchronous signals, so the
/// program's own handlers and signalfd see them.
///
/// create(), the listen calls, uris() and run() belong to one thread; adopt(), request_stop(),
/// request_stop_at_once(), connection_count() and statistics() may be called from any.
class Server {
 public:
  static Result<std::unique_ptr<Server>> create(std::shared_ptr<ExportTree> exports,
                                                ServerOptions options = {});
  /// Cuts off the clients that are left, and removes the Unix sockets.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  /// Listens on a Unix socket that this call makes, with the permissions that the umask leaves. A
  /// socket that a dead server left behind is replaced; anything else that stands at `path` is an
  /// error, as is a path that sockets cannot have (Errc::usage: more than 107 bytes, NUL).
  Result<void> listen_unix(const std::string& path);

  /// Listens on every address that `host` (a name, an IPv4 or an IPv6 address without brackets)
  /// stands for. Port 0 lets the kernel choose one free port, the same for all those addresses.
  Result<void> listen_tcp(const std::string& host, std::uint16_t port);

  /// Listens on a vsock, which leads from a virtual machine to its host or back: `cid` is one of
  /// this machine's context ids, or kAnyCid for all. Port 0 lets the kernel
  /// choose.
  Result<void> listen_vsock(std::uint32_t cid, std::uint32_t port);

  /// Listens on a socket that was made, bound and set to listen elsewhere: a stream socket of
  /// any kind (Errc::usage else). The file of a Unix socket is left alone in the end.
  Result<void> listen_on(UniqueFd socket);

  /// Serves a client that is already connected: a stream socket of any kind. An error when there
  /// are too many, or ServerOptions::admits says no.
  Result<void> adopt(UniqueFd connected);

  /// One URI for each address listened on (but for those that URIs have no form for), in that
  /// order, true from this machine and percent-encoded: nbd+unix:///NAME?socket=PATH,
  /// nbd://HOST:PORT/NAME, nbd+vsock://CID:PORT/NAME (where 1 is this machine). The empty name is
  /// the default export. If there may be TLS they are nbds:// and nbds+unix://, with libnbd's
  /// parameters for the files that the server's credentials came from.
  std::vector<std::string> uris(std::string_view export_name = {}) const;

  /// Clients connected at this moment.
  std::size_t connection_count() const;

  /// What clients have asked so far, also after run().
  ServerStatistics statistics() const;

  /// Accepts and serves clients until request_stop(), or ServerOptions::stop_after_last. Then it
  /// stops listening, removes its Unix sockets, lets clients have the replies to what they asked
  /// for until then, and returns when the last one is gone, at the latest shortly after
  /// ServerOptions::stop_grace.
  Result<void> run();

  /// Makes run() return, also when it is called before run(). Safe in a signal handler.
  void request_stop() noexcept;

  /// request_stop() without any grace: clients are cut off. What a device is just doing for one of
  /// them is still waited for. Safe in a signal handler.
  void request_stop_at_once() noexcept;

 private:
  struct Implementation;
  explicit Server(std::unique_ptr<Implementation> implementation);
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace mkvirtfs::nbd
