// SPDX-License-Identifier: BSD-3-Clause
//
// Two copies of the entries, and a header for each of them, which has the checksums of both itself
// and the entries: sector 1 and what follows it, and the disk's last sector and what lies before
// it. Entries that are not used are zeroes, so that only used ones are bytes of ours.
#include "bootsect/gpt.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>
#include <span>
#include <utility>

#include "support/arithmetic.h"
#include "support/byte_order.h"
#include "support/crc32.h"
#include "support/text.h"

namespace mkvirtfs::bootsect {
namespace {

constexpr std::size_t kHeaderBytes = 92;
constexpr std::size_t kEntryBytes = 128;
constexpr std::size_t kMostNameUnits = 36;
constexpr std::uint64_t kEntriesBytes = kMostGptPartitions * kEntryBytes;

std::uint64_t entry_sectors(std::uint32_t sector_bytes) noexcept {
  return ceil_div<std::uint64_t>(kEntriesBytes, sector_bytes);
}

/// The first three fields of a GUID are little-endian, the rest is as it is written.
void put_guid(std::span<std::byte> out, const Uuid& uuid) noexcept {
  std::ranges::copy(uuid, out.begin());
  std::ranges::reverse(out.first(4));
  std::ranges::reverse(out.subspan(4, 2));
  std::ranges::reverse(out.subspan(6, 2));
}

Result<void> put_entry(std::span<std::byte> out, const GptPartition& partition) {
  const Result<std::u16string> name = gpt_name(partition.name);
  if (!name) return propagate(name);
  put_guid(out.subspan(0, 16), partition.type);
  put_guid(out.subspan(16, 16), partition.id);
  store_le(out, 32, partition.first_sector);
  store_le(out, 40, partition.first_sector + partition.sector_count - 1);
  store_le(out, 48, partition.attributes);
  std::size_t at = 56;
  for (const char16_t unit : *name) {
    store_le(out, at, static_cast<std::uint16_t>(unit));
    at += 2;
  }
  return {};
}

/// A header that stands in sector `here`, with its entries from `entries` on.
std::vector<std::byte> header(const GptTable& table, std::span<const std::byte> entry_bytes,
                              std::uint64_t here, std::uint64_t entries) {
  constexpr std::string_view kSignature = "EFI PART";
  constexpr std::uint32_t kRevision = 0x00010000;
  const std::uint64_t last = table.sector_count - 1;
  std::vector<std::byte> bytes(kHeaderBytes);
  const std::span<std::byte> out(bytes);
  std::memcpy(out.data(), kSignature.data(), kSignature.size());
  store_le(out, 8, kRevision);
  store_le(out, 12, static_cast<std::uint32_t>(kHeaderBytes));
  store_le(out, 24, here);
  store_le(out, 32, last - here + 1);  // the other one
  store_le(out, 40, gpt_sectors_at_start(table.sector_bytes));
  store_le(out, 48, last - gpt_sectors_at_end(table.sector_bytes));
  put_guid(out.subspan(56, 16), table.disk_id);
  store_le(out, 72, entries);
  store_le(out, 80, static_cast<std::uint32_t>(kMostGptPartitions));
  store_le(out, 84, static_cast<std::uint32_t>(kEntryBytes));
  store_le(out, 88, crc32(entry_bytes, kEntriesBytes - entry_bytes.size()));
  store_le(out, 16, crc32(out));  // of all, with zeroes here
  return bytes;
}

}  // namespace

std::optional<std::uint64_t> find_gpt_attribute(std::string_view name) noexcept {
  using namespace gpt_attributes;
  constexpr std::array kNames =
      std::to_array<std::pair<std::string_view, std::uint64_t>>({{"required", kRequired},
                                                                 {"no-block-io", kNoBlockIo},
                                                                 {"legacy-boot", kLegacyBootable},
                                                                 {"grow", kGrowFileSystem},
                                                                 {"read-only", kReadOnly},
                                                                 {"no-auto", kNoAutomount}});
  for (const auto& [known, bit] : kNames) {
    if (known == name) return bit;
  }
  return std::nullopt;
}

std::uint64_t gpt_sectors_at_start(std::uint32_t sector_bytes) noexcept {
  return 2 + entry_sectors(sector_bytes);
}

std::uint64_t gpt_sectors_at_end(std::uint32_t sector_bytes) noexcept {
  return 1 + entry_sectors(sector_bytes);
}

Result<std::u16string> gpt_name(std::string_view name) {
  std::u16string units;
  for (std::string_view rest = name; !rest.empty();) {
    const std::size_t length = utf8_sequence_length(rest);
    if (length == 0 || rest.front() == '\0') {
      return fail_option({"name", std::string(name)}, "names in a GPT are UTF-8");
    }
    const char32_t value = code_point(rest.substr(0, length));
    rest.remove_prefix(length);
    if (value < 0x10000) {
      units += static_cast<char16_t>(value);
    } else {
      units += static_cast<char16_t>(0xD7C0 + (value >> 10));
      units += static_cast<char16_t>(0xDC00 + (value & 0x3FF));
    }
  }
  if (units.size() > kMostNameUnits) {
    return fail_option(
        {"name", std::string(name)},
        fmt::format("names in a GPT have at most {} units of UTF-16, and this one has {}",
                    kMostNameUnits, units.size()));
  }
  return units;
}

Result<std::vector<Patch>> gpt_table(const GptTable& table) {
  if (table.partitions.size() > kMostGptPartitions) {
    return fail(Errc::does_not_fit, fmt::format("a GPT has at most {} partitions, and these are {}",
                                                kMostGptPartitions, table.partitions.size()));
  }
  assert(table.sector_count >=
         gpt_sectors_at_start(table.sector_bytes) + gpt_sectors_at_end(table.sector_bytes));
  std::vector<std::byte> entries(table.partitions.size() * kEntryBytes);
  std::span<std::byte> out(entries);
  for (const GptPartition& partition : table.partitions) {
    if (Result<void> done = put_entry(out.first(kEntryBytes), partition); !done) {
      return propagate(done);
    }
    out = out.subspan(kEntryBytes);
  }
  const std::uint64_t last = table.sector_count - 1;
  const std::uint64_t backup = last - entry_sectors(table.sector_bytes);
  const auto place = [&](std::uint64_t sector) { return sector * table.sector_bytes; };
  std::vector<Patch> patches = table.in_mbr.empty() ? protective_mbr(table.sector_count)
                                                    : hybrid_mbr(table.mbr_id, table.in_mbr);
  patches.push_back({place(1), header(table, entries, 1, 2), "GPT header"});
  patches.push_back({place(2), entries, "GPT entries"});
  patches.push_back({place(backup), entries, "backup GPT entries"});
  patches.push_back({place(last), header(table, entries, last, backup), "backup GPT header"});
  return patches;
}

}  // namespace mkvirtfs::bootsect
