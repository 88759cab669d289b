// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/ext2/crc32c.h"

#include <ext2fs/ext2fs.h>

#include <cstring>

namespace mkvirtfs::ext2 {
namespace {

std::uint32_t by_library(std::uint32_t crc, std::span<const std::byte> bytes) noexcept {
  return ext2fs_crc32c_le(crc, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) std::uint32_t by_instruction(
    std::uint32_t crc, std::span<const std::byte> bytes) noexcept {
  const std::byte* at = bytes.data();
  std::size_t left = bytes.size();
  std::uint64_t wide = crc;
  for (; left >= 8; at += 8, left -= 8) {
    std::uint64_t word;
    std::memcpy(&word, at, sizeof word);
    wide = __builtin_ia32_crc32di(wide, word);
  }
  auto narrow = static_cast<std::uint32_t>(wide);
  for (; left > 0; ++at, --left)
    narrow = __builtin_ia32_crc32qi(narrow, static_cast<unsigned char>(*at));
  return narrow;
}
#endif

using Function = std::uint32_t (*)(std::uint32_t, std::span<const std::byte>) noexcept;

Function best() noexcept {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("sse4.2")) return by_instruction;
#endif
  return by_library;
}

}  // namespace

std::uint32_t crc32c(std::uint32_t crc, std::span<const std::byte> bytes) noexcept {
  static const Function function = best();
  return function(crc, bytes);
}

}  // namespace mkvirtfs::ext2
