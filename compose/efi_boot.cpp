// SPDX-License-Identifier: BSD-3-Clause
#include "compose/efi_boot.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "bootsect/kernel.h"
#include "bootsect/uefi.h"
#include "fsgen/tree/tree_path.h"

namespace mkvirtfs {
namespace {

std::string machine_name(std::uint16_t machine) {
  const bootsect::EfiMachine* const known = bootsect::find_efi_machine(machine);
  return known != nullptr ? std::string(known->architecture)
                          : fmt::format("machine {:04X}", machine);
}

Result<bootsect::PeImage> read_headers(const ReadSources& read, NodeNo node) {
  const std::uint64_t size_bytes = read.tree->node(node).size_bytes;
  std::vector<std::byte> head(std::min<std::uint64_t>(size_bytes, bootsect::kPeHeadBytes));
  if (!head.empty()) {
    if (Result<void> good = read.contents->read(content_no(node), 0, head); !good) {
      return propagate(good);
    }
  }
  Result<bootsect::PeImage> image = bootsect::read_pe(head, size_bytes);
  if (!image) return propagate(read.tree->path(node), image);
  return image;
}

/// Firmware looks for an executable of its own machine under that name.
Result<const bootsect::EfiMachine*> machine_of(const ReadSources& read, NodeNo node) {
  const Result<bootsect::PeImage> image = read_headers(read, node);
  if (!image) return propagate(image);
  const bootsect::EfiMachine* const known = bootsect::find_efi_machine(image->machine);
  if (known != nullptr) return known;
  return fail(Errc::unsupported, fmt::format("{} is for {}, for which UEFI has no name of a loader",
                                             read.tree->path(node), machine_name(image->machine)));
}

}  // namespace

Result<bootsect::PeImage> check_efi_kernel(const ReadSources& read, NodeNo node,
                                           const bootsect::BootLoader& loader) {
  constexpr std::uint16_t kX64 = 0x8664;
  Result<bootsect::PeImage> image = read_headers(read, node);
  if (!image) {
    image.error().hints.push_back({"kernel"});
    return image;
  }
  const std::string path = read.tree->path(node);
  if (image->find(".linux") != nullptr) {
    return fail(
        Errc::unsupported,
        fmt::format("{} is a unified kernel image and no kernel: UEFI starts it by itself", path),
        {{"boot", "uefi"}});
  }
  if (image->machine != kX64) {
    return fail(Errc::unsupported,
                fmt::format("{} is a kernel for {}, and {} starts those for {}", path,
                            machine_name(image->machine), loader.title, machine_name(kX64)));
  }
  if (loader.efi == bootsect::EfiStart::verified_menu && !image->is_signed()) {
    return fail(Errc::unsupported,
                fmt::format("{} has no certificate table: nobody has signed it, and under Secure "
                            "Boot nothing starts it",
                            path),
                {{"kernel"}, {"boot", "systemd-boot"}});
  }
  return image;
}

std::string version_in_kernel(const ReadSources& read, NodeNo node) {
  const std::uint64_t size_bytes = read.tree->node(node).size_bytes;
  std::array<std::byte, bootsect::kKernelHeadBytes> head{};
  if (size_bytes < head.size()) return {};
  if (!read.contents->read(content_no(node), 0, head)) return {};
  const auto offset = bootsect::kernel_version_offset(head);
  if (!offset || *offset >= size_bytes) return {};
  constexpr std::uint64_t kMostBytes = 128;
  std::string text(std::min(size_bytes - *offset, kMostBytes), '\0');
  if (!read.contents->read(content_no(node), *offset,
                           std::as_writable_bytes(std::span(text.data(), text.size())))) {
    return {};
  }
  text.resize(std::min(text.find_first_of(std::string_view(" \n\0", 3)), text.size()));
  const bool is_text =
      std::ranges::all_of(text, [](char each) { return each > ' ' && each <= '~'; });
  return is_text ? text : std::string();
}

std::string os_release_of(std::span<const ReadSources* const> sources) {
  constexpr std::uint64_t kMostBytes = 1u << 16;
  for (const ReadSources* const read : sources) {
    for (const std::string_view path : {"etc/os-release", "usr/lib/os-release"}) {
      const auto node = bootsect::find_file(*read->tree, path);
      if (!node) continue;
      std::string text(std::min(read->tree->node(*node).size_bytes, kMostBytes + 1), '\0');
      if (text.empty() || text.size() > kMostBytes) continue;
      if (read->contents->read(content_no(*node), 0,
                               std::as_writable_bytes(std::span(text.data(), text.size())))) {
        return text;
      }
    }
  }
  return {};
}

Result<void> add_given_loader(const ReadSources& read, NodeNo node, const SourceTree& tree,
                              BootFiles& files) {
  const Result<const bootsect::EfiMachine*> machine = machine_of(read, node);
  if (!machine) return propagate(machine);
  files.add(spelled_as_in(tree, join_path(bootsect::kEfiDirectory, (*machine)->loader_name)), read,
            node);
  return {};
}

Result<std::vector<NodeNo>> find_efi_loaders(const ReadSources& read) {
  std::vector<NodeNo> found;
  for (const bootsect::EfiMachine& each : bootsect::efi_machines()) {
    const auto node =
        find_any_case(*read.tree, join_path(bootsect::kEfiDirectory, each.loader_name));
    if (!node || !read.tree->node(*node).is_regular()) continue;
    const Result<const bootsect::EfiMachine*> machine = machine_of(read, *node);
    if (!machine) return propagate(machine);
    if ((*machine)->machine != each.machine) {
      return fail(
          Errc::unsupported,
          fmt::format("{} is for {}, and the firmware of such a machine looks for {}",
                      read.tree->path(*node), (*machine)->architecture, (*machine)->loader_name));
    }
    found.push_back(*node);
  }
  return found;
}

}  // namespace mkvirtfs
