// SPDX-License-Identifier: BSD-3-Clause
#include "guest-init/guest_command.h"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "guest-init/guest_user.h"

namespace mkvirtfs::guest {
namespace {

constexpr const char* kConsole = "/dev/ttyS0";
constexpr const char* kDefaultPath =
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
constexpr int kCannotRun = 126;
constexpr int kNotFound = 127;
constexpr int kOwnFailure = 125;

void say(const std::string& text) {
  const std::string line = "mkvirtfs: " + text + "\n";
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
}

bool has_variable(const std::vector<std::string>& environment, std::string_view name) {
  for (const std::string& each : environment) {
    if (each.starts_with(name)) return true;
  }
  return false;
}

/// The console as this process's terminal; without a terminal at the host's end nothing comes from
/// it, and what is printed goes through as it is.
void take_console(const Settings& settings) {
  ::setsid();
  const int console = ::open(kConsole, O_RDWR);
  if (console < 0) return;
  termios mode{};
  ::tcgetattr(console, &mode);
  if (settings.has_terminal) {
    ::ioctl(console, TIOCSCTTY, 1);
    const winsize size{settings.rows, settings.columns, 0, 0};
    if (settings.rows != 0) ::ioctl(console, TIOCSWINSZ, &size);
    mode.c_iflag |= ICRNL | IUTF8;
    mode.c_oflag |= OPOST | ONLCR;
    mode.c_lflag |= ICANON | ISIG | ECHO | ECHOE | ECHOK | IEXTEN;
  } else {
    ::cfmakeraw(&mode);
  }
  ::tcsetattr(console, TCSANOW, &mode);
  const int input = settings.has_terminal ? console : ::open("/dev/null", O_RDONLY);
  ::dup2(input, STDIN_FILENO);
  ::dup2(console, STDOUT_FILENO);
  ::dup2(console, STDERR_FILENO);
}

bool become(const User& user) {
  return ::setgroups(user.groups.size(), user.groups.data()) == 0 && ::setgid(user.gid) == 0 &&
         ::setuid(user.uid) == 0;
}

std::vector<char*> pointers_to(std::vector<std::string>& words) {
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  return pointers;
}

/// In the child. Returns with a status where it cannot become the command.
int become_command(const Settings& settings) {
  sigset_t none;
  ::sigemptyset(&none);
  ::pthread_sigmask(SIG_SETMASK, &none, nullptr);
  take_console(settings);
  const std::optional<User> user = find_user(settings.user);
  if (!user) {
    say("the image has no user " + settings.user);
    return kOwnFailure;
  }
  std::vector<std::string> environment = settings.environment;
  if (!has_variable(environment, "PATH=")) environment.emplace_back(kDefaultPath);
  if (!has_variable(environment, "HOME=")) environment.push_back("HOME=" + user->home);
  // The console is the user's.
  ::fchown(STDOUT_FILENO, user->uid, static_cast<gid_t>(-1));
  ::mkdir(settings.directory.c_str(), 0755);
  if (::chdir(settings.directory.c_str()) != 0) {
    say("enter " + settings.directory + ": " + ::strerrordesc_np(errno));
    return kOwnFailure;
  }
  if (!become(*user)) {
    say("become the user " + settings.user + ": " + ::strerrordesc_np(errno));
    return kOwnFailure;
  }
  std::vector<std::string> arguments = settings.arguments;
  const std::vector<char*> words = pointers_to(arguments);
  std::vector<char*> variables = pointers_to(environment);
  ::environ = variables.data();  // whose PATH leads to the program, too
  ::execvp(words[0], words.data());
  const int failure = errno;
  say("run " + settings.arguments[0] + ": " + ::strerrordesc_np(failure));
  return failure == ENOENT ? kNotFound : kCannotRun;
}

/// Carries out "signal N\n" lines.
void take_orders(int port, pid_t command) {
  std::array<char, 256> piece{};
  const ssize_t length = ::read(port, piece.data(), piece.size() - 1);
  if (length <= 0) return;
  constexpr std::string_view kSignal = "signal ";
  for (std::string_view rest(piece.data(), static_cast<std::size_t>(length)); !rest.empty();) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    const std::string line(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (!line.starts_with(kSignal)) continue;
    const int signal = std::atoi(line.c_str() + kSignal.size());
    if (signal > 0) ::kill(-command, signal);
  }
}

}  // namespace

int run_command(const Settings& settings, int port) {
  sigset_t children;
  ::sigemptyset(&children);
  ::sigaddset(&children, SIGCHLD);
  ::pthread_sigmask(SIG_BLOCK, &children, nullptr);
  const int ended = ::signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
  const pid_t command = ::fork();
  if (command == 0) ::_exit(become_command(settings));
  if (command < 0) return kOwnFailure;
  while (true) {
    std::array<pollfd, 2> ready{{{ended, POLLIN, 0}, {port, POLLIN, 0}}};
    ::poll(ready.data(), ready.size(), -1);
    signalfd_siginfo info{};
    while (::read(ended, &info, sizeof info) > 0) {
    }
    if ((ready[1].revents & POLLIN) != 0) take_orders(port, command);
    if ((ready[1].revents & POLLHUP) != 0) port = -1;  // the host does not listen any more
    int status = 0;
    for (pid_t pid = 0; (pid = ::waitpid(-1, &status, WNOHANG)) > 0;) {
      if (pid == command) {
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
      }
    }
  }
}

}  // namespace mkvirtfs::guest
