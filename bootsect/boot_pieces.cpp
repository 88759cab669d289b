// SPDX-License-Identifier: BSD-3-Clause
#include "bootsect/boot_pieces.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>
#include <fstream>
#include <map>
#include <optional>

#include "support/open_file.h"
#include "support/unique_fd.h"

namespace mkvirtfs::bootsect {
namespace {

constexpr std::size_t kMostBytes = 16u << 20;

constexpr std::array kNames = std::to_array<BootPieceName>({
    {"syslinux", "/usr/bin/syslinux", "syslinux"},
    {"extlinux", "/usr/bin/extlinux", "extlinux"},
    {"ldlinux.c32", "/usr/lib/syslinux/modules/bios/ldlinux.c32", "syslinux-common"},
    {"mbr.bin", "/usr/lib/syslinux/mbr/mbr.bin", "syslinux-common"},
    {"gptmbr.bin", "/usr/lib/syslinux/mbr/gptmbr.bin", "syslinux-common"},
    {"isolinux.bin", "/usr/lib/ISOLINUX/isolinux.bin", "isolinux"},
    {"isohdpfx.bin", "/usr/lib/ISOLINUX/isohdpfx.bin", "isolinux"},
    {"boot.img", "/usr/lib/grub/i386-pc/boot.img", "grub-pc-bin"},
    {"kernel.img", "/usr/lib/grub/i386-pc/kernel.img", "grub-pc-bin"},
    {"grub-mkimage", "/usr/bin/grub-mkimage", "grub-common"},
    {"systemd-bootx64.efi", "/usr/lib/systemd/boot/efi/systemd-bootx64.efi", "systemd-boot-efi"},
    {"linuxx64.efi.stub", "/usr/lib/systemd/boot/efi/linuxx64.efi.stub", "systemd-boot-efi"},
    {"shimx64.efi.signed", "/usr/lib/shim/shimx64.efi.signed", "shim-signed"},
    {"mmx64.efi.signed", "/usr/lib/shim/mmx64.efi.signed", "shim-helpers-amd64-signed"},
    {"grubx64.efi.signed", "/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
     "grub-efi-amd64-signed"},
});

std::string path_of(const BootPieceName& name, const std::string& directory) {
  return directory.empty() ? std::string(name.path) : fmt::format("{}/{}", directory, name.name);
}

/// Of installed packages, by their names. The database has paragraphs of fields.
std::map<std::string, std::string> installed_versions(const std::string& packages) {
  std::map<std::string, std::string> versions;
  std::ifstream file(packages);
  std::string package;
  bool is_installed = false;
  const auto field = [](std::string_view line, std::string_view name) {
    return line.starts_with(name) ? std::optional(line.substr(name.size())) : std::nullopt;
  };
  for (std::string line; std::getline(file, line);) {
    if (line.empty()) is_installed = false;
    if (const auto value = field(line, "Package: ")) package = *value;
    if (const auto value = field(line, "Status: ")) is_installed = value->ends_with(" installed");
    if (const auto value = field(line, "Version: "); value && is_installed) {
      versions[package] = *value;
    }
  }
  return versions;
}

}  // namespace

std::vector<BootPieceState> boot_piece_states(const std::string& directory,
                                              const std::string& packages) {
  std::map<std::string, std::string> versions;
  if (directory.empty()) versions = installed_versions(packages);
  std::vector<BootPieceState> states;
  for (const BootPieceName& name : kNames) {
    BootPieceState& state = states.emplace_back();
    state.name = name.name;
    state.path = path_of(name, directory);
    state.package = name.package;
    state.is_there = ::access(state.path.c_str(), R_OK) == 0;
    const auto version = versions.find(std::string(name.package));
    if (version != versions.end()) state.version = version->second;
  }
  return states;
}

std::span<const BootPieceName> boot_piece_names() noexcept { return kNames; }

Result<BootPiece> read_boot_piece(std::string_view name, const std::string& directory) {
  const auto known = std::ranges::find(kNames, name, &BootPieceName::name);
  assert(known != kNames.end());
  BootPiece piece;
  piece.path = path_of(*known, directory);
  Result<UniqueFd> file = open_regular_file(piece.path, O_RDONLY, "read " + piece.path);
  if (!file) {
    Error error = std::move(file).error();
    error.code = Errc::unreadable;
    error.hints.push_back({"", fmt::format("Debian's package {}", known->package)});
    error.hints.push_back({"boot-files"});
    return std::unexpected(std::move(error));
  }
  struct stat status{};
  if (::fstat(file->get(), &status) != 0) {
    return fail_errno(Errc::unreadable, errno, "read " + piece.path);
  }
  // Of what is too big, one byte more than is allowed says so.
  piece.bytes.resize(std::min(static_cast<std::size_t>(status.st_size), kMostBytes) + 1);
  std::size_t done = 0;
  while (done < piece.bytes.size()) {
    const ssize_t got = ::read(file->get(), piece.bytes.data() + done, piece.bytes.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno(Errc::unreadable, errno, "read " + piece.path);
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  if (done > kMostBytes) {
    return fail(Errc::unsupported,
                fmt::format("{} has more than {} bytes", piece.path, kMostBytes));
  }
  piece.bytes.resize(done);
  return piece;
}

}  // namespace mkvirtfs::bootsect
