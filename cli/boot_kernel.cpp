// SPDX-License-Identifier: BSD-3-Clause
#include "cli/boot_kernel.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "bootsect/kernel.h"
#include "support/file_bytes.h"
#include "support/unique_fd.h"

namespace mkvirtfs::cli {
namespace {

constexpr std::uint64_t kPieceBytes = std::uint64_t{1} << 20;
constexpr std::string_view kArchitecture = "x86-64";

/// What is written for QEMU.
class BootFile {
 public:
  static Result<BootFile> create(const std::string& path) {
    UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!file) return fail_errno(errno, fmt::format("make {}", path));
    return BootFile(std::move(file), path);
  }
  Result<void> append(std::span<const std::byte> bytes) {
    if (!write_all(file_.get(), bytes)) return fail_errno(errno, fmt::format("write {}", path_));
    size_bytes_ += bytes.size();
    return {};
  }
  /// A kernel looks for the next archive of an initrd at a multiple of four bytes.
  Result<void> pad() {
    constexpr std::array<std::byte, 3> kZeroes{};
    return append(std::span(kZeroes).first((4 - size_bytes_ % 4) % 4));
  }
  const std::string& path() const noexcept { return path_; }

 private:
  BootFile(UniqueFd file, std::string path) : file_(std::move(file)), path_(std::move(path)) {}

  UniqueFd file_;
  std::string path_;
  std::uint64_t size_bytes_ = 0;
};

Result<void> copy(const PreparedImage& image, NodeNo node, BootFile& to) {
  ContentStore& contents = image.device->contents();
  const std::uint64_t size_bytes = image.tree->node(node).size_bytes;
  std::vector<std::byte> piece;
  for (std::uint64_t at = 0; at < size_bytes; at += piece.size()) {
    piece.resize(static_cast<std::size_t>(std::min(kPieceBytes, size_bytes - at)));
    if (Result<void> got = contents.read(content_no(node), at, piece); !got) return got;
    if (Result<void> put = to.append(piece); !put) return put;
  }
  return {};
}

Result<NodeNo> find(const SourceTree& tree, const std::string& path, std::string_view option) {
  if (const auto node = bootsect::find_file(tree, path)) return *node;
  return std::unexpected(
      Error{Errc::unreadable, 0, "the source has no such file", {std::string(option), path}, {}});
}

Result<bootsect::FoundKernel> choose(const SourceTree& tree, const KernelWish& wish) {
  bootsect::FoundKernel chosen;
  if (wish.kernel.empty()) {
    std::optional<bootsect::FoundKernel> found = bootsect::find_kernel(tree);
    if (!found) {
      return fail(Errc::unreadable,
                  "the source has no kernel: no usr/lib/modules/VERSION/vmlinuz, "
                  "boot/vmlinuz-VERSION or vmlinuz",
                  {{"kernel"}});
    }
    chosen = *std::move(found);
  } else {
    const Result<NodeNo> kernel = find(tree, wish.kernel, "kernel");
    if (!kernel) return propagate(kernel);
    chosen.kernel = *kernel;
    // Its own initrd is that of the newest kernel, where it is the newest.
    const auto newest = bootsect::find_kernel(tree);
    if (newest && newest->kernel == *kernel) chosen = *newest;
  }
  if (wish.initrds.empty()) return chosen;
  chosen.initrds.clear();
  for (const std::string& path : wish.initrds) {
    const Result<NodeNo> initrd = find(tree, path, "initrd");
    if (!initrd) return propagate(initrd);
    chosen.initrds.push_back(*initrd);
  }
  return chosen;
}

Result<void> check_architecture(const PreparedImage& image, NodeNo kernel) {
  std::vector<std::byte> head(static_cast<std::size_t>(
      std::min<std::uint64_t>(bootsect::kKernelHeadBytes, image.tree->node(kernel).size_bytes)));
  if (Result<void> got = image.device->contents().read(content_no(kernel), 0, head); !got) {
    return got;
  }
  const auto architecture = bootsect::kernel_architecture(head);
  if (architecture == kArchitecture) return {};
  return fail(Errc::unsupported,
              fmt::format("{} is {}: the machine is a PC, and starts kernels for {}",
                          image.tree->path(kernel),
                          architecture ? fmt::format("a kernel for {}", *architecture)
                                       : "no kernel that is known here",
                          kArchitecture));
}

}  // namespace

Result<vm::DirectKernel> take_kernel(const PreparedImage& image, const KernelWish& wish,
                                     const PrivateDirectory& directory) {
  const Result<bootsect::FoundKernel> chosen = choose(*image.tree, wish);
  if (!chosen) return propagate(chosen);
  if (Result<void> good = check_architecture(image, chosen->kernel); !good) return propagate(good);
  Result<BootFile> kernel = BootFile::create(directory.path_of("kernel"));
  if (!kernel) return propagate(kernel);
  if (Result<void> copied = copy(image, chosen->kernel, *kernel); !copied) return propagate(copied);
  vm::DirectKernel direct{kernel->path(), "", ""};
  if (chosen->initrds.empty()) return direct;
  Result<BootFile> initrd = BootFile::create(directory.path_of("initrd"));
  if (!initrd) return propagate(initrd);
  for (const NodeNo node : chosen->initrds) {
    Result<void> added = initrd->pad();
    if (added) added = copy(image, node, *initrd);
    if (!added) return propagate(added);
  }
  direct.initrd = initrd->path();
  return direct;
}

}  // namespace mkvirtfs::cli
