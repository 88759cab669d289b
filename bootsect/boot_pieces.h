// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "support/error.h"

namespace mkvirtfs::bootsect {

/// A file that a boot loader's package brings.
struct BootPieceName {
  std::string_view name;  ///< of the file
  std::string_view path;  ///< where Debian has it
  std::string_view package;
};

/// All that is ever looked for.
std::span<const BootPieceName> boot_piece_names() noexcept;

struct BootPiece {
  std::string path;
  std::vector<std::byte> bytes;
};

/// Reads a piece by its name: from `directory`, or where the package has put it when that is empty.
/// The only function of this room that reads the host.
///
/// Errors: Errc::unreadable, with the package that has it; Errc::unsupported for one that is too
/// big to be it.
Result<BootPiece> read_boot_piece(std::string_view name, const std::string& directory);

/// A piece as it is there, for people.
struct BootPieceState {
  std::string_view name;
  std::string path;
  std::string_view package;
  bool is_there = false;
  std::string version;  ///< of the installed package; "" for what is of none
};

/// All of boot_piece_names(), in `directory` as read_boot_piece() has it. `packages` is the
/// database of Debian's packages; without one, no version is known.
std::vector<BootPieceState> boot_piece_states(const std::string& directory,
                                              const std::string& packages = "/var/lib/dpkg/status");

}  // namespace mkvirtfs::bootsect
