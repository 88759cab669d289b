// SPDX-License-Identifier: BSD-3-Clause
// The two processes share a socket. What comes over it is printed when it is complete: its last
// byte is NUL. An end without that is a process that failed and has said why on standard error,
// which is the same for both until then.
#include "cli/background.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <string>
#include <utility>

namespace mkvirtfs::cli {
namespace {

/// What the other process says until a NUL, or until it ends.
std::string receive_all(int socket) {
  std::string text;
  std::array<char, 4096> piece{};
  while (true) {
    const ssize_t length = ::recv(socket, piece.data(), piece.size(), 0);
    if (length < 0 && errno == EINTR) continue;
    if (length <= 0) return text;
    text.append(piece.data(), static_cast<std::size_t>(length));
    if (text.ends_with('\0')) return text;
  }
}

int wait_for(pid_t pid) {
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) return 1;
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

bool Background::keeps(int standard_error) {
  struct stat status{};
  return ::fstat(standard_error, &status) == 0 && S_ISREG(status.st_mode);
}

Result<Background::Side> Background::divide(const Streams& streams) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return fail_errno(Errc::io, errno, "make a socket pair");
  }
  UniqueFd mine(ends[0]);
  UniqueFd others(ends[1]);
  const pid_t pid = ::fork();
  if (pid < 0) return fail_errno(Errc::io, errno, "start a process in the background");
  Side side;
  if (pid == 0) {
    side.background = Background(std::move(others));
    return side;
  }
  others.reset();
  std::string text = receive_all(mine.get());
  if (!text.ends_with('\0')) {
    side.status = wait_for(pid);
    // It may not end well without a word: it never said that it was ready.
    if (side.status == 0) return fail(Errc::io, "the server ended before it was ready");
    return side;
  }
  text.pop_back();
  text += fmt::format("pid {}\n", pid);
  side.status = print(streams.out, text) ? 0 : 1;
  return side;
}

Result<void> Background::ready(std::string_view text, bool wants_no_input) const {
  const UniqueFd nowhere(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!nowhere) return fail_errno(Errc::io, errno, "open /dev/null");
  if (wants_no_input) ::dup2(nowhere.get(), STDIN_FILENO);
  ::dup2(nowhere.get(), STDOUT_FILENO);
  if (!keeps(STDERR_FILENO)) ::dup2(nowhere.get(), STDERR_FILENO);
  ::setsid();
  std::string whole(text);
  whole += '\0';
  std::string_view rest = whole;
  while (!rest.empty()) {
    const ssize_t sent = ::send(command_.get(), rest.data(), rest.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return fail_errno(Errc::io, errno, "report to the command that waits");
    rest.remove_prefix(static_cast<std::size_t>(sent));
  }
  return {};
}

}  // namespace mkvirtfs::cli
