// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "support/error.h"
#include "support/uuid.h"

namespace mkvirtfs::bootsect {

/// What a partition holds, as a table says it.
struct PartitionType {
  std::string name;          ///< "linux", "root-x86-64"; a GUID or byte without a name: itself
  std::optional<Uuid> guid;  ///< unset: a GPT has no such type
  std::optional<std::uint8_t> mbr;  ///< unset: an MBR has no such type
};

/// A type by its name in systemd's Discoverable Partitions Specification ("esp", "root-arm64",
/// "usr-x86-64-verity"), sfdisk's short name ("linux", "L", "uefi", "U"), a GUID, or the byte of an
/// MBR ("0x83", "83"). "root" and "usr", with "-verity" and "-verity-sig" too, are those of
/// `architecture`, which find_architecture() knows; empty when nobody knows it.
///
/// Errors: Errc::usage.
Result<PartitionType> find_partition_type(std::string_view name, std::string_view architecture);

/// The specification's word for an architecture, by that or by the words of uname(1) and of
/// container images: "x86_64" and "amd64" are "x86-64".
std::optional<std::string_view> find_architecture(std::string_view name) noexcept;

/// All types that have names.
std::vector<PartitionType> all_partition_types();

}  // namespace mkvirtfs::bootsect
