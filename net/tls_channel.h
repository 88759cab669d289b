// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "net/tls_credentials.h"

namespace mkvirtfs::net {

/// The TLS of one connection, on the side whose credentials it is given: cipher bytes from the peer
/// in, plain bytes out, and the other way round. Its driver moves the bytes:
///
///     a client begins       channel.receive({}, {})
///     cipher bytes came     channel.receive(cipher, room_for_plain), until it takes and gives none
///     bytes are to be sent  channel.write(plain), as often as it takes any
///     after either          send cipher_out(), then sent(); a failed channel has an alert in it
///
/// Nothing is written before handshake_done(). No socket, clock or thread; failures come once, as
/// text. Memory: a record or two each way inside GnuTLS, and what is in cipher_out(), which is
/// about kCipherBytes at most. Belongs to one thread.
class TlsChannel {
 public:
  /// write() takes no more when so much waits to be sent.
  static constexpr std::size_t kCipherBytes = 256U << 10;
  /// A handshake in which the peer says more than this is refused.
  static constexpr std::size_t kLongestHandshakeBytes = 128U << 10;

  explicit TlsChannel(std::shared_ptr<const TlsCredentials> credentials);
  ~TlsChannel();
  TlsChannel(const TlsChannel&) = delete;
  TlsChannel& operator=(const TlsChannel&) = delete;

  struct Moved {
    std::size_t cipher_bytes = 0;  ///< taken from the input
    std::size_t plain_bytes = 0;   ///< put into the room
  };
  /// Takes cipher bytes, and gives as many plain bytes as there are and fit. Call it again while it
  /// fills its room: there may be more, also without new input.
  Moved receive(std::span<const std::byte> cipher, std::span<std::byte> room);

  /// Takes bytes from the front of `plain`; says how many. It stops at kCipherBytes; 0 means that
  /// what waits must be sent first, or that the channel failed().
  std::size_t write(std::span<const iovec> plain);

  /// What is to be sent now. Valid until the next call of anything but this.
  std::span<const std::byte> cipher_out() const noexcept;
  /// The first `count` bytes of it were sent.
  void sent(std::size_t count) noexcept;
  /// Gives memory back that a busy connection has use for, and a quiet one has not.
  void trim() noexcept;

  /// Says good-bye to the peer (close_notify). Nothing is written afterwards.
  void close();

  bool handshake_done() const noexcept;
  /// The proven identity of the peer: `key "alice"`, `certificate "CN=alice"`; "" for none. Before
  /// handshake_done(), the one that it claims: `unverified key "alice"`. Raw bytes, for the log.
  std::string peer_identity() const;
  /// The peer said good-bye: an end of the connection that cannot be forged.
  bool closed_by_peer() const noexcept;
  /// The connection is to be ended.
  bool failed() const noexcept;
  /// Why, for the log.
  const std::string& failure() const noexcept;

 private:
  struct Engine;
  std::unique_ptr<Engine> engine_;
};

}  // namespace mkvirtfs::net
