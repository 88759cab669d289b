// SPDX-License-Identifier: BSD-3-Clause
#include "cli/pipe_bridge.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <thread>
#include <utility>

#include "support/thread.h"

namespace mkvirtfs::cli {
namespace {

/// How long the last replies may take on their way to the client.
constexpr int kLingerMs = 5'000;
/// Moved at a time; a pipe holds so much.
constexpr std::size_t kPieceBytes = 64U << 10;

/// Waits for `events` of `fd`; false when the bridge is to end.
bool wait_for(int fd, short events, int end_fd) noexcept {
  std::array<pollfd, 2> polled = {pollfd{fd, events, 0}, pollfd{end_fd, POLLIN, 0}};
  while (::poll(polled.data(), polled.size(), -1) < 0 && errno == EINTR) {
  }
  return polled[1].revents == 0;
}

/// Moves bytes until `from` ends, `to` takes no more, or the bridge is to end. One of them is a
/// pipe.
void move_all(int from, int to, int end_fd) noexcept {
  while (wait_for(from, POLLIN, end_fd) && wait_for(to, POLLOUT, end_fd)) {
    const ssize_t moved =
        ::splice(from, nullptr, to, nullptr, kPieceBytes, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    if (moved == 0) return;
    if (moved < 0 && errno != EAGAIN && errno != EINTR) return;
  }
}

}  // namespace

struct PipeBridge::State {
  UniqueFd input;
  UniqueFd output;
  UniqueFd ours;    // the end of the socket pair that the threads use
  UniqueFd theirs;  // the other one, until it is taken
  UniqueFd end;     // an eventfd; readable: the threads are to end
  UniqueFd sent;    // an eventfd; readable: the client has all, or takes no more
  std::thread in_thread;
  std::thread out_thread;
};

Result<PipeBridge> PipeBridge::start(UniqueFd input, UniqueFd output) {
  auto state = std::make_unique<State>();
  state->input = std::move(input);
  state->output = std::move(output);
  std::array<int, 2> pair{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) != 0) {
    return fail_errno(errno, "make a pair of sockets");
  }
  state->ours.reset(pair[0]);
  state->theirs.reset(pair[1]);
  state->end.reset(::eventfd(0, EFD_CLOEXEC));
  state->sent.reset(::eventfd(0, EFD_CLOEXEC));
  if (!state->end || !state->sent) return fail_errno(errno, "make an eventfd");

  // The threads block SIGPIPE: a pipe that nobody reads any more must not kill us.
  State* const shared = state.get();
  PipeBridge bridge(std::move(state));  // from here on its end joins what was started
  Result<std::thread> in_thread = start_thread("move bytes from a pipe", [shared] {
    move_all(shared->input.get(), shared->ours.get(), shared->end.get());
    ::shutdown(shared->ours.get(), SHUT_WR);
  });
  if (!in_thread) return propagate(in_thread);
  shared->in_thread = std::move(*in_thread);
  Result<std::thread> out_thread = start_thread("move bytes to a pipe", [shared] {
    move_all(shared->ours.get(), shared->output.get(), shared->end.get());
    // The end that writes sees that nobody reads, and the end that reads that nothing more comes.
    ::shutdown(shared->ours.get(), SHUT_RD);
    shared->output.reset();
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(shared->sent.get(), &one, sizeof one);
  });
  if (!out_thread) return propagate(out_thread);
  shared->out_thread = std::move(*out_thread);
  return bridge;
}

PipeBridge::PipeBridge(std::unique_ptr<State> state) : state_(std::move(state)) {}

PipeBridge::PipeBridge(PipeBridge&&) noexcept = default;

PipeBridge::~PipeBridge() {
  if (!state_) return;
  state_->theirs.reset();
  if (state_->out_thread.joinable()) {
    pollfd sent{state_->sent.get(), POLLIN, 0};
    while (::poll(&sent, 1, kLingerMs) < 0 && errno == EINTR) {
    }
  }
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(state_->end.get(), &one, sizeof one);
  if (state_->in_thread.joinable()) state_->in_thread.join();
  if (state_->out_thread.joinable()) state_->out_thread.join();
}

UniqueFd PipeBridge::take_socket() { return std::move(state_->theirs); }

}  // namespace mkvirtfs::cli
