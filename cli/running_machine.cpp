// SPDX-License-Identifier: BSD-3-Clause
// QEMU's standard input and output are one socket: the serial console, which is carried to and from
// the terminal here, because what passes shows whether the guest lives. One thread waits for all of
// it: keys, the console, QEMU's own words, and signals.
#include "cli/running_machine.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string_view>
#include <utility>

namespace mkvirtfs::cli {
namespace {

using Clock = std::chrono::steady_clock;

/// How often the signs of life are looked at.
constexpr std::chrono::milliseconds kWatchInterval{200};
/// How long QEMU may take to end once its console is closed.
constexpr std::chrono::seconds kEndGrace{10};
constexpr std::size_t kPieceBytes = 16384;

/// QEMU as a child, with the ends of what it is connected to.
class QemuProcess {
 public:
  QemuProcess(const MachineSetting& setting, const RunningServer& server)
      : setting_(setting), server_(server) {}

  Result<void> start();
  Result<MachineEnd> run();
  bool has_console_output() const noexcept { return has_console_output_; }

 private:
  /// Each looks at what is ready; an end when the machine has one.
  std::optional<MachineEnd> take_signal();
  std::optional<MachineEnd> take_keys();
  std::optional<MachineEnd> take_console();
  std::optional<MachineEnd> take_message();
  std::optional<MachineEnd> watch() const;
  void send_keys();
  /// Waits for QEMU, which has closed its console.
  MachineEnd wait_for_end();
  void drain_messages();

  const MachineSetting& setting_;
  const RunningServer& server_;
  UniqueFd console_;
  UniqueFd messages_;
  UniqueFd signals_;
  ChildProcess process_;
  Clock::time_point started_;
  vm::EscapeKey escape_;
  std::string keys_;          // that QEMU has not taken yet
  std::string message_line_;  // the beginning of a line of QEMU's
  bool has_input_ = true;
  bool has_console_output_ = false;
  bool has_internal_error_ = false;
};

Result<void> QemuProcess::start() {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return fail_errno(Errc::io, errno, "make a socket pair");
  }
  console_.reset(ends[0]);
  const UniqueFd console_of_qemu(ends[1]);
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno(Errc::io, errno, "make a pipe");
  messages_.reset(ends[0]);
  const UniqueFd messages_of_qemu(ends[1]);
  ::fcntl(console_.get(), F_SETFL, O_NONBLOCK);
  ::fcntl(messages_.get(), F_SETFL, O_NONBLOCK);
  signals_.reset(::signalfd(-1, &setting_.signals.set(), SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals_) return fail_errno(Errc::io, errno, "watch for signals");
  has_input_ = setting_.input >= 0;

  ChildProcess::Setup setup;
  setup.words = vm::qemu_arguments(setting_.machine);
  setup.words.insert(setup.words.begin(), setting_.qemu);
  setup.input = console_of_qemu.get();
  setup.output = console_of_qemu.get();
  setup.messages = messages_of_qemu.get();
  started_ = Clock::now();
  if (const int failure = process_.start(setup); failure != 0) {
    return fail_errno(Errc::io, failure, fmt::format("run {}", setting_.qemu));
  }
  return {};
}

std::optional<MachineEnd> QemuProcess::take_signal() {
  signalfd_siginfo info{};
  if (::read(signals_.get(), &info, sizeof info) != static_cast<ssize_t>(sizeof info)) return {};
  return MachineEnd{MachineEnd::How::stopped, static_cast<int>(info.ssi_signo)};
}

std::optional<MachineEnd> QemuProcess::take_keys() {
  std::array<char, 1024> piece{};
  const ssize_t length = ::read(setting_.input, piece.data(), piece.size());
  if (length < 0 && (errno == EINTR || errno == EAGAIN)) return {};
  if (length <= 0) {
    has_input_ = false;
    return {};
  }
  const vm::EscapeKey::Typed typed = escape_.type({piece.data(), static_cast<std::size_t>(length)});
  keys_ += typed.for_guest;
  if (typed.leaves) return MachineEnd{MachineEnd::How::left};
  send_keys();
  return {};
}

void QemuProcess::send_keys() {
  while (!keys_.empty()) {
    const ssize_t sent = ::send(console_.get(), keys_.data(), keys_.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) return;
    if (sent < 0) {
      keys_.clear();  // its end is found where it is read
      return;
    }
    keys_.erase(0, static_cast<std::size_t>(sent));
  }
}

std::optional<MachineEnd> QemuProcess::take_console() {
  std::array<char, kPieceBytes> piece{};
  const ssize_t length = ::recv(console_.get(), piece.data(), piece.size(), 0);
  if (length < 0 && (errno == EINTR || errno == EAGAIN)) return {};
  if (length <= 0) return wait_for_end();
  has_console_output_ = true;
  // Where nobody reads any more, the machine goes on.
  print(setting_.streams.out, {piece.data(), static_cast<std::size_t>(length)});
  return {};
}

std::optional<MachineEnd> QemuProcess::take_message() {
  std::array<char, kPieceBytes> piece{};
  const ssize_t length = ::read(messages_.get(), piece.data(), piece.size());
  if (length < 0 && (errno == EINTR || errno == EAGAIN)) return {};
  if (length <= 0) {
    messages_.reset();
    return {};
  }
  const std::string_view text(piece.data(), static_cast<std::size_t>(length));
  print(setting_.streams.err, text);
  for (const char c : text) {
    if (c != '\n') {
      message_line_ += c;
      continue;
    }
    has_internal_error_ = has_internal_error_ || vm::is_internal_error(message_line_);
    message_line_.clear();
  }
  if (has_internal_error_) return MachineEnd{MachineEnd::How::internal_error};
  return {};
}

void QemuProcess::drain_messages() {
  pollfd ready{messages_.get(), POLLIN, 0};
  while (messages_ && ::poll(&ready, 1, 0) > 0) {
    if (take_message()) return;
  }
}

MachineEnd QemuProcess::wait_for_end() {
  const int status = process_.end(kEndGrace);
  drain_messages();
  if (has_internal_error_) return {MachineEnd::How::internal_error};
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {MachineEnd::How::powered_off};
  return {MachineEnd::How::failed,
          WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status)};
}

std::optional<MachineEnd> QemuProcess::watch() const {
  if (!setting_.is_watched || has_console_output_) return {};
  const vm::StartSigns signs{
      .age = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - started_),
      .has_console_output = has_console_output_,
      .disk_reads = server_.reads_answered()};
  if (!vm::has_not_started(signs)) return {};
  return MachineEnd{MachineEnd::How::not_started};
}

Result<MachineEnd> QemuProcess::run() {
  while (true) {
    // A key that QEMU does not take yet keeps later ones waiting.
    const bool wants_keys = has_input_ && keys_.empty();
    std::array<pollfd, 4> ready{};
    ready[0] = {signals_.get(), POLLIN, 0};
    ready[1] = {wants_keys ? setting_.input : -1, POLLIN, 0};
    ready[2] = {console_.get(), static_cast<short>(POLLIN | (keys_.empty() ? 0 : POLLOUT)), 0};
    ready[3] = {messages_ ? messages_.get() : -1, POLLIN, 0};
    const auto timeout = static_cast<int>(kWatchInterval.count());
    if (::poll(ready.data(), ready.size(), timeout) < 0 && errno != EINTR) {
      return fail_errno(Errc::io, errno, "wait for the machine");
    }
    std::optional<MachineEnd> end;
    if (ready[0].revents != 0) end = take_signal();
    if (!end && ready[1].revents != 0) end = take_keys();
    if ((ready[2].revents & POLLOUT) != 0) send_keys();
    if (!end && ready[3].revents != 0) end = take_message();
    if (!end && (ready[2].revents & ~POLLOUT) != 0) end = take_console();
    if (!end) end = watch();
    if (end) return *end;
  }
}

}  // namespace

Result<MachineEnd> run_machine(const MachineSetting& setting, const RunningServer& server) {
  QemuProcess qemu(setting, server);
  if (Result<void> started = qemu.start(); !started) return propagate(started);
  Result<MachineEnd> end = qemu.run();
  if (end) end->has_console_output = qemu.has_console_output();
  return end;
}

}  // namespace mkvirtfs::cli
