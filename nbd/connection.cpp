// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/connection.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

namespace mkvirtfs::nbd {
namespace {

/// What a client in its handshake, or one that only ever asks one thing at a time, needs.
constexpr std::size_t kSmallBuffer = 4U << 10;
/// A busy client's requests are taken up to this many bytes at a time: one receive then brings all
/// that are under way.
constexpr std::size_t kUsefulBuffer = 256U << 10;
/// The kernel may grant less. What does not fit makes our thread sleep between the replies.
constexpr int kSendBuffer = 4 << 20;

std::string system_text(int error) { return std::generic_category().message(error); }

void prepare_socket(int fd) noexcept {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags >= 0 && (flags & O_NONBLOCK) != 0) ::fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
  // All of these are improvements: a socket that can not have them is served all the same.
  int domain = 0;
  socklen_t length = sizeof domain;
  if (::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) != 0) return;
  const int on = 1;
  if (domain == AF_INET || domain == AF_INET6) {
    // TCP tunes its own send buffer, and better than we could.
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    ::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  } else {
    ::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &kSendBuffer, sizeof kSendBuffer);
  }
}

/// Whether a failure of sendfile() says that the client is gone, rather than something about the
/// file.
bool is_socket_failure(int error) noexcept {
  switch (error) {
    case EPIPE:
    case ECONNRESET:
    case ECONNABORTED:
    case ENOTCONN:
    case ETIMEDOUT:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ENETDOWN:
      return true;
    default:
      return false;
  }
}

/// Takes `count` bytes from the front of `left`.
void drop_front(std::span<iovec>& left, std::size_t count) noexcept {
  while (!left.empty() && count >= left.front().iov_len) {
    count -= left.front().iov_len;
    left = left.subspan(1);
  }
  if (count > 0) {
    left.front().iov_base = static_cast<std::byte*>(left.front().iov_base) + count;
    left.front().iov_len -= count;
  }
}

}  // namespace

void ReceiveBuffer::drop(std::size_t count) noexcept {
  assert(count <= end_ - begin_);
  begin_ += count;
  if (begin_ == end_) begin_ = end_ = 0;
}

std::span<std::byte> ReceiveBuffer::room(bool eager, std::size_t useful) {
  if (capacity_ == 0) reallocate(kSmallBuffer);
  if (begin_ == 0 && end_ == capacity_) {
    reallocate(capacity_ * 2);
  } else if (eager && capacity_ < useful) {
    reallocate(std::min(capacity_ * 4, useful));
  } else if (begin_ != 0) {
    std::memmove(buffer_.get(), buffer_.get() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  return {buffer_.get() + end_, capacity_ - end_};
}

void ReceiveBuffer::shrink_to(std::size_t capacity) {
  if (capacity_ > capacity && end_ - begin_ <= capacity) reallocate(capacity);
}

void ReceiveBuffer::reallocate(std::size_t capacity) {
  auto buffer = std::make_unique_for_overwrite<std::byte[]>(capacity);
  if (end_ != begin_) std::memcpy(buffer.get(), buffer_.get() + begin_, end_ - begin_);
  buffer_ = std::move(buffer);
  capacity_ = capacity;
  end_ -= begin_;
  begin_ = 0;
}

Connection::Connection(UniqueFd socket, ExportTree& exports, const ConnectionOptions& options)
    : socket_(std::move(socket)), exports_(exports), options_(options) {
  prepare_socket(socket_.get());
}

std::string Connection::serve() {
  Session session(exports_, options_.tuning, options_.tls, *options_.extensions);
  std::string reason = run(session);
  if (tls_) end_tls();
  // The descriptor lives until the connection is destroyed, but the client shall see the end now.
  ::shutdown(socket_.get(), SHUT_RDWR);
  return reason;
}

std::string Connection::run(Session& session) {
  bool told_shutdown = false;
  bool in_handshake = true;
  while (!session.finished()) {
    if (!told_shutdown && shutting_down_.load(std::memory_order_relaxed)) {
      session.begin_shutdown();
      told_shutdown = true;
    }
    input_.drop(session.consume(input_.bytes()));
    if (in_handshake && !session.in_handshake()) {
      in_handshake = false;
      input_.shrink_to(kSmallBuffer);
    }
    if (!session.batch().empty()) {
      if (!send(session)) return failure_;
    } else if (session.wants_tls()) {
      if (!start_tls(session)) return failure_;
    } else if (!session.finished()) {
      if (!receive(session)) return failure_;
    }
  }
  return std::string(session.end_reason());
}

void Connection::begin_shutdown() noexcept {
  shutting_down_.store(true, std::memory_order_relaxed);
  // What the client sent before is still received; then its end of the stream seems closed.
  ::shutdown(socket_.get(), SHUT_RD);
}

void Connection::cut() noexcept { ::shutdown(socket_.get(), SHUT_RDWR); }

bool Connection::receive(const Session& session) {
  const bool in_handshake = session.in_handshake();
  if (in_handshake) set_deadline(session);
  const std::span<std::byte> room = input_.room(filled_room_ && !in_handshake, kUsefulBuffer);
  std::size_t received = 0;
  if (!(tls_ ? receive_through_tls(room, in_handshake, received)
             : receive_some(room, in_handshake, received))) {
    return false;
  }
  input_.received(received);
  filled_room_ = received == room.size();
  return true;
}

bool Connection::receive_some(std::span<std::byte> room, bool in_handshake, std::size_t& received) {
  if (in_handshake && !wait_for(POLLIN)) return false;
  while (true) {
    const ssize_t count = ::recv(socket_.get(), room.data(), room.size(), 0);
    if (count > 0) {
      received = static_cast<std::size_t>(count);
      return true;
    }
    if (count == 0) {
      failure_ = "the client hung up";
      return false;
    }
    if (errno == EINTR) continue;
    failure_ = "receive: " + system_text(errno);
    return false;
  }
}

bool Connection::send(Session& session) {
  const bool in_handshake = session.in_handshake();
  if (in_handshake) set_deadline(session);
  const std::optional<Batch::FileRun>& file = session.batch().file();
  iovecs_.clear();
  session.batch().gather(iovecs_);
  if (!(tls_ ? send_through_tls(iovecs_, in_handshake)
             : send_memory(iovecs_, file.has_value(), in_handshake))) {
    return false;
  }
  FileMove move;
  if (file && !send_file(*file, move)) return false;
  session.batch_sent(move);
  return true;
}

bool Connection::send_memory(std::span<iovec> left, bool more_follows, bool in_handshake) {
  const int flags =
      MSG_NOSIGNAL | (more_follows ? MSG_MORE : 0) | (in_handshake ? MSG_DONTWAIT : 0);
  while (!left.empty()) {
    msghdr message{};
    message.msg_iov = left.data();
    message.msg_iovlen = left.size();
    const ssize_t count = ::sendmsg(socket_.get(), &message, flags);
    if (count < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN && in_handshake) {
        if (!wait_for(POLLOUT)) return false;
        continue;
      }
      failure_ = "send: " + system_text(errno);
      return false;
    }
    drop_front(left, static_cast<std::size_t>(count));
  }
  return true;
}

bool Connection::send_file(const Batch::FileRun& run, FileMove& move) {
  while (move.moved_bytes < run.length) {
    auto offset = static_cast<off_t>(run.offset + move.moved_bytes);
    const ssize_t count = ::sendfile(socket_.get(), run.file.fd(), &offset,
                                     static_cast<std::size_t>(run.length - move.moved_bytes));
    if (count > 0) {
      move.moved_bytes += static_cast<std::uint64_t>(count);
    } else if (count == 0) {
      return true;  // the file ended: the session knows what to make of it
    } else if (errno == EINTR) {
      continue;
    } else if (is_socket_failure(errno)) {
      failure_ = "send: " + system_text(errno);
      return false;
    } else {
      // The file system has no such operation, or the disk failed: the store's own read tells.
      move.unsupported = true;
      return true;
    }
  }
  return true;
}

// --- TLS -------------------------------------------------------------------------------------

bool Connection::start_tls(Session& session) {
  set_deadline(session);
  tls_.emplace(options_.tls_credentials);
  while (!tls_->handshake_done()) {
    std::size_t none = 0;
    if (!receive_through_tls({}, true, none)) return false;
  }
  tls_->trim();
  session.tls_established();
  return true;
}

/// Fills some of the room, or, when there is none, gets one step further in the handshake.
bool Connection::receive_through_tls(std::span<std::byte> room, bool in_handshake,
                                     std::size_t& received) {
  while (true) {
    const TlsChannel::Moved moved = tls_->receive(cipher_.bytes(), room);
    cipher_.drop(moved.cipher_bytes);
    if (tls_->failed()) {
      failure_ = tls_->failure();
      return false;
    }
    if (!send_cipher(in_handshake)) return false;
    received = moved.plain_bytes;
    if (received > 0 || (room.empty() && tls_->handshake_done())) return true;
    if (tls_->closed_by_client()) {
      failure_ = "the client hung up";
      return false;
    }
    const std::span<std::byte> cipher_room =
        cipher_.room(filled_cipher_room_ && !in_handshake, kUsefulBuffer);
    std::size_t count = 0;
    if (!receive_some(cipher_room, in_handshake, count)) return false;
    cipher_.received(count);
    filled_cipher_room_ = count == cipher_room.size();
  }
}

bool Connection::send_through_tls(std::span<iovec> left, bool in_handshake) {
  while (!left.empty()) {
    drop_front(left, tls_->write(left));
    if (tls_->failed()) {
      failure_ = tls_->failure();
      return false;
    }
    if (!send_cipher(in_handshake)) return false;
  }
  return true;
}

bool Connection::send_cipher(bool in_handshake) {
  const std::span<const std::byte> cipher = tls_->cipher_out();
  if (cipher.empty()) return true;
  iovec segment{const_cast<std::byte*>(cipher.data()), cipher.size()};
  if (!send_memory({&segment, 1}, false, in_handshake)) return false;
  tls_->sent(cipher.size());
  return true;
}

/// The alert that says why, or the good-bye: whether it gets through does not matter any more.
void Connection::end_tls() noexcept {
  tls_->close();
  const std::span<const std::byte> cipher = tls_->cipher_out();
  ::send(socket_.get(), cipher.data(), cipher.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
}

void Connection::set_deadline(const Session& session) {
  // A client that was told names asks for each of them; on a slow line that takes its time.
  deadline_ = connected_at_ +
              options_.handshake_timeout * static_cast<std::int64_t>(1 + session.names_told());
}

bool Connection::wait_for(short events) {
  while (true) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline_ - Clock::now()).count();
    if (left <= 0) break;
    pollfd waited{socket_.get(), events, 0};
    const int ready = ::poll(&waited, 1, static_cast<int>(std::min<std::int64_t>(left, 1'000'000)));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) {
      failure_ = "poll: " + system_text(errno);
      return false;
    }
  }
  failure_ = "the client did not finish its handshake in time";
  return false;
}

}  // namespace mkvirtfs::nbd
