// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

#include "nbd/wire/testing/messages.h"
#include "net/testing/connect.h"
#include "support/unique_fd.h"

namespace mkvirtfs::nbd::testing {

/// A client on a real socket that reads and writes what a test says. Waits at most ten seconds for
/// anything, and throws then.
class SocketClient {
 public:
  explicit SocketClient(UniqueFd socket) : socket_(std::move(socket)) {
    const timeval patience{10, 0};
    ::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    ::setsockopt(socket_.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  }

  static SocketClient on_unix(const std::string& path) {
    return SocketClient(net::testing::connect_unix(path));
  }
  static SocketClient on_loopback(int family, std::uint16_t port) {
    return SocketClient(net::testing::connect_loopback(family, port));
  }

  /// False when the server is gone.
  bool try_send(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t count = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (count < 0) return false;
      bytes = bytes.subspan(static_cast<std::size_t>(count));
    }
    return true;
  }
  void send(std::span<const std::byte> bytes) {
    if (!try_send(bytes)) throw std::runtime_error("send: " + std::string(std::strerror(errno)));
  }

  /// Exactly `count` bytes.
  Bytes receive(std::size_t count) {
    Bytes bytes(count);
    std::size_t at = 0;
    while (at < count) {
      const ssize_t got = ::recv(socket_.get(), bytes.data() + at, count - at, 0);
      if (got == 0) throw WireViolation("the server hung up");
      if (got < 0) throw std::runtime_error("receive: " + std::string(std::strerror(errno)));
      at += static_cast<std::size_t>(got);
    }
    return bytes;
  }

  /// Everything up to the end of the connection, however that came about.
  Bytes receive_rest() {
    Bytes bytes;
    std::array<std::byte, 65536> part;
    while (true) {
      const ssize_t got = ::recv(socket_.get(), part.data(), part.size(), 0);
      if (got < 0 && errno == EAGAIN) throw std::runtime_error("the connection does not end");
      if (got <= 0) return bytes;
      bytes += std::span(part).first(static_cast<std::size_t>(got));
    }
  }

  /// What comes first, or nothing when the server hangs up instead.
  Bytes receive_up_to(std::size_t count) {
    Bytes bytes(count);
    const ssize_t got = ::recv(socket_.get(), bytes.data(), count, 0);
    if (got < 0 && errno == EAGAIN) throw std::runtime_error("the server says nothing");
    bytes.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return bytes;
  }

  OptionAnswer receive_option_answer() {
    Bytes whole = receive(kOptionReplyHeaderBytes);
    whole += receive(load_be<std::uint32_t>(whole, 16));
    Stream stream(std::move(whole));
    return take_option_answer(stream);
  }

  /// From connect to the transmission phase, with structured replies if asked for.
  void handshake(bool structured, std::string_view name = {}) {
    structured_ = structured;
    Bytes hello = client_flags();
    if (structured) {
      hello += option(Option::structured_reply);
      hello += option(Option::set_meta_context, meta_data(name, {"base:allocation"}));
    }
    hello += option(Option::go, info_data(name));
    receive(kGreetingBytes);
    send(hello);
    for (int acks = structured ? 3 : 1; acks > 0;) {
      const OptionAnswer answer = receive_option_answer();
      if (answer.is_error()) throw WireViolation("the handshake failed: " + text_of(answer.data));
      if (answer.is(OptionReply::ack)) --acks;
    }
  }

  void send_request(const Request& asked) { send(encode_request(asked)); }

  /// The cookie of the answer that comes next, which is left there. Simple replies and chunks have
  /// it at the same place.
  std::uint64_t next_cookie() {
    Bytes head(kSimpleReplyBytes);
    if (::recv(socket_.get(), head.data(), head.size(), MSG_PEEK | MSG_WAITALL) !=
        static_cast<ssize_t>(head.size())) {
      throw WireViolation("the server does not answer");
    }
    return load_be<std::uint64_t>(head, 8);
  }

  /// The answer to a request that was sent, whole.
  Answer receive_answer(const Request& asked) {
    const std::array<Request, 1> under_way = {asked};
    return receive_answer(under_way).second;
  }

  /// The next answer, whatever their order, and the request that it belongs to.
  template <class Requests>
  std::pair<Request, Answer> receive_answer(const Requests& under_way) {
    Bytes whole = receive(kSimpleReplyBytes);
    // Replies and chunks have it at the same place.
    const auto asked =
        std::ranges::find(under_way, load_be<std::uint64_t>(whole, 8), &Request::cookie);
    if (asked == under_way.end()) throw std::runtime_error("an answer to nothing that was asked");
    for (std::size_t start = 0;; start = whole.size()) {
      if (start != 0) whole += receive(kSimpleReplyBytes);
      if (load_be<std::uint32_t>(whole, start) == kSimpleReplyMagic) {
        const bool has_data =
            asked->command == Command::read && load_be<std::uint32_t>(whole, start + 4) == 0;
        if (has_data) whole += receive(asked->length);
        break;
      }
      whole += receive(kChunkHeaderBytes - kSimpleReplyBytes);
      const bool done = (load_be<std::uint16_t>(whole, start + 4) & kChunkDone) != 0;
      whole += receive(load_be<std::uint32_t>(whole, start + 16));
      if (done) break;
    }
    Stream stream(std::move(whole));
    return {*asked, take_answer(stream, *asked, structured_)};
  }

  Answer ask(const Request& asked) {
    send_request(asked);
    return receive_answer(asked);
  }
  Answer read(std::uint64_t offset, std::uint32_t length) {
    return ask({0, Command::read, ++cookie_, offset, length});
  }

  int fd() const { return socket_.get(); }
  void close() { socket_.reset(); }

 private:
  UniqueFd socket_;
  bool structured_ = false;
  std::uint64_t cookie_ = 0;
};

}  // namespace mkvirtfs::nbd::testing
