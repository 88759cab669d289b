// SPDX-License-Identifier: BSD-3-Clause
#include "cli/shared_directory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <optional>
#include <string_view>
#include <vector>

#include "cli/program_path.h"
#include "support/file_bytes.h"
#include "support/unique_fd.h"

namespace mkvirtfs::cli {
namespace {

constexpr std::chrono::milliseconds kCheckInterval{20};
constexpr int kMostChecks = 500;
constexpr std::uint64_t kMostLogBytes = 1 << 20;
/// That of QEMU itself, which later versions have no more: its options are those of FUSE.
constexpr const char* kProgramOfQemu = "/usr/lib/qemu/virtiofsd";

std::optional<std::string> find_virtiofsd() {
  if (std::optional<std::string> path = find_program("virtiofsd")) return path;
  for (const char* path : {"/usr/libexec/virtiofsd", "/usr/lib/virtiofsd", kProgramOfQemu}) {
    if (::access(path, X_OK) == 0) return path;
  }
  return std::nullopt;
}

std::string last_line_of(const std::string& path) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  const auto bytes = file ? read_all(file.get(), kMostLogBytes) : std::nullopt;
  if (!bytes || bytes->empty()) return "it said nothing";
  std::string text(reinterpret_cast<const char*>(bytes->data()), bytes->size());
  while (text.ends_with('\n')) text.pop_back();
  return text.substr(text.rfind('\n') + 1);
}

}  // namespace

Result<std::unique_ptr<SharedDirectory>> SharedDirectory::start(const std::string& path,
                                                                const std::string& socket,
                                                                const PrivateDirectory& directory) {
  const std::optional<std::string> program = find_virtiofsd();
  if (!program) {
    return fail(Errc::unsupported,
                "virtiofsd shares the directory, and is not installed (package virtiofsd, or "
                "qemu-system-common in Debian 12)");
  }
  ::unlink(socket.c_str());  // of a machine before
  const std::string log = directory.path_of("virtiofsd.log");
  const UniqueFd messages(::open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!messages) return fail_errno(errno, fmt::format("make {}", log));
  ChildProcess::Setup setup;
  setup.words = {*program, "--socket-path=" + socket};
  if (*program == kProgramOfQemu) {
    if (path.find(',') != std::string::npos) {
      return fail(Errc::unsupported, fmt::format("{}: virtiofsd takes no comma in a path", path));
    }
    setup.words.insert(setup.words.end(), {"-o", "source=" + path});
  } else {
    setup.words.push_back("--shared-dir=" + path);
  }
  setup.output = messages.get();
  setup.messages = messages.get();
  std::unique_ptr<SharedDirectory> shared(new SharedDirectory);
  if (const int failure = shared->process_.start(setup); failure != 0) {
    return fail_errno(Errc::io, failure, fmt::format("run {}", *program));
  }
  for (int checks = 0; checks < kMostChecks; ++checks) {
    if (shared->process_.wait(kCheckInterval)) break;
    if (::access(socket.c_str(), F_OK) == 0) return shared;
  }
  return fail(Errc::unsupported,
              fmt::format("virtiofsd does not start for {}: {}", path, last_line_of(log)));
}

}  // namespace mkvirtfs::cli
