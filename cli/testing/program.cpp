// SPDX-License-Identifier: BSD-3-Clause
#include "cli/testing/program.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <stdexcept>
#include <thread>

#include "cli/run.h"

namespace mkvirtfs::cli::testing {
namespace {

UniqueFd memory_file() {
  UniqueFd fd(::memfd_create("output", MFD_CLOEXEC));
  if (!fd) throw std::runtime_error("memfd_create");
  return fd;
}

std::string contents(const UniqueFd& fd) {
  std::string text;
  std::array<char, 1 << 16> buffer;
  ssize_t got;
  while ((got = ::pread(fd.get(), buffer.data(), buffer.size(), static_cast<off_t>(text.size()))) >
         0) {
    text.append(buffer.data(), static_cast<std::size_t>(got));
  }
  return text;
}

}  // namespace

Outcome run_here(const std::vector<std::string>& arguments) {
  std::vector<const char*> words = {"mkvirtfs"};
  for (const std::string& argument : arguments) words.push_back(argument.c_str());
  const UniqueFd out = memory_file();
  const UniqueFd err = memory_file();
  Outcome outcome;
  outcome.status = run(static_cast<int>(words.size()), words.data(), {out.get(), err.get()});
  outcome.out = contents(out);
  outcome.err = contents(err);
  return outcome;
}

Process::Process(const std::vector<std::string>& arguments, const Variables& variables) {
  std::vector<std::string> words = {MKVIRTFS_PROGRAM};
  words.insert(words.end(), arguments.begin(), arguments.end());
  start(words, variables);
}

Process Process::of(const std::vector<std::string>& words, const Variables& variables) {
  Process process;
  process.start(words, variables);
  return process;
}

void Process::start(const std::vector<std::string>& words, const Variables& variables) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("pipe2");
  out_.reset(ends[0]);
  const UniqueFd writer(ends[1]);
  err_ = memory_file();
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  pid_ = ::fork();
  if (pid_ < 0) throw std::runtime_error("fork");
  if (pid_ > 0) return;
  ::dup2(::open("/dev/null", O_RDONLY | O_CLOEXEC), STDIN_FILENO);
  ::dup2(writer.get(), STDOUT_FILENO);
  ::dup2(err_.get(), STDERR_FILENO);
  for (const auto& [name, value] : variables) ::setenv(name.c_str(), value.c_str(), 1);
  ::execvp(arguments[0], arguments.data());
  ::_exit(127);
}

Process::Process(Process&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      out_(std::move(other.out_)),
      err_(std::move(other.err_)),
      unread_(std::move(other.unread_)) {}

Process::~Process() {
  if (pid_ < 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

void Process::send(int signal) { ::kill(pid_, signal); }

std::string Process::read_line() {
  std::size_t end;
  while ((end = unread_.find('\n')) == std::string::npos) {
    pollfd ready{out_.get(), POLLIN, 0};
    std::array<char, 4096> buffer;
    ssize_t got = -1;
    if (::poll(&ready, 1, 20'000) == 1) got = ::read(out_.get(), buffer.data(), buffer.size());
    if (got <= 0) throw std::runtime_error("no line; it said: " + contents(err_));
    unread_.append(buffer.data(), static_cast<std::size_t>(got));
  }
  std::string line = unread_.substr(0, end);
  unread_.erase(0, end + 1);
  return line;
}

Outcome Process::finish() {
  Outcome outcome;
  outcome.out = std::move(unread_);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  bool open = true;
  int status = 0;
  while (true) {
    pollfd ready{open ? out_.get() : -1, POLLIN, 0};
    if (::poll(&ready, 1, 5) == 1) {
      std::array<char, 1 << 16> buffer;
      const ssize_t got = ::read(out_.get(), buffer.data(), buffer.size());
      if (got > 0) outcome.out.append(buffer.data(), static_cast<std::size_t>(got));
      open = got > 0;
      if (open) continue;
    }
    if (::waitpid(pid_, &status, WNOHANG) == pid_) break;
    if (std::chrono::steady_clock::now() > deadline) {
      throw std::runtime_error("it does not end; it said: " + contents(err_));
    }
  }
  pid_ = -1;
  outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  outcome.err = contents(err_);
  return outcome;
}

}  // namespace mkvirtfs::cli::testing
