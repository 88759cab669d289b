// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/helper/message.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>
#include <limits>
#include <string>
#include <string_view>

#include "support/byte_order.h"

namespace mkvirtfs::helper {
namespace {

// The payload's length, and the type.
constexpr std::size_t kHeaderBytes = 5;
constexpr std::size_t kMostTextBytes = std::size_t{64} << 10;
// An error of a helper speaks of no option of ours as being at fault, and has a hint or two.
constexpr std::size_t kMostHints = 8;
constexpr std::size_t kMostSettingBytes = 256;

}  // namespace

void put(Packer& out, const Error& error) {
  out.number(static_cast<std::uint64_t>(error.code));
  out.number(static_cast<std::uint64_t>(std::max(error.os_errno, 0)));
  out.text(std::string_view(error.what).substr(0, kMostTextBytes));
  const std::size_t hints = std::min(error.hints.size(), kMostHints);
  out.number(hints);
  for (std::size_t at = 0; at < hints; ++at) {
    out.text(std::string_view(error.hints[at].option).substr(0, kMostSettingBytes));
    out.text(std::string_view(error.hints[at].value).substr(0, kMostSettingBytes));
  }
}

std::optional<Error> take_error(Unpacker& in) {
  const std::uint64_t code = in.number();
  const std::uint64_t os_errno = in.number();
  const std::string_view what = in.text();
  const std::uint64_t hints = in.number();
  if (!in.good() || code > static_cast<std::uint64_t>(Errc::io) || os_errno > 4095 ||
      what.empty() || what.size() > kMostTextBytes || hints > kMostHints) {
    return std::nullopt;
  }
  Error error{static_cast<Errc>(code), static_cast<int>(os_errno), std::string(what)};
  for (std::uint64_t at = 0; at < hints; ++at) {
    const std::string_view option = in.text();
    const std::string_view value = in.text();
    if (!in.good() || option.size() > kMostSettingBytes || value.size() > kMostSettingBytes) {
      return std::nullopt;
    }
    error.hints.push_back({std::string(option), std::string(value)});
  }
  return error;
}

MessageSocket::Outcome MessageSocket::wait(short events) {
  using Clock = std::chrono::steady_clock;
  pollfd waiting{descriptor_.get(), events, 0};
  while (true) {
    // Rounded up, so that the last wait is not one of nothing.
    int timeout_ms = -1;
    if (patience_) {
      if (*patience_ <= std::chrono::nanoseconds::zero()) return Outcome::too_slow;
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(*patience_).count();
      timeout_ms = static_cast<int>(std::min<std::int64_t>(left, std::numeric_limits<int>::max()));
    }
    const Clock::time_point start = Clock::now();
    const int ready = ::poll(&waiting, 1, timeout_ms);
    const std::chrono::nanoseconds waited = Clock::now() - start;
    waited_ += waited;
    if (patience_) *patience_ -= waited;
    if (ready > 0) return Outcome::done;
    if (ready < 0 && errno != EINTR) return Outcome::broken;
  }
}

MessageSocket::Outcome MessageSocket::receive_all(std::span<std::byte> out) {
  while (!out.empty()) {
    const ssize_t got = ::recv(descriptor_.get(), out.data(), out.size(), MSG_DONTWAIT);
    if (got > 0) {
      out = out.subspan(static_cast<std::size_t>(got));
    } else if (got == 0 || errno == ECONNRESET) {
      return Outcome::closed;
    } else if (errno == EAGAIN) {
      if (const Outcome waited = wait(POLLIN); waited != Outcome::done) return waited;
    } else if (errno != EINTR) {
      return Outcome::broken;
    }
  }
  return Outcome::done;
}

MessageSocket::Outcome MessageSocket::send_all(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t sent =
        ::send(descriptor_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent > 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(sent));
    } else if (errno == EPIPE || errno == ECONNRESET) {
      return Outcome::closed;
    } else if (errno == EAGAIN) {
      if (const Outcome waited = wait(POLLOUT); waited != Outcome::done) return waited;
    } else if (errno != EINTR) {
      return Outcome::broken;
    }
  }
  return Outcome::done;
}

MessageSocket::Outcome MessageSocket::send(MessageType type, std::span<const std::byte> payload) {
  assert(payload.size() <= kMostPayloadBytes);
  std::array<std::byte, kHeaderBytes> header{};
  store_le(std::span<std::byte>(header), 0, static_cast<std::uint32_t>(payload.size()));
  header[4] = static_cast<std::byte>(type);
  const Outcome sent = send_all(header);
  return sent == Outcome::done ? send_all(payload) : sent;
}

MessageSocket::Outcome MessageSocket::receive(Message& message) {
  std::array<std::byte, kHeaderBytes> header{};
  if (const Outcome got = receive_all(header); got != Outcome::done) return got;
  const auto length = load_le<std::uint32_t>(std::span<const std::byte>(header));
  if (length > kMostPayloadBytes) return Outcome::broken;
  message.type = static_cast<MessageType>(header[4]);
  message.payload.resize(length);
  return receive_all(message.payload);
}

}  // namespace mkvirtfs::helper
