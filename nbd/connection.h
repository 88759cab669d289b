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

#include "nbd/export_tree.h"
#include "nbd/session.h"
#include "nbd/tls_channel.h"
#include "nbd/tls_mode.h"
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

  /// Room behind the bytes for more of them, never empty. The buffer is enlarged when it is full
  /// or when `eager` (the last receive filled all its room) and it is smaller than `useful`.
  std::span<std::byte> room(bool eager, std::size_t useful);
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
  std::chrono::milliseconds handshake_timeout{10'000};
  TransmissionTuning tuning;
  TlsMode tls = TlsMode::off;
  /// Not null if there may be TLS.
  std::shared_ptr<const TlsCredentials> tls_credentials;
  /// Live longer than the connection.
  const Extensions* extensions = &Extensions::standard();
};

/// One client on a stream socket: moves bytes between the socket and a Session, and keeps the
/// handshake's deadline.
///
/// serve() blocks its thread until the client is gone; that thread must have SIGPIPE blocked,
/// because sendfile() can not be told to keep it to itself. A client that does not read makes
/// serve() wait in a send with one batch in memory; nobody else waits for it. begin_shutdown() and
/// cut() may be called from any thread while the connection lives.
class Connection {
 public:
  /// The socket is made blocking. The tree lives longer.
  Connection(UniqueFd socket, ExportTree& exports, const ConnectionOptions& options);

  /// Serves the client. Returns why that ended, "" when the client took its leave. Called once.
  std::string serve();

  /// Takes no new requests, lets the ones received be answered, then ends.
  void begin_shutdown() noexcept;
  /// Ends it as soon as the thread is not in the device.
  void cut() noexcept;

 private:
  using Clock = std::chrono::steady_clock;

  std::string run(Session& session);
  bool receive(const Session& session);
  bool receive_some(std::span<std::byte> room, bool in_handshake, std::size_t& received);
  bool send(Session& session);
  bool send_memory(std::span<iovec> left, bool more_follows, bool in_handshake);
  bool send_file(const Batch::FileRun& run, FileMove& move);
  bool start_tls(Session& session);
  bool receive_through_tls(std::span<std::byte> room, bool in_handshake, std::size_t& received);
  bool send_through_tls(std::span<iovec> left, bool in_handshake);
  bool send_cipher(bool in_handshake);
  void end_tls() noexcept;
  bool wait_for(short events);
  void set_deadline(const Session& session);

  const UniqueFd socket_;
  ExportTree& exports_;
  const ConnectionOptions options_;
  std::atomic<bool> shutting_down_ = false;

  // The serving thread's own.
  const Clock::time_point connected_at_ = Clock::now();
  Clock::time_point deadline_;
  ReceiveBuffer input_;
  bool filled_room_ = false;
  std::vector<iovec> iovecs_;
  std::optional<TlsChannel> tls_;
  ReceiveBuffer cipher_;
  bool filled_cipher_room_ = false;
  std::string failure_;
};

}  // namespace mkvirtfs::nbd
