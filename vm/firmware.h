// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "support/error.h"

namespace mkvirtfs::vm {

enum class FirmwareKind : std::uint8_t {
  bios,         ///< QEMU's own
  uefi,         ///< starts anything
  uefi_secure,  ///< starts what is signed with Microsoft's keys, which it has
};

/// Firmware for UEFI, as files of this host.
struct UefiFirmware {
  std::string code;
  std::string variables;  ///< what a machine's own variables begin as
  bool is_secure = false;
};

/// What a descriptor of QEMU (docs/interop/firmware.json) describes, when that is firmware of this
/// kind for the machine q35 of x86-64, in flash memory; nullopt: anything else.
std::optional<UefiFirmware> read_descriptor(std::string_view json, FirmwareKind kind);

/// The first that fits, in the order of the descriptors' names; a descriptor hides those with its
/// name in earlier directories. Errors: Errc::unsupported when there is none.
Result<UefiFirmware> find_firmware(FirmwareKind kind, std::span<const std::string> directories);

}  // namespace mkvirtfs::vm
