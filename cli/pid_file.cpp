// SPDX-License-Identifier: BSD-3-Clause
#include "cli/pid_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <boost/filesystem/operations.hpp>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <ctime>
#include <optional>
#include <string_view>
#include <utility>

#include "cli/streams.h"
#include "support/parse_number.h"

namespace mkvirtfs::cli {
namespace {

std::unexpected<Error> refuse(const std::string& path, std::string_view why) {
  return fail(Errc::io, fmt::format("{} {} (--pidfile needs a name of its own)", path, why));
}

/// What a file holds, if it is short enough to be a process id; a longer one is cut.
std::string read_short(int fd) {
  std::array<char, 32> text{};
  const ssize_t length = ::pread(fd, text.data(), text.size(), 0);
  return {text.data(), length < 0 ? 0 : static_cast<std::size_t>(length)};
}

/// "1234\n", with or without the line end.
std::optional<pid_t> parse_pid(std::string_view text) {
  if (text.ends_with('\n')) text.remove_suffix(1);
  const auto pid = parse_number<pid_t>(text);
  return pid && *pid > 0 ? pid : std::nullopt;
}

std::chrono::nanoseconds since_epoch(const timespec& time) {
  return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

std::chrono::nanoseconds now_of(clockid_t clock) {
  timespec time{};
  ::clock_gettime(clock, &time);
  return since_epoch(time);
}

/// When a process began, as the real-time clock has it; nullopt when /proc does not tell.
std::optional<std::chrono::nanoseconds> start_of(pid_t pid) {
  const UniqueFd file(::open(fmt::format("/proc/{}/stat", pid).c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 1024> text{};
  const ssize_t length = file ? ::read(file.get(), text.data(), text.size()) : -1;
  if (length <= 0) return std::nullopt;
  std::string_view rest(text.data(), static_cast<std::size_t>(length));
  // The name, which may hold anything, ends at the last parenthesis; field 22 is the start.
  const std::size_t name_end = rest.rfind(')');
  if (name_end == std::string_view::npos) return std::nullopt;
  rest.remove_prefix(name_end + 1);
  constexpr int kBlanksBefore = 20;
  for (int i = 0; i < kBlanksBefore; ++i) {
    const std::size_t blank = rest.find(' ');
    if (blank == std::string_view::npos) return std::nullopt;
    rest.remove_prefix(blank + 1);
  }
  std::uint64_t ticks = 0;
  if (std::from_chars(rest.data(), rest.data() + rest.size(), ticks).ec != std::errc()) {
    return std::nullopt;
  }
  const auto ticks_a_second = static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
  const std::chrono::milliseconds after_boot(ticks * 1000 / ticks_a_second);
  return now_of(CLOCK_REALTIME) - now_of(CLOCK_BOOTTIME) + after_boot;
}

/// Whether the process that wrote its id at `written` still runs. An id is used again, after a boot
/// at the latest: then its process began later.
bool lives(pid_t pid, std::chrono::nanoseconds written) {
  if (pid == ::getpid()) return false;
  if (::kill(pid, 0) != 0 && errno == ESRCH) return false;
  constexpr std::chrono::seconds kClocksMayDiffer{2};
  const std::optional<std::chrono::nanoseconds> start = start_of(pid);
  return !start || *start <= written + kClocksMayDiffer;
}

/// Whether the path still leads to the open file.
bool still_there(const std::string& path, int fd) {
  struct stat named;
  struct stat open;
  return ::lstat(path.c_str(), &named) == 0 && ::fstat(fd, &open) == 0 &&
         named.st_dev == open.st_dev && named.st_ino == open.st_ino;
}

/// Opens and locks; nullopt when the file was removed meanwhile.
Result<std::optional<UniqueFd>> open_locked(const std::string& path) {
  constexpr mode_t kReadableByAll = 0644;
  UniqueFd fd(::open(path.c_str(),
                     O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC,
                     kReadableByAll));
  if (!fd && errno == ELOOP) return refuse(path, "is a symbolic link");
  if (!fd) return fail_errno(errno, fmt::format("write {}", path));
  struct stat status;
  if (::fstat(fd.get(), &status) != 0) return fail_errno(errno, fmt::format("write {}", path));
  if (!S_ISREG(status.st_mode)) return refuse(path, "is not a regular file");
  if (status.st_nlink > 1) return refuse(path, "is a file with several names");
  const std::string held = read_short(fd.get());
  const std::optional<pid_t> pid = parse_pid(held);
  const std::string running = fmt::format("is the pid file of a process that runs{}",
                                          pid ? fmt::format(", {}", *pid) : std::string());
  // Where there are no locks, the id alone must do.
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    return refuse(path, running);
  }
  if (!still_there(path, fd.get())) return std::nullopt;
  if (!held.empty() && !pid) return refuse(path, "exists and holds no process id");
  if (pid && lives(*pid, since_epoch(status.st_mtim))) return refuse(path, running);
  return fd;
}

}  // namespace

Result<PidFile> PidFile::create(const std::string& path) {
  constexpr int kMostAttempts = 100;
  for (int attempt = 0; attempt < kMostAttempts; ++attempt) {
    Result<std::optional<UniqueFd>> fd = open_locked(path);
    if (!fd) return propagate(fd);
    if (!*fd) continue;
    // Absolute, so that it is found again wherever the program may go.
    PidFile file(boost::filesystem::absolute(path).string(), std::move(**fd));
    if (::ftruncate(file.fd_.get(), 0) != 0 ||
        !print(file.fd_.get(), fmt::format("{}\n", ::getpid()))) {
      return fail_errno(errno, fmt::format("write {}", path));
    }
    return file;
  }
  return fail(Errc::io, fmt::format("write {}: it is removed again and again", path));
}

PidFile::PidFile(PidFile&& other) noexcept
    : path_(std::exchange(other.path_, {})), fd_(std::move(other.fd_)) {}

PidFile::~PidFile() {
  // Still under the lock, so that nobody takes it over between the two.
  if (!path_.empty() && still_there(path_, fd_.get())) ::unlink(path_.c_str());
}

}  // namespace mkvirtfs::cli
