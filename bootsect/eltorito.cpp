// SPDX-License-Identifier: BSD-3-Clause
#include "bootsect/eltorito.h"

#include <fmt/format.h>

#include <cassert>

#include "support/byte_order.h"

namespace mkvirtfs::bootsect {
namespace {

constexpr std::size_t kEntryBytes = 32;
constexpr std::uint32_t kPrimaryDescriptorBlock = 16;

void put_image(std::span<std::byte> entry, const BootImage& image) noexcept {
  constexpr std::byte kBootable{0x88};
  entry[0] = kBootable;
  // No emulation, the usual load segment, no system type: zeroes.
  store_le(entry, 6, image.loaded_sectors);
  store_le(entry, 8, image.block);
}

/// The words of the entry sum to zero.
void put_validation(std::span<std::byte> entry, BootPlatform platform) noexcept {
  entry[0] = std::byte{1};
  entry[1] = static_cast<std::byte>(platform);
  entry[30] = std::byte{0x55};
  entry[31] = std::byte{0xAA};
  std::uint16_t sum = 0;
  for (std::size_t at = 0; at < kEntryBytes; at += 2) {
    sum = static_cast<std::uint16_t>(sum + load_le<std::uint16_t>(entry, at));
  }
  constexpr std::size_t kSum = 28;
  store_le(entry, kSum, static_cast<std::uint16_t>(0 - sum));
}

}  // namespace

Result<std::vector<std::byte>> boot_catalogue(std::span<const BootImage> images) {
  assert(!images.empty());
  constexpr std::size_t kMost = kCdBlockBytes / kEntryBytes / 2;
  if (images.size() > kMost) {
    return fail(Errc::does_not_fit,
                fmt::format("{} boot images; a catalogue has room for {}", images.size(), kMost));
  }
  std::vector<std::byte> block(kCdBlockBytes);
  const std::span<std::byte> out(block);
  const auto entry = [&](std::size_t number) {
    return out.subspan(number * kEntryBytes, kEntryBytes);
  };
  put_validation(entry(0), images.front().platform);
  put_image(entry(1), images.front());
  for (std::size_t number = 1; number < images.size(); ++number) {
    constexpr std::byte kHeader{0x90};
    constexpr std::byte kLastHeader{0x91};
    const std::span<std::byte> header = entry(2 * number);
    header[0] = number + 1 == images.size() ? kLastHeader : kHeader;
    header[1] = static_cast<std::byte>(images[number].platform);
    store_le(header, 2, std::uint16_t{1});
    put_image(entry(2 * number + 1), images[number]);
  }
  return block;
}

std::vector<std::byte> boot_information_table(std::span<const std::byte> loader,
                                              std::uint32_t block) {
  constexpr std::size_t kSummed = kBootInformationAt + kBootInformationBytes;
  assert(loader.size() >= kSummed);
  std::uint32_t sum = 0;
  for (std::size_t at = kSummed; at < loader.size(); ++at) {
    // Words of 4 bytes; the last one may be short.
    sum += std::to_integer<std::uint32_t>(loader[at]) << at % 4 * 8;
  }
  std::vector<std::byte> table(kBootInformationBytes);
  const std::span<std::byte> out(table);
  store_le(out, 0, kPrimaryDescriptorBlock);
  store_le(out, 4, block);
  store_le(out, 8, static_cast<std::uint32_t>(loader.size()));
  store_le(out, 12, sum);
  return table;
}

}  // namespace mkvirtfs::bootsect
