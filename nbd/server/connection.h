// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sys/uio.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "exports/export_tree.h"
#include "nbd/server/extension.h"
#include "nbd/server/feature_set.h"
#include "nbd/server/session.h"
#include "nbd/server/statistics.h"
#include "nbd/server/tls_mode.h"
#include "net/eager_wait.h"
#include "net/served_client.h"
#include "net/tls_channel.h"
#include "net/tls_credentials.h"
#include "support/unique_fd.h"

namespace mkvirtfs::nbd {

/// Bytes that were received and not yet used. Grows only as far as the client's messages make it.
/// Belongs to one thread.
class ReceiveBuffer {
 public:
  std::span<const std::byte> bytes() const noexcept {
    return {buffer_.get() + begin_, end_ - begin_};
  }
  void drop(std::size_t count) noexcept;

  enum class Demand : std::uint8_t {
    usual,
    more,  ///< the last receive filled all its room
  };
  /// Room behind the bytes for more of them, never empty. The buffer is enlarged when it is full,
  /// and on demand while it is smaller than `useful`.
  std::span<std::byte> room(Demand demand, std::size_t useful);
  void received(std::size_t count) noexcept { end_ += count; }

  std::size_t capacity() const noexcept { return capacity_; }
  /// Gives memory back when it is larger than `capacity` and the bytes allow it.
  void shrink_to(std::size_t capacity);

 private:
  void reallocate(std::size_t capacity);

  std::unique_ptr<std::byte[]> buffer_;
  std::size_t capacity_ = 0;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
};

struct ConnectionOptions {
  using Clock = std::chrono::steady_clock;

  /// How long a client may take from connect to the end of its handshake, and again for each name
  /// that it was sent. 0: no limit.
  std::chrono::milliseconds handshake_timeout{10'000};
  TransmissionTuning tuning = {};
  /// The most names that LIST sends.
  std::size_t most_names_listed = kMostNamesListed;
  TlsMode tls = TlsMode::off;
  /// Not null if there may be TLS.
  std::shared_ptr<const net::TlsCredentials> tls_credentials = nullptr;
  /// Live longer than the connection.
  const Extensions* extensions = &Extensions::standard();
  Features features = {};
};

/// One client on a stream socket: moves bytes between the socket and a Session, and keeps the
/// handshake's deadline. Any poll loop can drive it:
///
///     poll for want_read() and want_write() on fd(), at the latest until deadline();
///     connection.on_ready();
///     while (auto job = connection.take_job()) run it, on any thread; then
///     connection.job_done(job) and on_ready() on the connection's own thread; until
///     connection.ended().
///
/// Belongs to one thread at a time; only begin_shutdown() and cut() may be called from others.
class Connection {
 public:
  using Clock = ConnectionOptions::Clock;

  /// How long a call with Patience::linger stays when there is nothing to do.
  static constexpr std::chrono::milliseconds kLinger{10};
  using Patience = net::Patience;

  /// The tree lives longer, also than the jobs. `linger`: calls with that patience will be made;
  /// the calling threads have SIGPIPE blocked then, because sendfile() has no flag
  /// against it. Without, no sendfile() is used, and no signal raised.
  Connection(UniqueFd socket, ExportTree& exports, const ConnectionOptions& options,
             Patience most = Patience::none);

  int fd() const noexcept { return socket_.get(); }
  /// What to wait for before the next on_ready(). Neither: for a job.
  bool want_read() const noexcept { return want_read_; }
  bool want_write() const noexcept { return want_write_; }
  /// When on_ready() must be called at the latest; nothing when it can wait for ever.
  std::optional<Clock::time_point> deadline() const noexcept;

  /// Goes on as far as it can, but not for long at a time: a client that is busy without end comes
  /// back as one that wants to write.
  void on_ready(Patience patience = Patience::none);

  /// The last call ended only so that others get their turn: another would go on at once.
  bool has_more() const noexcept { return has_more_; }

  /// Gives memory back that only a busy client needs: for drivers that see it go quiet.
  void trim();

  /// See Session::take_job().
  std::shared_ptr<Job> take_job() { return session_.take_job(); }
  void job_done(const std::shared_ptr<Job>& job);
  bool has_jobs() const noexcept { return session_.has_jobs(); }

  /// What it has asked; from any thread.
  const RequestMeter& meter() const noexcept { return meter_; }

  /// The client is gone, or was sent away; the socket is shut.
  bool ended() const noexcept { return ended_; }
  /// Why, for the log; "" when the client took its leave.
  const std::string& end_reason() const noexcept { return end_reason_; }

  /// See Session::has_opened_export().
  bool has_opened_export() const noexcept { return session_.has_opened_export(); }
  /// Why the client got no export, in words for the log; "" when it got one, or left before it
  /// asked.
  Remark refusal() const;
  /// The identity that the client has proved; "" when it has not. See TlsChannel::peer_identity().
  std::string peer_identity() const { return tls_ ? tls_->peer_identity() : std::string(); }
  /// See Session::take_remarks().
  std::vector<Remark> take_remarks() noexcept { return session_.take_remarks(); }

  /// Takes no new requests, lets the ones received be answered, then ends. An on_ready() must
  /// follow.
  void begin_shutdown() noexcept;
  /// Ends it with the next on_ready().
  void cut() noexcept;

 private:
  enum class Moved : std::uint8_t { all, would_wait, ended };

  void begin_send();
  Moved send();
  Moved send_memory(std::span<iovec>& left, bool more_follows);
  Moved send_file();
  Moved receive();
  Moved receive_some(ReceiveBuffer& into, bool& filled_room);
  ReceiveBuffer::Demand demand_after(bool filled_room) const noexcept;
  Moved receive_through_tls();
  Moved send_through_tls(std::span<iovec>& left);
  Moved send_cipher();
  void end(std::string reason);
  /// end() of a client that is not served, for a reason of ours.
  void refuse(std::string reason);
  bool is_late() const noexcept;

  const UniqueFd socket_;
  const ConnectionOptions options_;
  const bool blocking_;  // a call may linger
  std::atomic<bool> shutting_down_ = false;
  std::atomic<bool> cut_ = false;

  // The owner's own.
  const Clock::time_point connected_at_ = Clock::now();
  Clock::duration own_time_{};                      // of the handshake, spent by us
  std::optional<Clock::time_point> opening_since_;  // a job of the handshake
  RequestMeter meter_;
  Session session_;
  bool has_passed_shutdown_on_ = false;
  bool in_handshake_ = true;
  bool ended_ = false;
  bool want_read_ = false;
  bool want_write_ = true;  // the greeting
  bool has_more_ = false;
  int dont_wait_ = 0;  // MSG_DONTWAIT, unless the call lingers
  std::string end_reason_;
  std::string refusal_;
  ReceiveBuffer input_;
  bool filled_room_ = false;
  net::EagerWait eager_;

  // The batch on its way.
  bool sending_ = false;
  std::vector<iovec> iovecs_;
  std::span<iovec> iovecs_left_;
  FileMove move_;

  std::optional<net::TlsChannel> tls_;
  ReceiveBuffer cipher_;
  bool filled_cipher_room_ = false;
};

}  // namespace mkvirtfs::nbd
