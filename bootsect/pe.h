// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "block/extent.h"
#include "support/error.h"

// The executables of UEFI: loaders, kernels with an EFI stub, unified kernel images (PE/COFF).

namespace mkvirtfs::bootsect {

struct PeSection {
  std::string name;  ///< without the zeroes behind it
  std::uint32_t virtual_address = 0;
  std::uint32_t virtual_bytes = 0;
  std::uint32_t file_offset = 0;
  std::uint32_t file_bytes = 0;
};

/// What the headers of an executable say. All of it lies inside the file.
struct PeImage {
  std::uint16_t machine = 0;
  std::uint32_t coff_offset = 0;      ///< of the COFF header, behind "PE\0\0"
  std::uint32_t optional_offset = 0;  ///< of the optional header
  std::uint32_t table_offset = 0;     ///< of the table of sections
  std::uint32_t section_alignment = 0;
  std::uint32_t file_alignment = 0;
  std::uint32_t image_bytes = 0;   ///< in memory: SizeOfImage
  std::uint32_t header_bytes = 0;  ///< SizeOfHeaders
  Range certificates{};            ///< in the file; without a length: it is not signed
  std::vector<PeSection> sections;

  bool is_signed() const noexcept { return certificates.length != 0; }
  const PeSection* find(std::string_view name) const noexcept;
};

/// The headers of what is read lie in so many first bytes.
inline constexpr std::size_t kPeHeadBytes = 4096;

/// Reads the headers of a file of `file_bytes` bytes. `head` is its start: kPeHeadBytes, or all of
/// a shorter file.
///
/// Errors: Errc::unsupported for what is no executable of UEFI, and for one that is cut off.
Result<PeImage> read_pe(std::span<const std::byte> head, std::uint64_t file_bytes);

/// A machine for which there are such executables.
struct EfiMachine {
  std::uint16_t machine;          ///< PeImage::machine
  std::string_view architecture;  ///< as kernel_architecture() has it
  std::string_view loader_name;   ///< which firmware looks for in EFI/BOOT: "BOOTX64.EFI"
};
/// nullptr for a machine that UEFI does not know, or that is not in our list.
const EfiMachine* find_efi_machine(std::uint16_t machine) noexcept;
std::span<const EfiMachine> efi_machines() noexcept;

}  // namespace mkvirtfs::bootsect
