// SPDX-License-Identifier: BSD-3-Clause
#include "support/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "support/unique_fd.h"

namespace mkvirtfs {
namespace {

std::vector<char*> pointers_to(std::vector<std::string>& words) {
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  return pointers;
}

int wait_for(pid_t pid) noexcept {
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

}  // namespace

ChildProcess::~ChildProcess() {
  if (pid_ > 0) end(std::chrono::milliseconds::zero());
}

int ChildProcess::start(const Setup& setup) {
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  const auto give = [&](int descriptor, int as, int flags) {
    if (descriptor < 0) {
      ::posix_spawn_file_actions_addopen(&actions, as, "/dev/null", flags, 0);
    } else {
      ::posix_spawn_file_actions_adddup2(&actions, descriptor, as);
    }
  };
  give(setup.input, STDIN_FILENO, O_RDONLY);
  give(setup.output, STDOUT_FILENO, O_WRONLY);
  give(setup.messages, STDERR_FILENO, O_WRONLY);
  ::posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1);
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  sigset_t none;
  ::sigemptyset(&none);
  sigset_t all;
  ::sigfillset(&all);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &all);
  ::posix_spawnattr_setpgroup(&attributes, 0);
  ::posix_spawnattr_setflags(
      &attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  std::vector<std::string> words = setup.words;
  std::vector<std::string> variables = setup.environment.value_or(std::vector<std::string>());
  const std::vector<char*> arguments = pointers_to(words);
  const std::vector<char*> environment = pointers_to(variables);
  const int failure =
      ::posix_spawn(&pid_, words.front().c_str(), &actions, &attributes, arguments.data(),
                    setup.environment ? environment.data() : environ);
  ::posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&actions);
  if (failure != 0) pid_ = -1;
  return failure;
}

std::optional<int> ChildProcess::wait(std::chrono::milliseconds most) noexcept {
  using Clock = std::chrono::steady_clock;
  const UniqueFd handle(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
  if (!handle) return std::nullopt;
  pollfd ended{handle.get(), POLLIN, 0};
  const auto deadline = Clock::now() + most;
  // A signal of this process does not end the wait.
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    const int answers = ::poll(&ended, 1, static_cast<int>(std::max(left, decltype(left){0})));
    if (answers > 0) break;
    if (answers == 0 || errno != EINTR) return std::nullopt;
  }
  const int status = wait_for(pid_);
  pid_ = -1;
  return status;
}

int ChildProcess::end(std::chrono::milliseconds grace) noexcept {
  if (const std::optional<int> status = wait(grace)) return *status;
  ::kill(pid_, SIGKILL);
  const int status = wait_for(pid_);
  pid_ = -1;
  return status;
}

}  // namespace mkvirtfs
