// SPDX-License-Identifier: BSD-3-Clause
#include "bootsect/kernel.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "fsgen/tree/symlink_way.h"
#include "fsgen/tree/tree_path.h"
#include "support/byte_order.h"

namespace mkvirtfs::bootsect {
namespace {

constexpr std::string_view kImagePrefix = "vmlinuz-";

/// What a path leads to; nullopt for nothing.
std::optional<NodeNo> walk(const SourceTree& tree, std::string_view path) {
  const std::vector<std::string_view> components = components_of(path);
  SymlinkWay rest(components);
  NodeNo at = kRootNode;
  while (!rest.at_end()) {
    const std::string_view name = rest.take();
    if (!tree.node(at).is_directory()) return std::nullopt;
    if (name == "..") {
      at = tree.parent_of(at).node;
      continue;
    }
    const Entry* const found = tree.find(tree.directory(tree.directory_no(at)), name);
    if (found == nullptr) return std::nullopt;
    if (!tree.node(found->node).is_symlink()) {
      at = found->node;
      continue;
    }
    if (!rest.count_symlink()) return std::nullopt;
    const std::string_view target = tree.symlink_target(found->node);
    if (target.starts_with('/')) at = kRootNode;
    rest.lead_on(components_of(target));
  }
  return at;
}

bool is_rescue(std::string_view version) noexcept { return version.find("rescue") != version.npos; }

/// Calls `visit(name)` for each entry of the directory at `path`.
template <class Visit>
void for_each_name(const SourceTree& tree, std::string_view path, Visit&& visit) {
  const std::optional<NodeNo> node = walk(tree, path);
  if (!node || !tree.node(*node).is_directory()) return;
  const Directory& directory = tree.directory(tree.directory_no(*node));
  for (const Entry& entry : tree.entries(directory)) visit(tree.name(directory, entry));
}

void keep_newest(FoundKernel& newest, bool& found, NodeNo kernel, std::string_view version) {
  if (found && !is_older(newest.version, version)) return;
  found = true;
  newest.kernel = kernel;
  newest.version = version;
}

/// The first one that is there.
void add_initrd(const SourceTree& tree, std::span<const std::string> paths, FoundKernel& kernel) {
  for (const std::string& path : paths) {
    if (const std::optional<NodeNo> file = find_file(tree, path)) {
      kernel.initrds.push_back(*file);
      return;
    }
  }
}

std::optional<FoundKernel> newest_of_modules(const SourceTree& tree) {
  FoundKernel newest;
  bool found = false;
  for_each_name(tree, "usr/lib/modules", [&](std::string_view version) {
    if (is_rescue(version)) return;
    const auto file = find_file(tree, fmt::format("usr/lib/modules/{}/vmlinuz", version));
    if (file) keep_newest(newest, found, *file, version);
  });
  return found ? std::optional(std::move(newest)) : std::nullopt;
}

std::optional<FoundKernel> newest_in(const SourceTree& tree, std::string_view directory) {
  FoundKernel newest;
  bool found = false;
  for_each_name(tree, directory, [&](std::string_view name) {
    if (!name.starts_with(kImagePrefix)) return;
    const std::string_view version = name.substr(kImagePrefix.size());
    if (is_rescue(version)) return;
    const auto file = find_file(tree, fmt::format("{}/{}", directory, name));
    if (file) keep_newest(newest, found, *file, version);
  });
  return found ? std::optional(std::move(newest)) : std::nullopt;
}

struct Piece {
  std::string_view text;
  bool is_number = false;
};

/// The digits, or what is none, at the start of a version, which become less.
Piece take_piece(std::string_view& version) noexcept {
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  if (version.empty()) return {};
  const bool is_number = is_digit(version.front());
  std::size_t length = 1;
  while (length < version.size() && is_digit(version[length]) == is_number) ++length;
  Piece piece{version.substr(0, length), is_number};
  version.remove_prefix(length);
  if (is_number) {
    const std::size_t zeroes = std::min(piece.text.find_first_not_of('0'), piece.text.size() - 1);
    piece.text.remove_prefix(zeroes);
  }
  return piece;
}

/// Text that makes a version older than the same one without it.
bool is_before_release(std::string_view text) noexcept {
  return text.starts_with('~') || text.starts_with("-rc");
}

}  // namespace

bool is_older(std::string_view one, std::string_view other) noexcept {
  while (!one.empty() || !other.empty()) {
    const Piece a = take_piece(one);
    const Piece b = take_piece(other);
    if (a.text == b.text) continue;
    if (is_before_release(a.text) != is_before_release(b.text)) return is_before_release(a.text);
    if (a.is_number && b.is_number && a.text.size() != b.text.size()) {
      return a.text.size() < b.text.size();
    }
    return a.text < b.text;
  }
  return false;
}

std::optional<NodeNo> find_file(const SourceTree& tree, std::string_view path) {
  const std::optional<NodeNo> node = walk(tree, path);
  return node && tree.node(*node).is_regular() ? node : std::nullopt;
}

std::optional<FoundKernel> find_kernel(const SourceTree& tree) {
  std::optional<FoundKernel> found = newest_of_modules(tree);
  if (!found) found = newest_in(tree, "boot");
  if (!found) found = newest_in(tree, "");
  if (found) {
    const std::string& version = found->version;
    std::vector<std::string> paths{fmt::format("usr/lib/modules/{}/initramfs.img", version),
                                   fmt::format("usr/lib/modules/{}/initrd", version)};
    for (const std::string_view directory : {"boot/", ""}) {
      paths.push_back(fmt::format("{}initrd.img-{}", directory, version));
      paths.push_back(fmt::format("{}initramfs-{}.img", directory, version));
      paths.push_back(fmt::format("{}initrd-{}", directory, version));
    }
    add_initrd(tree, paths, *found);
    return found;
  }
  for (const std::string_view directory : {"", "boot/"}) {
    const auto kernel = find_file(tree, fmt::format("{}vmlinuz", directory));
    if (!kernel) continue;
    FoundKernel linked{*kernel, {}, ""};
    add_initrd(tree, std::array{fmt::format("{}initrd.img", directory)}, linked);
    return linked;
  }
  return std::nullopt;
}

std::optional<std::string_view> kernel_architecture(std::span<const std::byte> head) noexcept {
  if (head.size() < kKernelHeadBytes) return std::nullopt;
  const auto has = [&](std::size_t at, std::string_view text) {
    return std::memcmp(head.data() + at, text.data(), text.size()) == 0;
  };
  // Documentation/arch/x86/boot.rst: the protocol 2.12 has flags that know 64 bits.
  if (has(0x202, "HdrS")) {
    const bool is_64 = load_le<std::uint16_t>(head, 0x206) >= 0x020C &&
                       (load_le<std::uint16_t>(head, 0x236) & 1) != 0;
    return is_64 ? "x86-64" : "x86";
  }
  if (has(0x38, "ARM\x64")) return "arm64";
  if (has(0x38, "RSC\x05")) return "riscv64";
  if (load_le<std::uint32_t>(head, 0x24) == 0x016F2818) return "arm";
  if (has(0,
          "\x7f"
          "ELF")) {
    // e_machine, in the file's own byte order.
    const bool is_little = head[5] == std::byte{1};
    const auto machine =
        is_little ? load_le<std::uint16_t>(head, 0x12) : load_be<std::uint16_t>(head, 0x12);
    if (machine == 21) return is_little ? "ppc64-le" : "ppc64";
    if (machine == 22) return "s390x";
    if (machine == 258) return "loongarch64";
  }
  return std::nullopt;
}

std::optional<std::uint32_t> kernel_version_offset(std::span<const std::byte> head) noexcept {
  if (head.size() < kKernelHeadBytes || std::memcmp(head.data() + 0x202, "HdrS", 4) != 0) {
    return std::nullopt;
  }
  const auto offset = load_le<std::uint16_t>(head, 0x20E);
  if (offset == 0) return std::nullopt;
  return offset + 0x200u;
}

}  // namespace mkvirtfs::bootsect
