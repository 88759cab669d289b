// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "support/byte_order.h"

namespace mkvirtfs::testing {

/// An executable of UEFI as small as one can be: a header of 512 bytes and one section of code.
struct PeFile {
  std::uint16_t machine = 0x8664;
  std::string section = ".text";
  std::uint32_t code_bytes = 512;
  std::uint32_t image_bytes = 0x3000;
  std::uint32_t certificate_bytes = 0;  ///< 0: not signed
  std::string version{};                ///< as a Linux kernel has it; "": it is none

  std::vector<std::byte> bytes() const {
    constexpr std::size_t kCoff = 0x84;  // of a PE header at 0x80
    constexpr std::size_t kOptional = kCoff + 20;
    constexpr std::size_t kOptionalBytes = 112 + 6 * 8;
    constexpr std::uint32_t kHeaderBytes = 512;
    std::vector<std::byte> file(kHeaderBytes + code_bytes + certificate_bytes);
    const std::span<std::byte> out(file);
    const auto put = [&](std::size_t at, std::string_view text) {
      std::ranges::copy(std::as_bytes(std::span(text)), file.begin() + static_cast<long>(at));
    };
    put(0, "MZ");
    store_le(out, 0x3C, std::uint32_t{0x80});
    put(0x80, "PE");
    store_le(out, kCoff, machine);
    store_le(out, kCoff + 2, std::uint16_t{1});
    store_le(out, kCoff + 16, static_cast<std::uint16_t>(kOptionalBytes));
    store_le(out, kCoff + 18, std::uint16_t{0x206});
    store_le(out, kOptional, std::uint16_t{0x20B});
    store_le(out, kOptional + 16, std::uint32_t{0x1000});  // where it starts
    store_le(out, kOptional + 32, std::uint32_t{0x1000});
    store_le(out, kOptional + 36, std::uint32_t{512});
    store_le(out, kOptional + 56, image_bytes);
    store_le(out, kOptional + 60, kHeaderBytes);
    store_le(out, kOptional + 68, std::uint16_t{10});
    store_le(out, kOptional + 108, std::uint32_t{6});
    if (certificate_bytes != 0) {
      store_le(out, kOptional + 112 + 32, kHeaderBytes + code_bytes);
      store_le(out, kOptional + 112 + 36, certificate_bytes);
    }
    constexpr std::size_t kTable = kOptional + kOptionalBytes;
    put(kTable, section);
    store_le(out, kTable + 8, code_bytes);
    store_le(out, kTable + 12, std::uint32_t{0x1000});
    store_le(out, kTable + 16, code_bytes);
    store_le(out, kTable + 20, kHeaderBytes);
    store_le(out, kTable + 36, std::uint32_t{0x60000020});
    for (std::size_t at = kHeaderBytes; at < file.size(); ++at) {
      file[at] = static_cast<std::byte>(at * 7 % 251);
    }
    return version.empty() ? file : as_kernel(std::move(file));
  }

 private:
  /// The head of a kernel for x86-64 (Documentation/arch/x86/boot.rst), in the section's bytes.
  std::vector<std::byte> as_kernel(std::vector<std::byte> file) const {
    constexpr std::uint16_t kVersionAt = 0x300;
    const std::span<std::byte> out(file);
    const auto put = [&](std::size_t at, std::string_view text) {
      std::ranges::copy(std::as_bytes(std::span(text)), file.begin() + static_cast<long>(at));
    };
    put(0x202, "HdrS");
    store_le(out, 0x206, std::uint16_t{0x20F});
    store_le(out, 0x20E, static_cast<std::uint16_t>(kVersionAt - 0x200));
    store_le(out, 0x236, std::uint16_t{1});
    put(kVersionAt, version + " (someone@somewhere) #1");
    return file;
  }
};

}  // namespace mkvirtfs::testing
