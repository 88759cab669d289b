// SPDX-License-Identifier: BSD-3-Clause
#include "support/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <catch2/catch.hpp>

#include <chrono>
#include <string>

#include "support/file_bytes.h"
#include "support/unique_fd.h"

using namespace mkvirtfs;
using namespace std::chrono_literals;

namespace {

std::string text_in(const UniqueFd& file) {
  const auto bytes = read_all(file.get(), 1 << 20);
  REQUIRE(bytes);
  return {reinterpret_cast<const char*>(bytes->data()), bytes->size()};
}

}  // namespace

TEST_CASE("a child has what it is given, and nothing else") {
  const UniqueFd output(::memfd_create("output", MFD_CLOEXEC));
  const UniqueFd inherited(::open("/dev/null", O_RDONLY));  // not close-on-exec
  REQUIRE(inherited);
  sigset_t blocked;
  sigset_t before;
  ::sigemptyset(&blocked);
  ::sigaddset(&blocked, SIGUSR1);
  ::pthread_sigmask(SIG_BLOCK, &blocked, &before);
  ChildProcess child;
  // The descriptor of the listing itself comes behind the three.
  REQUIRE(child.start({.words = {"/bin/sh", "-c",
                                 "echo /proc/self/fd/*; echo $A; env | wc -l; cat; "
                                 "grep SigBlk /proc/self/status; echo lost >&2; exit 7"},
                       .output = output.get(),
                       .environment = {{"A=b", "PATH=/usr/bin:/bin"}}}) == 0);
  const std::optional<int> status = child.wait(20s);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  REQUIRE(status);
  CHECK(WEXITSTATUS(*status) == 7);
  const std::string text = text_in(output);
  INFO(text);
  CHECK(text.find("/proc/self/fd/4") == text.npos);
  CHECK(text.find("/proc/self/fd/2") != text.npos);
  CHECK(text.find("\nb\n") != text.npos);
  CHECK(text.find("lost") == text.npos);
  CHECK(text.find("SigBlk:\t0000000000000000\n") != text.npos);
}

TEST_CASE("a child that does not end is killed") {
  ChildProcess child;
  REQUIRE(child.start({.words = {"/bin/sleep", "1000"}}) == 0);
  CHECK(!child.wait(1ms));
  const int status = child.end(1ms);
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGKILL);
}

TEST_CASE("a program that is not there is an error of its start") {
  ChildProcess child;
  CHECK(child.start({.words = {"/no/such/program"}}) == ENOENT);
}
