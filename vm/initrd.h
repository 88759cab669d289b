// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "support/error.h"

namespace mkvirtfs::vm {

/// The name of the port of virtio-serial over which mkvirtfs-init and its host speak.
inline constexpr std::string_view kStatusPort = "mkvirtfs.status";

/// What mkvirtfs-init (guest-init/) does with the disk.
struct GuestSetup {
  std::string root_type;     ///< as mount(8) has it: "ext4", "erofs"
  bool has_overlay = false;  ///< a tmpfs over the disk, which is not written then
  std::string share_at;      ///< where the host's directory stands; "": there is none

  /// The command and its arguments; empty: the init of the root.
  std::vector<std::string> arguments;
  std::vector<std::string> environment;  ///< "NAME=value"
  std::string user;                      ///< "": root
  std::string directory;                 ///< "": /
  bool has_terminal = false;             ///< the host's end of the console is one
  unsigned rows = 0;
  unsigned columns = 0;
};

/// The modules of a kernel.
struct KernelModules {
  /// A file below their directory; nullopt: there is none.
  std::function<Result<std::optional<std::vector<std::byte>>>(const std::string& path)> read;
};

struct Initrd {
  std::vector<std::byte> archive;
  std::vector<std::string> missing_modules;  ///< that the kernel may have built in, or not at all
};

/// An initrd of mkvirtfs-init, whose bytes `init` are, and the modules that it needs. Errors:
/// Errc::usage for words with a NUL in them; those of `modules`.
Result<Initrd> make_initrd(std::span<const std::byte> init, const GuestSetup& setup,
                           const KernelModules& modules);

}  // namespace mkvirtfs::vm
