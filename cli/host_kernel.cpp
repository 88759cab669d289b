// SPDX-License-Identifier: BSD-3-Clause
#include "cli/host_kernel.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "bootsect/kernel.h"

namespace mkvirtfs::cli {
namespace {

constexpr std::string_view kImagePrefix = "vmlinuz-";

struct HostKernel {
  std::string version;
  std::string path;
};

/// Calls `visit` with the path of each entry.
template <class Visit>
void for_each_entry(const char* directory, Visit&& visit) {
  std::error_code failure;
  for (std::filesystem::directory_iterator at(directory, failure), end; !failure && at != end;
       at.increment(failure)) {
    visit(at->path());
  }
}

std::vector<HostKernel> list_kernels() {
  std::vector<HostKernel> kernels;
  for_each_entry("/boot", [&](const std::filesystem::path& path) {
    const std::string name = path.filename().string();
    if (!name.starts_with(kImagePrefix) || name.find("rescue") != std::string::npos) return;
    kernels.push_back({name.substr(kImagePrefix.size()), path.string()});
  });
  for_each_entry("/usr/lib/modules", [&](const std::filesystem::path& path) {
    const std::filesystem::path kernel = path / "vmlinuz";
    if (::access(kernel.c_str(), F_OK) != 0) return;
    kernels.push_back({path.filename().string(), kernel.string()});
  });
  std::ranges::sort(kernels, [](const HostKernel& one, const HostKernel& other) {
    return bootsect::is_older(other.version, one.version);
  });
  return kernels;
}

}  // namespace

Result<std::string> find_host_kernel(LogSink& log) {
  std::string unreadable;
  for (HostKernel& kernel : list_kernels()) {
    if (::access(kernel.path.c_str(), R_OK) == 0) {
      if (!unreadable.empty()) {
        log.write(LogLevel::warning,
                  fmt::format("{} cannot be read: {} is taken", unreadable, kernel.path));
      }
      return std::move(kernel.path);
    }
    if (unreadable.empty()) unreadable = kernel.path;
  }
  return fail(
      Errc::unsupported,
      unreadable.empty()
          ? "neither the source nor this host (/boot, /usr/lib/modules) has a kernel"
          : fmt::format("the source has no kernel, and that of this host, {}, cannot be read",
                        unreadable),
      {{"kernel"}});
}

std::optional<std::string> find_host_modules(const std::string& kernel,
                                             const std::string& version) {
  const std::filesystem::path beside = std::filesystem::path(kernel).parent_path();
  for (const std::filesystem::path& directory :
       {beside, beside / ".." / "lib" / "modules" / version,
        std::filesystem::path("/lib/modules") / version}) {
    if (::access((directory / "modules.dep").c_str(), R_OK) == 0) return directory.string();
  }
  return std::nullopt;
}

}  // namespace mkvirtfs::cli
