// SPDX-License-Identifier: BSD-3-Clause
#include "nbd/server/connection.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/time.h>

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

/// TCP asks whether a silent client is still there: after so many seconds, then as often as that,
/// so many times.
constexpr int kKeepaliveIdle = 60;
constexpr int kKeepaliveInterval = 10;
constexpr int kKeepaliveProbes = 6;

std::string system_text(int error) { return std::generic_category().message(error); }

/// How often a call goes round before it lets others have the thread.
constexpr int kTurns = 64;

void prepare_socket(int fd, bool blocking) noexcept {
  const int flags = ::fcntl(fd, F_GETFL);
  const int wanted = blocking ? flags & ~O_NONBLOCK : flags | O_NONBLOCK;
  if (flags >= 0 && wanted != flags) ::fcntl(fd, F_SETFL, wanted);
  // All of these are improvements: a socket that cannot have them is served all the same.
  int domain = 0;
  socklen_t length = sizeof domain;
  if (::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) != 0) return;
  const int on = 1;
  if (domain == AF_INET || domain == AF_INET6) {
    // TCP tunes its own send buffer, and better than we could.
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    // A client whose machine is gone is noticed after two minutes, not two hours.
    ::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &kKeepaliveIdle, sizeof kKeepaliveIdle);
    ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &kKeepaliveInterval, sizeof kKeepaliveInterval);
    ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &kKeepaliveProbes, sizeof kKeepaliveProbes);
  } else {
    ::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &kSendBuffer, sizeof kSendBuffer);
  }
  if (blocking) {
    const timeval linger{0, std::chrono::microseconds(Connection::kLinger).count()};
    ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &linger, sizeof linger);
    ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &linger, sizeof linger);
  }
}

TransmissionTuning tuning_for(TransmissionTuning tuning, bool sigpipe_is_blocked) noexcept {
  tuning.file_runs = tuning.file_runs && sigpipe_is_blocked;
  return tuning;
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

std::span<std::byte> ReceiveBuffer::room(Demand demand, std::size_t useful) {
  if (capacity_ == 0) reallocate(kSmallBuffer);
  if (begin_ == 0 && end_ == capacity_) {
    reallocate(capacity_ * 2);
  } else if (demand == Demand::more && capacity_ < useful) {
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

Connection::Connection(UniqueFd socket, ExportTree& exports, const ConnectionOptions& options,
                       Patience most)
    : socket_(std::move(socket)),
      options_(options),
      blocking_(most == Patience::linger),
      session_(exports, tuning_for(options.tuning, blocking_), options.tls, *options.extensions,
               options.features, &meter_, options.most_names_listed) {
  prepare_socket(socket_.get(), blocking_);
}

std::optional<Connection::Clock::time_point> Connection::deadline() const noexcept {
  if (ended_ || !session_.in_handshake() || opening_since_ ||
      options_.handshake_timeout.count() == 0) {
    return std::nullopt;
  }
  // A client that has a list of names asks for each of them; on a slow line that takes its time.
  return connected_at_ + own_time_ +
         options_.handshake_timeout * static_cast<std::int64_t>(1 + session_.names_listed());
}

void Connection::job_done(const std::shared_ptr<Job>& job) {
  session_.job_done(job);
  if (opening_since_) own_time_ += Clock::now() - *std::exchange(opening_since_, std::nullopt);
}

bool Connection::is_late() const noexcept {
  const auto at = deadline();
  return at && Clock::now() >= *at;
}

void Connection::on_ready(Patience patience) {
  want_read_ = false;
  want_write_ = false;
  has_more_ = false;
  dont_wait_ = patience == Patience::none ? MSG_DONTWAIT : 0;
  for (int turn = 0; !ended_; ++turn) {
    if (cut_.load(std::memory_order_relaxed)) return end("it was cut off");
    if (is_late()) return refuse("the client did not finish its handshake in time");
    if (!has_passed_shutdown_on_ && shutting_down_.load(std::memory_order_relaxed)) {
      has_passed_shutdown_on_ = true;
      session_.begin_shutdown();
    }
    if (turn == kTurns) {
      has_more_ = true;
      want_write_ = true;
      return;
    }
    if (tls_ && send_cipher() != Moved::all) return;
    if (sending_ && send() != Moved::all) return;
    const Clock::time_point begun = in_handshake_ ? Clock::now() : Clock::time_point();
    input_.drop(session_.consume(input_.bytes()));
    // That an export takes long to be built is not the client's fault.
    if (in_handshake_) own_time_ += Clock::now() - begun;
    if (!opening_since_ && session_.in_handshake() && session_.has_jobs()) {
      opening_since_ = Clock::now();
    }
    if (in_handshake_ && !session_.in_handshake()) {
      in_handshake_ = false;
      input_.shrink_to(kSmallBuffer);
    }
    if (!session_.batch().empty()) {
      begin_send();
    } else if (session_.finished()) {
      end(std::string(session_.end_reason()));
    } else if (session_.wants_tls() && tls_ && tls_->handshake_done()) {
      tls_->trim();
      session_.tls_established();
    } else if (!session_.wants_input() || receive() != Moved::all) {
      return;
    } else if (!in_handshake_) {
      meter_.input_arrived(Clock::now());
    }
  }
}

void Connection::end(std::string reason) {
  ended_ = true;
  want_read_ = false;
  want_write_ = false;
  end_reason_ = std::move(reason);
  if (tls_) {
    // The alert that says why, or the good-bye: whether it gets through does not matter any more.
    tls_->close();
    const std::span<const std::byte> cipher = tls_->cipher_out();
    ::send(socket_.get(), cipher.data(), cipher.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  }
  // The descriptor lives until the connection is destroyed, but the client shall see the end now.
  ::shutdown(socket_.get(), SHUT_RDWR);
}

void Connection::refuse(std::string reason) {
  if (in_handshake_) refusal_ = reason;
  end(std::move(reason));
}

Remark Connection::refusal() const {
  return refusal_.empty() ? session_.refusal() : Remark{LogLevel::info, refusal_};
}

void Connection::begin_shutdown() noexcept {
  shutting_down_.store(true, std::memory_order_relaxed);
  // What the client sent before is still received; then its end of the stream seems closed.
  ::shutdown(socket_.get(), SHUT_RD);
}

void Connection::cut() noexcept {
  cut_.store(true, std::memory_order_relaxed);
  ::shutdown(socket_.get(), SHUT_RDWR);
}

Connection::Moved Connection::receive() {
  if (session_.wants_tls() && !tls_) tls_.emplace(options_.tls_credentials);
  return tls_ ? receive_through_tls() : receive_some(input_, filled_room_);
}

/// A handshake is served with little.
ReceiveBuffer::Demand Connection::demand_after(bool filled_room) const noexcept {
  return filled_room && !session_.in_handshake() ? ReceiveBuffer::Demand::more
                                                 : ReceiveBuffer::Demand::usual;
}

Connection::Moved Connection::receive_some(ReceiveBuffer& into, bool& filled_room) {
  const std::span<std::byte> room = into.room(demand_after(filled_room), kUsefulBuffer);
  // Jobs that come back shall not find the thread asleep here.
  const bool waits = dont_wait_ == 0 && !session_.has_jobs();
  ssize_t count = -1;
  const auto try_once = [&] {
    count = ::recv(socket_.get(), room.data(), room.size(), MSG_DONTWAIT);
    return count >= 0 || errno != EAGAIN;
  };
  if (!try_once() && waits && !eager_.look_out(try_once)) {
    eager_.sleep_begins();
    count = ::recv(socket_.get(), room.data(), room.size(), 0);
    eager_.sleep_ended();
  }
  if (count > 0) {
    into.received(static_cast<std::size_t>(count));
    filled_room = static_cast<std::size_t>(count) == room.size();
    return Moved::all;
  }
  if (count == 0) {
    session_.input_ended("the client hung up");
    return Moved::all;
  }
  if (errno == EINTR) return Moved::all;
  if (errno == EAGAIN) {
    want_read_ = true;
    return Moved::would_wait;
  }
  end("receive: " + system_text(errno));
  return Moved::ended;
}

/// Gets some plain bytes, or one step further in TLS' own handshake.
Connection::Moved Connection::receive_through_tls() {
  // Before the handshake is done the session has no use for bytes.
  const bool handshake = session_.wants_tls();
  const std::span<std::byte> room =
      handshake ? std::span<std::byte>() : input_.room(demand_after(filled_room_), kUsefulBuffer);
  const net::TlsChannel::Moved moved = tls_->receive(cipher_.bytes(), room);
  cipher_.drop(moved.cipher_bytes);
  if (tls_->failed()) {
    refuse(tls_->failure());
    return Moved::ended;
  }
  if (moved.plain_bytes > 0) {
    input_.received(moved.plain_bytes);
    filled_room_ = moved.plain_bytes == room.size();
    return Moved::all;
  }
  // What it has to say to the client goes first.
  if (!tls_->cipher_out().empty() || (handshake && tls_->handshake_done())) return Moved::all;
  if (tls_->closed_by_peer()) {
    session_.input_ended("the client hung up");
    return Moved::all;
  }
  return receive_some(cipher_, filled_cipher_room_);
}

void Connection::trim() {
  if (sending_ || session_.has_jobs()) return;
  session_.trim();
  input_.shrink_to(kSmallBuffer);
  iovecs_ = {};
  if (tls_) {
    tls_->trim();
    cipher_.shrink_to(kSmallBuffer);
  }
}

void Connection::begin_send() {
  sending_ = true;
  iovecs_.clear();
  session_.batch().gather(iovecs_);
  iovecs_left_ = iovecs_;
  move_ = {};
}

Connection::Moved Connection::send() {
  const bool file = session_.batch().file().has_value();
  Moved moved = tls_ ? send_through_tls(iovecs_left_) : send_memory(iovecs_left_, file);
  if (moved == Moved::all && file) moved = send_file();
  if (moved == Moved::would_wait) want_write_ = true;
  if (moved == Moved::all) {
    sending_ = false;
    if (meter_.has_answers()) meter_.batch_sent(Clock::now());
    session_.batch_sent(move_);
  }
  return moved;
}

Connection::Moved Connection::send_memory(std::span<iovec>& left, bool more_follows) {
  const int flags = MSG_NOSIGNAL | dont_wait_ | (more_follows ? MSG_MORE : 0);
  while (!left.empty()) {
    msghdr message{};
    message.msg_iov = left.data();
    message.msg_iovlen = left.size();
    const ssize_t count = ::sendmsg(socket_.get(), &message, flags);
    if (count < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) return Moved::would_wait;
      end("send: " + system_text(errno));
      return Moved::ended;
    }
    drop_front(left, static_cast<std::size_t>(count));
  }
  return Moved::all;
}

Connection::Moved Connection::send_through_tls(std::span<iovec>& left) {
  while (true) {
    if (const Moved moved = send_cipher(); moved != Moved::all || left.empty()) return moved;
    drop_front(left, tls_->write(left));
    if (tls_->failed()) {
      refuse(tls_->failure());
      return Moved::ended;
    }
  }
}

Connection::Moved Connection::send_cipher() {
  while (!tls_->cipher_out().empty()) {
    const std::span<const std::byte> cipher = tls_->cipher_out();
    iovec segment{const_cast<std::byte*>(cipher.data()), cipher.size()};
    std::span<iovec> left(&segment, 1);
    const Moved moved = send_memory(left, false);
    if (moved == Moved::ended) return moved;
    tls_->sent(cipher.size() - (left.empty() ? 0 : segment.iov_len));
    if (moved == Moved::would_wait) {
      want_write_ = true;
      return moved;
    }
  }
  return Moved::all;
}

Connection::Moved Connection::send_file() {
  const Batch::FileRun& run = *session_.batch().file();
  while (move_.moved_bytes < run.length && !move_.unsupported) {
    auto offset = static_cast<off_t>(run.offset + move_.moved_bytes);
    const ssize_t count = ::sendfile(socket_.get(), run.file.fd(), &offset,
                                     static_cast<std::size_t>(run.length - move_.moved_bytes));
    if (count > 0) {
      move_.moved_bytes += static_cast<std::uint64_t>(count);
    } else if (count == 0) {
      break;  // the file ended: the session knows what to make of it
    } else if (errno == EINTR) {
      continue;
    } else if (errno == EAGAIN) {
      return Moved::would_wait;
    } else if (is_socket_failure(errno)) {
      end("send: " + system_text(errno));
      return Moved::ended;
    } else {
      // The file system has no such operation, or the disk failed: the store's own read finds out.
      move_.unsupported = true;
    }
  }
  return Moved::all;
}

}  // namespace mkvirtfs::nbd
