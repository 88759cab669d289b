// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/client/handshake_client.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <string>

namespace mkvirtfs::nbd {

namespace {

using Clock = std::chrono::steady_clock;

/// No reply that we ask for is longer: a name, a description, and what stands around them.
constexpr std::uint32_t kLongestReply = 2 * kLongestString + 64;

}  // namespace

std::unexpected<Error> protocol_violation(std::string_view what) {
  return fail(Errc::bad_peer, fmt::format("the server breaks the protocol: {}", what));
}

Result<HandshakeClient> HandshakeClient::start(
    UniqueFd connected, std::chrono::milliseconds patience,
    std::shared_ptr<const net::TlsCredentials> credentials) {
  HandshakeClient client(std::move(connected), patience);
  const Deadline deadline = Clock::now() + patience;
  std::array<std::byte, kGreetingBytes> greeting{};
  if (auto done = client.receive(greeting, deadline); !done) {
    return propagate(done);
  }
  if (load_be<std::uint64_t>(greeting) != kServerMagic) {
    return fail(Errc::bad_peer, "this is not an NBD server");
  }
  const auto flags = load_be<std::uint16_t>(greeting, 16);
  if (load_be<std::uint64_t>(greeting, 8) != kOptionMagic || (flags & kFixedNewstyle) == 0) {
    return fail(Errc::bad_peer, "the server is too old to list its exports");
  }
  const auto answer = pack(std::uint32_t{kFixedNewstyle});
  if (auto done = client.send(answer, deadline); !done) {
    return propagate(done);
  }
  if (credentials != nullptr) {
    if (auto done = client.start_tls(std::move(credentials), deadline); !done) {
      return propagate(done);
    }
  }
  return client;
}

Result<void> HandshakeClient::start_tls(std::shared_ptr<const net::TlsCredentials> credentials,
                                        Deadline deadline) {
  const auto unexpected_reply = [](OptionReply, std::span<const std::byte>) -> Result<void> {
    return protocol_violation("an answer to STARTTLS that is none");
  };
  const Result<Verdict> verdict = ask(Option::starttls, {}, unexpected_reply);
  if (!verdict) return propagate(verdict);
  if (*verdict) {
    return fail(Errc::bad_peer,
                fmt::format("the server has no TLS{}{}", (*verdict)->text.empty() ? "" : ": ",
                            (*verdict)->text));
  }
  tls_ = std::make_unique<net::TlsChannel>(std::move(credentials));
  while (true) {
    const Result<std::size_t> plain = turn_tls({}, deadline);
    if (!plain) return propagate(plain);
    if (tls_->handshake_done()) return {};
    std::array<std::byte, 4096> room{};
    const Result<std::size_t> count = receive_raw(room, deadline);
    if (!count) return propagate(count);
    cipher_.insert(cipher_.end(), room.begin(), room.begin() + static_cast<std::ptrdiff_t>(*count));
  }
}

Result<HandshakeClient::Verdict> HandshakeClient::ask(Option option,
                                                      std::span<const std::byte> data,
                                                      const VisitReply& visit) {
  const Deadline deadline = Clock::now() + patience_;
  std::vector<std::byte> message;
  const auto header = encode_option_header({option, static_cast<std::uint32_t>(data.size())});
  message.insert(message.end(), header.begin(), header.end());
  message.insert(message.end(), data.begin(), data.end());
  if (auto done = send(message, deadline); !done) return propagate(done);
  std::vector<std::byte> body;
  while (true) {
    std::array<std::byte, kOptionReplyHeaderBytes> head{};
    if (auto done = receive(head, deadline); !done) return propagate(done);
    const auto reply = OptionReply{load_be<std::uint32_t>(head, 12)};
    const auto length = load_be<std::uint32_t>(head, 16);
    if (load_be<std::uint64_t>(head) != kOptionReplyMagic ||
        Option{load_be<std::uint32_t>(head, 8)} != option) {
      return protocol_violation("an answer to nothing that was asked");
    }
    if (length > kLongestReply) return protocol_violation("a reply is longer than it may be");
    body.resize(length);
    if (auto done = receive(body, deadline); !done) return propagate(done);
    if (reply == OptionReply::ack) {
      if (length != 0) return protocol_violation("an ACK with data");
      return std::nullopt;
    }
    if (std::to_underlying(reply) >> 31 != 0)
      return OptionRefusal{reply, std::string(as_text(body))};
    if (auto done = visit(reply, body); !done) return propagate(done);
  }
}

Result<void> HandshakeClient::send_all(std::span<const std::byte> bytes) {
  return send(bytes, Clock::now() + patience_);
}

Result<void> HandshakeClient::receive_all(std::span<std::byte> room) {
  return receive(room, Clock::now() + patience_);
}

void HandshakeClient::abort() noexcept {
  const auto message = encode_option_header({Option::abort, 0});
  std::span<const std::byte> bytes = message;
  if (tls_ != nullptr) {
    const iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
    if (tls_->write({&part, 1}) == 0) return;
    tls_->close();
    bytes = tls_->cipher_out();
  }
  [[maybe_unused]] const ssize_t sent =
      ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
}

Result<void> HandshakeClient::send(std::span<const std::byte> bytes, Deadline deadline) {
  if (tls_ == nullptr) return send_raw(bytes, deadline);
  while (!bytes.empty()) {
    const iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
    const std::size_t taken = tls_->write({&part, 1});
    if (taken == 0) return fail(Errc::io, tls_->failure());
    bytes = bytes.subspan(taken);
    if (auto done = send_raw(tls_->cipher_out(), deadline); !done) {
      // A server that hung up may have said why: in TLS 1.3 it judges when we think that all is
      // well.
      tls_->sent(tls_->cipher_out().size());
      std::array<std::byte, 4096> room{};
      while (receive(room, deadline)) {
      }
      return tls_->failed() ? fail(Errc::bad_peer, tls_->failure()) : done;
    }
    tls_->sent(tls_->cipher_out().size());
  }
  return {};
}

Result<void> HandshakeClient::send_raw(std::span<const std::byte> bytes, Deadline deadline) {
  while (!bytes.empty()) {
    const ssize_t count =
        ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count >= 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(count));
    } else if (errno == EAGAIN) {
      if (auto ready = wait_for(POLLOUT, deadline); !ready) return ready;
    } else if (errno != EINTR) {
      return fail_errno(Errc::io, errno, "send to the server");
    }
  }
  return {};
}

Result<void> HandshakeClient::receive(std::span<std::byte> room, Deadline deadline) {
  while (!room.empty()) {
    Result<std::size_t> count =
        tls_ == nullptr ? receive_raw(room, deadline) : turn_tls(room, deadline);
    if (count && tls_ != nullptr && *count == 0) {
      std::array<std::byte, 4096> cipher{};
      const Result<std::size_t> more = receive_raw(cipher, deadline);
      if (!more) return propagate(more);
      cipher_.insert(cipher_.end(), cipher.begin(),
                     cipher.begin() + static_cast<std::ptrdiff_t>(*more));
      continue;
    }
    if (!count) return propagate(count);
    room = room.subspan(*count);
  }
  return {};
}

Result<std::size_t> HandshakeClient::turn_tls(std::span<std::byte> room, Deadline deadline) {
  const net::TlsChannel::Moved moved = tls_->receive(cipher_, room);
  cipher_.erase(cipher_.begin(), cipher_.begin() + static_cast<std::ptrdiff_t>(moved.cipher_bytes));
  // A failed channel has an alert for the server: whether that arrives is another matter.
  Result<void> sent = send_raw(tls_->cipher_out(), deadline);
  if (sent) tls_->sent(tls_->cipher_out().size());
  if (tls_->failed()) return fail(Errc::bad_peer, tls_->failure());
  if (!sent) return propagate(sent);
  if (moved.plain_bytes == 0 && tls_->closed_by_peer()) {
    return fail(Errc::io, "the server closed the connection");
  }
  return moved.plain_bytes;
}

Result<std::size_t> HandshakeClient::receive_raw(std::span<std::byte> room, Deadline deadline) {
  while (true) {
    const ssize_t count = ::recv(socket_.get(), room.data(), room.size(), MSG_DONTWAIT);
    if (count > 0) return static_cast<std::size_t>(count);
    if (count == 0) return fail(Errc::io, "the server closed the connection");
    if (errno == EAGAIN) {
      if (auto ready = wait_for(POLLIN, deadline); !ready) {
        return propagate(ready);
      }
    } else if (errno != EINTR) {
      return fail_errno(Errc::io, errno, "receive from the server");
    }
  }
}

Result<void> HandshakeClient::wait_for(short events, Deadline deadline) {
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) return fail(Errc::io, "the server takes too long to answer");
    pollfd waited{socket_.get(), events, 0};
    const int ready = ::poll(&waited, 1, static_cast<int>(std::min<std::int64_t>(left, 60'000)));
    if (ready > 0) return {};
    if (ready < 0 && errno != EINTR) return fail_errno(errno, "poll");
  }
}

}  // namespace mkvirtfs::nbd
