// SPDX-License-Identifier: BSD-3-Clause
// A child process calls syncfs(2) and exits with its errno. The parent polls a pidfd until the
// deadline; a child that is late is killed and left to a thread that waits for its end.
#include "fsgen/host/source_sync.h"

#include <fmt/format.h>
#include <linux/magic.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <csignal>
#include <limits>
#include <system_error>

#include "support/thread.h"
#include "support/unique_fd.h"

namespace mkvirtfs {
namespace {

using Clock = std::chrono::steady_clock;

/// File systems in memory write nothing back, so a page stays writable for a mapping, and its
/// writes set no times.
const char* blind_kind(int fd) {
  struct statfs facts;
  if (::fstatfs(fd, &facts) != 0) return nullptr;
  switch (static_cast<std::uint64_t>(facts.f_type)) {
    case TMPFS_MAGIC:
      return "tmpfs";
    case RAMFS_MAGIC:
      return "ramfs";
    case HUGETLBFS_MAGIC:
      return "hugetlbfs";
    default:
      return nullptr;
  }
}

/// Where an open file is; a message can do without.
std::string path_of(int fd) {
  std::array<char, PATH_MAX> path{};
  const ssize_t length =
      ::readlink(fmt::format("/proc/self/fd/{}", fd).c_str(), path.data(), path.size());
  return length < 0 ? "the source" : std::string(path.data(), static_cast<std::size_t>(length));
}

/// The child: holds only the file system open, so that no process waits for it to close a pipe or
/// to release a lock.
[[noreturn]] void sync_and_exit(int fd, SyncCall call) noexcept {
  if (fd != 0) ::dup2(fd, 0);
  ::syscall(SYS_close_range, 1U, std::numeric_limits<unsigned>::max(), 0U);
  ::_exit(call(0) == 0 ? 0 : errno);
}

/// True when the process ended before `deadline`.
bool wait_for_end(int process, Clock::time_point deadline) {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd ended{process, POLLIN, 0};
    const int ready = ::poll(
        &ended, 1,
        static_cast<int>(std::clamp<std::int64_t>(left, 0, std::numeric_limits<int>::max())));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
    if (ready == 0 && left <= 0) return false;
  }
}

int end_of(pid_t child) {
  int status = 0;
  while (::waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return ECHILD;
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : EINTR;
}

}  // namespace

std::expected<void, int> sync_file_system(int fd, std::chrono::milliseconds most, SyncCall call) {
  const Clock::time_point deadline = Clock::now() + most;
  const pid_t child = ::fork();
  if (child < 0) return std::unexpected(errno);
  if (child == 0) sync_and_exit(fd, call);
  const UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
  if (!process || wait_for_end(process.get(), deadline)) {
    const int why = end_of(child);
    if (why != 0) return std::unexpected(why);
    return {};
  }
  ::kill(child, SIGKILL);  // it ends when the kernel lets it
  // Without a thread it stays in the list of processes until we end.
  if (auto thread = start_thread("wait for a process", [child] { end_of(child); })) {
    thread->detach();
  }
  return std::unexpected(ETIMEDOUT);
}

std::expected<void, int> sync_file_system(int fd, std::chrono::milliseconds most) {
  return sync_file_system(fd, most, ::syncfs);
}

bool SourceSync::ensure(std::uint64_t device, int fd) {
  {
    MutexLock lock(mutex_);
    const auto [known, is_new] = devices_.try_emplace(device, State::waiting);
    if (!is_new) {
      while (devices_.at(device) == State::waiting) lock.wait(changed_);
      return devices_.at(device) == State::done;
    }
  }
  const char* const kind = blind_kind(fd);
  const auto synced = kind != nullptr ? std::expected<void, int>() : sync_file_system(fd, most_);

  const std::string path = path_of(fd);
  const MutexLock lock(mutex_);
  devices_[device] = synced ? State::done : State::failed;
  changed_.notify_all();
  if (kind != nullptr) {
    blind_.push_back(
        fmt::format("{} is on {}, which does not set the times of a file that is written through "
                    "a mapping: such changes are not seen",
                    path, kind));
  }
  if (synced) return true;
  if (!error_) {
    if (synced.error() == ETIMEDOUT) {
      error_ = Error{Errc::io,
                     ETIMEDOUT,
                     fmt::format("the file system of {} was not written back within {} s", path,
                                 most_.count() / 1000),
                     {"sync-source"},
                     {{"sync-timeout"}}};
    } else {
      error_ = Error{Errc::io,
                     synced.error(),
                     fmt::format("write back the file system of {}: {}", path,
                                 std::generic_category().message(synced.error())),
                     {"sync-source"}};
    }
  }
  return false;
}

std::optional<Error> SourceSync::error() const {
  const MutexLock lock(mutex_);
  return error_;
}

std::vector<std::string> SourceSync::blind() const {
  const MutexLock lock(mutex_);
  return blind_;
}

}  // namespace mkvirtfs
