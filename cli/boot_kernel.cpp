// SPDX-License-Identifier: BSD-3-Clause
// A kernel is a file of the source or of this host, and so are its modules: both are read by
// functions, behind which nobody sees the difference.
#include "cli/boot_kernel.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

#include "bootsect/kernel.h"
#include "cli/boot_file.h"
#include "cli/host_kernel.h"
#include "support/file_bytes.h"
#include "support/open_file.h"
#include "support/unique_fd.h"

namespace mkvirtfs::cli {
namespace {

constexpr std::uint64_t kPieceBytes = std::uint64_t{1} << 20;
constexpr std::uint64_t kMostModuleBytes = std::uint64_t{256} << 20;
constexpr std::uint64_t kMostKernelBytes = std::uint64_t{1} << 30;
constexpr std::size_t kLongestVersion = 256;
constexpr std::string_view kArchitecture = "x86-64";

using Bytes = std::vector<std::byte>;

Result<void> copy(const PreparedImage& image, NodeNo node, BootFile& to) {
  ContentStore& contents = image.device->contents();
  const std::uint64_t size_bytes = image.tree->node(node).size_bytes;
  Bytes piece;
  for (std::uint64_t at = 0; at < size_bytes; at += piece.size()) {
    piece.resize(static_cast<std::size_t>(std::min(kPieceBytes, size_bytes - at)));
    if (Result<void> got = contents.read(content_no(node), at, piece); !got) return got;
    if (Result<void> put = to.append(piece); !put) return put;
  }
  return {};
}

Result<Bytes> read_node(const PreparedImage& image, NodeNo node, std::uint64_t most_bytes) {
  const std::uint64_t size_bytes = image.tree->node(node).size_bytes;
  if (size_bytes > most_bytes) {
    return fail(Errc::unsupported,
                fmt::format("{} has more than {} bytes", image.tree->path(node), most_bytes));
  }
  Bytes bytes(static_cast<std::size_t>(size_bytes));
  if (Result<void> got = image.device->contents().read(content_no(node), 0, bytes); !got) {
    return propagate(got);
  }
  return bytes;
}

Result<Bytes> read_host_file(const std::string& path, std::uint64_t most_bytes) {
  const Result<UniqueFd> file = open_regular_file(path, O_RDONLY, fmt::format("read {}", path));
  if (!file) return propagate(file);
  std::optional<Bytes> bytes = read_all(file->get(), most_bytes);
  if (bytes) return *std::move(bytes);
  return fail(Errc::unreadable,
              fmt::format("{} cannot be read, or has more than {} bytes", path, most_bytes));
}

/// Whose it is, and where.
struct ChosenKernel {
  std::optional<bootsect::FoundKernel> in_tree;
  std::string on_host;  // where it is not in the tree
};

Result<NodeNo> find_initrd(const SourceTree& tree, const std::string& path) {
  if (const auto node = bootsect::find_file(tree, path)) return *node;
  return fail_option({"initrd", path}, "the source has no such file");
}

Result<ChosenKernel> choose(const SourceTree& tree, const KernelWish& wish, LogSink& log) {
  std::optional<bootsect::FoundKernel> newest = bootsect::find_kernel(tree);
  if (wish.kernel.empty()) {
    if (newest) return ChosenKernel{std::move(newest), ""};
    Result<std::string> host = find_host_kernel(log);
    if (!host) return propagate(host);
    return ChosenKernel{std::nullopt, *std::move(host)};
  }
  if (const auto node = bootsect::find_file(tree, wish.kernel)) {
    // Its own initrd is that of the newest kernel, where it is the newest.
    if (newest && newest->kernel == *node) return ChosenKernel{std::move(newest), ""};
    return ChosenKernel{bootsect::FoundKernel{*node, {}, ""}, ""};
  }
  if (::access(wish.kernel.c_str(), F_OK) == 0) return ChosenKernel{std::nullopt, wish.kernel};
  return fail_option({"kernel", wish.kernel}, "neither the source nor this host has such a file");
}

Result<void> check_architecture(std::span<const std::byte> kernel, const std::string& path) {
  const auto architecture = bootsect::kernel_architecture(kernel);
  if (architecture == kArchitecture) return {};
  return fail(Errc::unsupported,
              fmt::format("{} is {}: the machine is a PC, and starts kernels for {}", path,
                          architecture ? fmt::format("a kernel for {}", *architecture)
                                       : "no kernel that is known here",
                          kArchitecture));
}

/// "6.1.0-31-amd64"; "" where a kernel does not say.
std::string version_in(std::span<const std::byte> kernel) {
  const std::optional<std::uint32_t> offset = bootsect::kernel_version_offset(kernel);
  if (!offset || *offset >= kernel.size()) return {};
  const auto rest = kernel.subspan(*offset, std::min(kLongestVersion, kernel.size() - *offset));
  const std::string_view text(reinterpret_cast<const char*>(rest.data()), rest.size());
  const std::size_t end = text.find_first_of(std::string_view(" \0", 2));
  std::string version(text.substr(0, end));
  // It becomes a part of a path.
  return version.find('/') == std::string::npos ? version : std::string();
}

vm::KernelModules modules_in_tree(const PreparedImage& image, const std::string& version) {
  return {[&image, version](const std::string& path) -> Result<std::optional<Bytes>> {
    for (const char* modules : {"usr/lib/modules", "lib/modules"}) {
      const auto node =
          bootsect::find_file(*image.tree, fmt::format("{}/{}/{}", modules, version, path));
      if (!node) continue;
      Result<Bytes> bytes = read_node(image, *node, kMostModuleBytes);
      if (!bytes) return propagate(bytes);
      return *std::move(bytes);
    }
    return std::nullopt;
  }};
}

vm::KernelModules modules_on_host(std::optional<std::string> directory) {
  return {
      [directory = std::move(directory)](const std::string& path) -> Result<std::optional<Bytes>> {
        if (!directory) return std::nullopt;
        const std::string file = fmt::format("{}/{}", *directory, path);
        if (::access(file.c_str(), F_OK) != 0) return std::nullopt;
        Result<Bytes> bytes = read_host_file(file, kMostModuleBytes);
        if (!bytes) return propagate(bytes);
        return *std::move(bytes);
      }};
}

/// All of them, one behind the other.
Result<std::string> join_initrds(const PreparedImage& image, std::span<const NodeNo> nodes,
                                 const PrivateDirectory& directory) {
  Result<BootFile> initrd = BootFile::create(directory.path_of("initrd"));
  if (!initrd) return propagate(initrd);
  for (const NodeNo node : nodes) {
    Result<void> added = initrd->pad();
    if (added) added = copy(image, node, *initrd);
    if (!added) return propagate(added);
  }
  return initrd->path();
}

/// Its initrd in the source, or what one of ours is made of.
Result<void> add_start(const PreparedImage& image, const KernelWish& wish,
                       const ChosenKernel& chosen, const std::string& version,
                       const PrivateDirectory& directory, BootKernel& boot) {
  std::vector<NodeNo> initrds;
  if (chosen.in_tree) initrds = chosen.in_tree->initrds;
  if (!wish.initrds.empty()) initrds.clear();
  for (const std::string& path : wish.initrds) {
    const Result<NodeNo> node = find_initrd(*image.tree, path);
    if (!node) return propagate(node);
    initrds.push_back(*node);
  }
  if (!initrds.empty() && !wish.wants_own_initrd) {
    Result<std::string> joined = join_initrds(image, initrds, directory);
    if (!joined) return propagate(joined);
    boot.direct.initrd = *std::move(joined);
    return {};
  }
  if (!chosen.in_tree) {
    boot.modules = modules_on_host(find_host_modules(chosen.on_host, version));
    return {};
  }
  vm::KernelModules modules = modules_in_tree(image, version);
  const auto list = modules.read("modules.dep");
  if (!list) return propagate(list);
  // A kernel without modules needs no initrd to mount its root.
  if (*list || wish.wants_own_initrd) boot.modules = std::move(modules);
  return {};
}

}  // namespace

Result<BootKernel> take_kernel(const PreparedImage& image, const KernelWish& wish,
                               const PrivateDirectory& directory, LogSink& log) {
  const Result<ChosenKernel> chosen = choose(*image.tree, wish, log);
  if (!chosen) return propagate(chosen);
  const Result<Bytes> bytes = chosen->in_tree
                                  ? read_node(image, chosen->in_tree->kernel, kMostKernelBytes)
                                  : read_host_file(chosen->on_host, kMostKernelBytes);
  if (!bytes) return propagate(bytes);
  const std::string shown =
      chosen->in_tree ? image.tree->path(chosen->in_tree->kernel) : chosen->on_host;
  if (Result<void> good = check_architecture(*bytes, shown); !good) return propagate(good);
  if (!chosen->in_tree)
    log.write(LogLevel::info, fmt::format("the kernel is {} of this host", shown));
  Result<BootFile> kernel = BootFile::create(directory.path_of("kernel"));
  if (!kernel) return propagate(kernel);
  if (Result<void> copied = kernel->append(*bytes); !copied) return propagate(copied);
  BootKernel boot;
  boot.direct.kernel = kernel->path();
  std::string version = chosen->in_tree ? chosen->in_tree->version : "";
  if (version.empty()) version = version_in(*bytes);
  if (Result<void> added = add_start(image, wish, *chosen, version, directory, boot); !added) {
    return propagate(added);
  }
  return boot;
}

}  // namespace mkvirtfs::cli
