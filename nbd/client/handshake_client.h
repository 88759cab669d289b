// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "nbd/wire/codec.h"
#include "nbd/wire/protocol.h"
#include "net/tls_channel.h"
#include "net/tls_credentials.h"
#include "support/error.h"
#include "support/unique_fd.h"

// The client's side of a handshake. The server is not trusted: what it sends is checked, and the
// memory it can cause is bounded.

namespace mkvirtfs::nbd {

/// Errc::bad_peer: "the server breaks the protocol: ".
std::unexpected<Error> protocol_violation(std::string_view what);

/// One connection in its handshake. Belongs to one thread.
class HandshakeClient {
 public:
  /// Takes the greeting, and answers it. Errc::bad_peer: that is no NBD server of the kind that has
  /// options.
  /// With credentials (a client's), everything behind that goes through TLS, or it fails.
  static Result<HandshakeClient> start(
      UniqueFd connected, std::chrono::milliseconds patience,
      std::shared_ptr<const net::TlsCredentials> credentials = nullptr);

  /// What an option was answered with in the end: nothing is ACK. The text is the server's, raw.
  using Verdict = std::optional<OptionRefusal>;
  using VisitReply = std::function<Result<void>(OptionReply, std::span<const std::byte>)>;
  /// Sends an option and takes its replies. Those before the last one go to `visit`, which can find
  /// them wrong. Fails with Errc::bad_peer for what breaks the protocol, with Errc::io for a
  /// connection that ended or took longer than the client's patience for one option.
  Result<Verdict> ask(Option option, std::span<const std::byte> data, const VisitReply& visit);

  /// Behind GO: bytes of requests and replies, all of them or an error, within the client's
  /// patience.
  Result<void> send_all(std::span<const std::byte> bytes);
  Result<void> receive_all(std::span<std::byte> room);

  /// Takes leave, politely and without waiting.
  void abort() noexcept;

 private:
  HandshakeClient(UniqueFd socket, std::chrono::milliseconds patience)
      : socket_(std::move(socket)), patience_(patience) {}

  using Deadline = std::chrono::steady_clock::time_point;
  Result<void> send(std::span<const std::byte> bytes, Deadline deadline);
  Result<void> receive(std::span<std::byte> room, Deadline deadline);
  Result<void> wait_for(short events, Deadline deadline);
  Result<void> start_tls(std::shared_ptr<const net::TlsCredentials> credentials, Deadline deadline);
  Result<void> send_raw(std::span<const std::byte> bytes, Deadline deadline);
  /// At least one byte.
  Result<std::size_t> receive_raw(std::span<std::byte> room, Deadline deadline);
  /// Lets TLS take what has come and say what it has to; how many plain bytes it gave.
  Result<std::size_t> turn_tls(std::span<std::byte> room, Deadline deadline);

  UniqueFd socket_;
  std::chrono::milliseconds patience_;
  std::unique_ptr<net::TlsChannel> tls_;
  std::vector<std::byte> cipher_;  // received, and not yet taken by TLS
};

}  // namespace mkvirtfs::nbd
