// SPDX-License-Identifier: BSD-3-Clause
// QEMU's standard input and output are one socket: the serial console, which is carried to and from
// the terminal here, because what passes shows whether the guest lives. One thread waits for all of
// it: keys, the console, QEMU's own words, signals, and the lines of mkvirtfs-init.
#include "cli/running_machine.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <iterator>
#include <span>
#include <string_view>
#include <utility>

#include "support/parse_number.h"

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

 private:
  /// Each looks at what is ready; an end when the machine has one.
  std::optional<MachineEnd> take_signal();
  std::optional<MachineEnd> take_keys();
  std::optional<MachineEnd> take_console();
  std::optional<MachineEnd> take_message();
  /// False when there is nothing more at this time.
  bool take_report();
  std::optional<MachineEnd> watch() const;
  Result<void> listen_for_status();
  /// "status 0", "failed TEXT".
  void understand(std::string_view line);
  std::optional<MachineEnd> look_at(std::span<const pollfd> ready);
  Result<MachineEnd> run_to_end();
  void send_keys();
  /// Waits for QEMU, which has closed its console.
  MachineEnd wait_for_end();
  void drain_messages();

  const MachineSetting& setting_;
  const RunningServer& server_;
  UniqueFd console_;
  UniqueFd messages_;
  UniqueFd signals_;
  UniqueFd status_listener_;
  UniqueFd status_;  // QEMU, once it has connected
  ChildProcess process_;
  Clock::time_point started_;
  vm::EscapeKey escape_;
  std::string keys_;          // that QEMU has not taken yet
  std::string message_line_;  // the beginning of a line of QEMU's
  std::string report_line_;   // the beginning of a line of mkvirtfs-init's
  std::optional<int> command_status_;
  std::string failure_;
  bool has_passed_signal_ = false;
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
  if (Result<void> listening = listen_for_status(); !listening) return listening;

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

Result<void> QemuProcess::listen_for_status() {
  const std::string& path = setting_.machine.status_socket;
  if (path.empty()) return {};
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return fail(Errc::usage, fmt::format("{} is too long for a socket", path));
  }
  std::ranges::copy(path, std::begin(address.sun_path));
  ::unlink(path.c_str());  // of a machine before
  status_listener_.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!status_listener_ ||
      ::bind(status_listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) !=
          0 ||
      ::listen(status_listener_.get(), 1) != 0) {
    return fail_errno(Errc::io, errno, fmt::format("listen on {}", path));
  }
  return {};
}

void QemuProcess::understand(std::string_view line) {
  constexpr std::string_view kStatus = "status ";
  constexpr std::string_view kFailed = "failed ";
  if (line.starts_with(kStatus)) {
    const auto status = parse_number<unsigned>(line.substr(kStatus.size()));
    if (status && *status <= 255) command_status_ = static_cast<int>(*status);
  } else if (line.starts_with(kFailed)) {
    failure_ = line.substr(kFailed.size());
  }
}

bool QemuProcess::take_report() {
  constexpr std::size_t kLongestLine = 4096;
  std::array<char, 1024> piece{};
  const ssize_t length = ::recv(status_.get(), piece.data(), piece.size(), 0);
  if (length < 0 && (errno == EINTR || errno == EAGAIN)) return false;
  if (length <= 0) {
    status_.reset();
    return false;
  }
  for (const char c : std::string_view(piece.data(), static_cast<std::size_t>(length))) {
    if (c == '\n') {
      understand(report_line_);
      report_line_.clear();
    } else if (report_line_.size() < kLongestLine) {
      report_line_ += c;
    }
  }
  return true;
}

std::optional<MachineEnd> QemuProcess::take_signal() {
  signalfd_siginfo info{};
  if (::read(signals_.get(), &info, sizeof info) != static_cast<ssize_t>(sizeof info)) return {};
  const auto signal = static_cast<int>(info.ssi_signo);
  if (setting_.passes_signals && status_ && !has_passed_signal_ && signal != SIGHUP) {
    has_passed_signal_ = true;
    const std::string order = fmt::format("signal {}\n", signal);
    if (::send(status_.get(), order.data(), order.size(), MSG_NOSIGNAL) ==
        static_cast<ssize_t>(order.size())) {
      return {};
    }
  }
  return MachineEnd{.how = MachineEnd::How::stopped, .number = signal};
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
  if (typed.leaves) return MachineEnd{.how = MachineEnd::How::left};
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
  if (has_internal_error_) return MachineEnd{.how = MachineEnd::How::internal_error};
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
  if (has_internal_error_) return {.how = MachineEnd::How::internal_error};
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {.how = MachineEnd::How::powered_off};
  return {.how = MachineEnd::How::failed,
          .number = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status)};
}

std::optional<MachineEnd> QemuProcess::watch() const {
  if (!setting_.is_watched || has_console_output_) return {};
  const vm::StartSigns signs{
      .age = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - started_),
      .has_console_output = has_console_output_,
      .disk_reads = server_.reads_answered()};
  if (!vm::has_not_started(signs)) return {};
  return MachineEnd{.how = MachineEnd::How::not_started};
}

std::optional<MachineEnd> QemuProcess::look_at(std::span<const pollfd> ready) {
  std::optional<MachineEnd> end;
  if (ready[0].revents != 0) end = take_signal();
  if (!end && ready[1].revents != 0) end = take_keys();
  if ((ready[2].revents & POLLOUT) != 0) send_keys();
  if (!end && ready[3].revents != 0) end = take_message();
  if (ready[4].revents != 0 && status_) {
    take_report();
  } else if (ready[4].revents != 0) {
    status_.reset(
        ::accept4(status_listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (status_) status_listener_.reset();
  }
  if (!end && (ready[2].revents & ~POLLOUT) != 0) end = take_console();
  return end ? end : watch();
}

Result<MachineEnd> QemuProcess::run_to_end() {
  while (true) {
    // A key that QEMU does not take yet keeps later ones waiting.
    const bool wants_keys = has_input_ && keys_.empty();
    std::array<pollfd, 5> ready{};
    ready[0] = {signals_.get(), POLLIN, 0};
    ready[1] = {wants_keys ? setting_.input : -1, POLLIN, 0};
    ready[2] = {console_.get(), static_cast<short>(POLLIN | (keys_.empty() ? 0 : POLLOUT)), 0};
    ready[3] = {messages_ ? messages_.get() : -1, POLLIN, 0};
    const UniqueFd& status = status_ ? status_ : status_listener_;
    ready[4] = {status ? status.get() : -1, POLLIN, 0};
    const auto timeout = static_cast<int>(kWatchInterval.count());
    if (::poll(ready.data(), ready.size(), timeout) < 0 && errno != EINTR) {
      return fail_errno(Errc::io, errno, "wait for the machine");
    }
    if (const std::optional<MachineEnd> end = look_at(ready)) return *end;
  }
}

Result<MachineEnd> QemuProcess::run() {
  Result<MachineEnd> end = run_to_end();
  if (!end) return end;
  // What it said last may have come with its end.
  while (status_ && take_report()) {
  }
  end->has_console_output = has_console_output_;
  end->status = command_status_;
  end->failure = failure_;
  return end;
}

}  // namespace

Result<MachineEnd> run_machine(const MachineSetting& setting, const RunningServer& server) {
  QemuProcess qemu(setting, server);
  if (Result<void> started = qemu.start(); !started) return propagate(started);
  return qemu.run();
}

}  // namespace mkvirtfs::cli
