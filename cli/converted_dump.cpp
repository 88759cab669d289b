// SPDX-License-Identifier: BSD-3-Clause
// Formats of virtual machines have tables that are written behind the data that they point at, and
// qemu-img has written them right for many years: it reads the image from a server here, and writes
// a file in a private directory beside the output, which gets its name when it is on the disk.
#include "cli/converted_dump.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/filesystem/operations.hpp>
#include <boost/filesystem/path.hpp>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <optional>
#include <utility>

#include "cli/child.h"
#include "cli/private_directory.h"
#include "cli/running_server.h"
#include "exports/export_tree.h"
#include "support/unique_fd.h"

namespace mkvirtfs::cli {
namespace {

/// sh's exit status for a program that is not there.
constexpr int kNotFound = 127;
constexpr std::chrono::milliseconds kCancelCheckInterval{100};
/// How long qemu-img may take to end after SIGTERM.
constexpr std::chrono::seconds kChildGrace{5};

/// Whether the output may be written, before anything is done for it.
Result<void> check_output(const ConvertedDump& to) {
  struct stat status{};
  if (::lstat(to.path.c_str(), &status) != 0) {
    if (errno == ENOENT) return {};
    return fail_errno(Errc::io, errno, fmt::format("look at {}", to.path));
  }
  if (!S_ISREG(status.st_mode)) {
    return fail(Errc::io, fmt::format("{} is not a regular file: only raw images go to anything "
                                      "else",
                                      to.path));
  }
  if (!to.overwrite) return fail(Errc::io, fmt::format("{} exists already", to.path), {{"force"}});
  return {};
}

/// Until the child has ended or was cancelled; its exit status.
Result<int> wait_for(Child& child, const std::atomic<bool>& cancel) {
  while (true) {
    const std::optional<int> status = child.wait(kCancelCheckInterval);
    if (status && !cancel) return *status;
    if (!status && !cancel) continue;
    // A terminal sends its signal to both, and qemu-img may be the first to end.
    if (!status) {
      child.send(SIGTERM);
      child.wait(kChildGrace);
    }
    return fail_errno(Errc::io, ECANCELED, "dump");
  }
}

/// Brings the file to the disk and under its name.
Result<std::uint64_t> publish(const std::string& from, const ConvertedDump& to) {
  const UniqueFd file(::open(from.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  struct stat status{};
  if (!file || ::fsync(file.get()) != 0 || ::fstat(file.get(), &status) != 0) {
    return fail_errno(errno, fmt::format("write {}", to.path));
  }
  const unsigned flags = to.overwrite ? 0U : RENAME_NOREPLACE;
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.path.c_str(), flags) != 0) {
    // Some file systems cannot rename without replacing; a link cannot replace either.
    if (errno != EINVAL || ::link(from.c_str(), to.path.c_str()) != 0) {
      return fail_errno(errno, fmt::format("give {} its name", to.path));
    }
  }
  constexpr std::uint64_t kStatBlockBytes = 512;
  return static_cast<std::uint64_t>(status.st_blocks) * kStatBlockBytes;
}

}  // namespace

Result<std::uint64_t> dump_converted(std::shared_ptr<BlockDevice> device, const ConvertedDump& to,
                                     const std::atomic<bool>& cancel, LogSink& log) {
  if (Result<void> good = check_output(to); !good) return propagate(good);
  const Result<PrivateDirectory> sockets = PrivateDirectory::create();
  if (!sockets) return propagate(sockets);
  // Absolute: qemu-img takes what stands before a colon for a protocol.
  const std::string parent = boost::filesystem::absolute(to.path).parent_path().string();
  const Result<PrivateDirectory> beside = PrivateDirectory::create_in(parent);
  if (!beside) return propagate(beside);
  const std::string socket = sockets->path_of("socket");
  const std::string unfinished = beside->path_of("image");
  auto exports = make_single_export(std::move(device));
  if (!exports) return propagate(exports);
  const auto server = RunningServer::start(*std::move(exports), socket, log);
  if (!server) return propagate(server);
  // The words go by the environment: none of them is read by the shell.
  Result<Child> child = Child::start(
      "command -v qemu-img >/dev/null || exit 127; exec qemu-img convert -f raw -O \"$format\" "
      "\"$uri\" \"$output\" >&2",
      {{"format", to.format}, {"uri", (*server)->uri()}, {"output", unfinished}});
  if (!child) return propagate(child);
  const Result<int> status = wait_for(*child, cancel);
  if (!status) return propagate(status);
  if (*status == kNotFound) {
    return fail(Errc::unsupported,
                fmt::format("qemu-img writes {} files, and is not installed (package qemu-utils)",
                            to.format));
  }
  if (*status != 0) {
    return fail(Errc::io, fmt::format("qemu-img failed with exit status {}", *status));
  }
  return publish(unfinished, to);
}

}  // namespace mkvirtfs::cli
