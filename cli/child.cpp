// SPDX-License-Identifier: BSD-3-Clause
#include "cli/child.h"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string_view>

namespace mkvirtfs::cli {
namespace {

/// Our environment with `variables` in place of what had their names, and without what a service
/// manager meant for us alone.
std::vector<std::string> child_environment(
    const std::vector<std::pair<std::string, std::string>>& variables) {
  std::vector<std::string> result;
  for (char** each = environ; each != nullptr && *each != nullptr; ++each) {
    const std::string_view entry = *each;
    const std::string_view name = entry.substr(0, entry.find('='));
    bool ours = name == "NOTIFY_SOCKET" || name.starts_with("LISTEN_");
    for (const auto& [key, value] : variables) ours = ours || name == key;
    if (!ours) result.emplace_back(entry);
  }
  for (const auto& [key, value] : variables) result.push_back(fmt::format("{}={}", key, value));
  return result;
}

}  // namespace

Result<Child> Child::start(const std::string& command,
                           const std::vector<std::pair<std::string, std::string>>& variables) {
  std::vector<std::string> entries = child_environment(variables);
  std::vector<char*> environment;
  environment.reserve(entries.size() + 1);
  for (std::string& entry : entries) environment.push_back(entry.data());
  environment.push_back(nullptr);
  std::array<std::string, 3> words = {"sh", "-c", command};
  std::array<char*, 4> arguments = {words[0].data(), words[1].data(), words[2].data(), nullptr};

  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  sigset_t none;
  ::sigemptyset(&none);
  sigset_t ignored_by_us;
  ::sigemptyset(&ignored_by_us);
  ::sigaddset(&ignored_by_us, SIGPIPE);
  ::sigaddset(&ignored_by_us, SIGXFSZ);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &ignored_by_us);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  pid_t pid = -1;
  const int failure =
      ::posix_spawn(&pid, "/bin/sh", nullptr, &attributes, arguments.data(), environment.data());
  ::posix_spawnattr_destroy(&attributes);
  if (failure != 0) return fail_errno(Errc::io, failure, "run /bin/sh");

  // The id cannot be another process's yet: nobody has waited for it.
  Child child(pid, UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))));
  if (!child.pid_fd_) return fail_errno(Errc::io, errno, "watch the command that was started");
  return child;
}

Child::Child(Child&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), pid_fd_(std::move(other.pid_fd_)) {}

Child::~Child() {
  if (pid_ < 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

void Child::send(int signal) noexcept {
  // By the descriptor, which never stands for another process, however soon this one is gone.
  if (pid_fd_) ::syscall(SYS_pidfd_send_signal, pid_fd_.get(), signal, nullptr, 0);
}

std::optional<int> Child::wait(std::chrono::milliseconds most) {
  pollfd ended{pid_fd_.get(), POLLIN, 0};
  const auto deadline = std::chrono::steady_clock::now() + most;
  while (true) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    const int ready = ::poll(&ended, 1, left.count() > 0 ? static_cast<int>(left.count()) : 0);
    if (ready > 0) break;
    if (ready == 0 && left.count() <= 0) return std::nullopt;
  }
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace mkvirtfs::cli
