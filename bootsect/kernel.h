// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fsgen/tree/source_tree.h"

namespace mkvirtfs::bootsect {

/// A kernel in a tree, and what starts with it. Paths are those of the files themselves, not of
/// symlinks to them.
struct FoundKernel {
  NodeNo kernel{};
  std::vector<NodeNo> initrds;
  std::string version;  ///< "6.1.0-31-amd64"; "" of what a link leads to
};

/// The kernel that a tree would boot: the newest one of usr/lib/modules/VERSION/vmlinuz; else of
/// boot/vmlinuz-VERSION, or of vmlinuz-VERSION in a tree that is itself a boot directory; else what
/// the link vmlinuz leads to. Rescue kernels do not count. Its initrd is looked for beside it and
/// in boot. nullopt: none.
std::optional<FoundKernel> find_kernel(const SourceTree& tree);

/// The regular file at a path, through symlinks, for which "/" is the tree's root.
std::optional<NodeNo> find_file(const SourceTree& tree, std::string_view path);

/// Whether version `one` comes before `other`: numbers in them count as numbers, "-9" before "-10",
/// and "6.2-rc1" before "6.2".
bool is_older(std::string_view one, std::string_view other) noexcept;

inline constexpr std::size_t kKernelHeadBytes = 0x264;
/// The architecture for which a Linux kernel is, as find_architecture() knows it, by its first
/// kKernelHeadBytes bytes; nullopt for what is no kernel, or one that is compressed as a whole.
std::optional<std::string_view> kernel_architecture(std::span<const std::byte> head) noexcept;

/// Where a kernel for x86 has its version, a text that ends with a blank or a zero; nullopt for any
/// other.
std::optional<std::uint32_t> kernel_version_offset(std::span<const std::byte> head) noexcept;

}  // namespace mkvirtfs::bootsect
