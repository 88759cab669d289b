// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "block/joined_contents.h"
#include "bootsect/pe.h"
#include "support/error.h"

// Unified kernel images: systemd's stub, and what it starts in sections behind its own.

namespace mkvirtfs::bootsect {

/// A section that is added to a stub.
struct UkiSection {
  std::string_view name;  ///< up to 8 bytes
  std::uint64_t file_bytes = 0;
  std::uint64_t virtual_bytes = 0;  ///< in memory; what it holds, or more
  bool is_code = false;
};

struct UkiLayout {
  std::vector<std::byte> stub;         ///< with the new sections in its headers
  std::vector<std::uint64_t> offsets;  ///< of the sections, in the file; zeroes lie between them
  std::uint64_t size_bytes = 0;        ///< of the file
};

/// Places sections, none of them empty, behind those of a stub.
///
/// Errors: Errc::unsupported for a stub that is none, that is signed or has such a section already;
/// Errc::does_not_fit when its headers have no room for them, and for what ends behind 4 GiB.
Result<UkiLayout> lay_out_uki(std::span<const std::byte> stub,
                              std::span<const UkiSection> sections);

/// What a unified kernel image is made of.
struct UkiParts {
  std::span<const std::byte> stub{};
  std::string os_release{};      ///< text; may be empty, as the two that follow
  std::string kernel_version{};  ///< "6.1.0-31-amd64"
  std::string command_line{};
  std::vector<ContentPiece> initrds{};  ///< joined in this order
  ContentPiece kernel{};
  PeImage kernel_headers{};
};

/// A unified kernel image as a content: of kernel and initrds no byte is looked at.
///
/// Errors: as those of lay_out_uki(); Errc::unsupported for a kernel that is an image of this kind
/// itself, or for another machine than the stub.
Result<JoinedContent> join_uki(const UkiParts& parts, std::string name);

}  // namespace mkvirtfs::bootsect
