// SPDX-License-Identifier: BSD-3-Clause
//
// The first sector has four entries. Where they do not suffice, the last one is an extended
// partition: a chain of sectors (EBRs) with two entries each, one for a logical partition and one
// that leads to the next EBR. The first counts sectors from its own EBR, the second from the start
// of the extended partition.
#include "bootsect/mbr.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <string>
#include <utility>

#include "support/byte_order.h"

namespace mkvirtfs::bootsect {
namespace {

constexpr std::uint64_t kDiskIdAt = 440;
constexpr std::uint64_t kEntriesAt = 446;
constexpr std::uint64_t kTableEnd = 512;  // behind the signature, whatever a sector has
constexpr std::size_t kEntryBytes = 16;

constexpr std::uint8_t kActive = 0x80;
constexpr std::uint8_t kExtendedLba = 0x0F;
constexpr std::uint8_t kExtended = 0x05;  // in EBRs
constexpr std::uint8_t kProtective = 0xEE;

/// Cylinder, head and sector of the geometry that all agree on, 255 heads of 63 sectors. What lies
/// behind the last cylinder that can be said is its last sector.
std::array<std::uint8_t, 3> chs_of(std::uint64_t sector) noexcept {
  constexpr std::uint64_t kHeads = 255;
  constexpr std::uint64_t kSectors = 63;
  constexpr std::uint64_t kCylinders = 1024;
  if (sector >= kCylinders * kHeads * kSectors) return {0xFE, 0xFF, 0xFF};
  const std::uint64_t cylinder = sector / (kHeads * kSectors);
  const std::uint64_t head = sector / kSectors % kHeads;
  const std::uint64_t in_track = sector % kSectors + 1;
  return {static_cast<std::uint8_t>(head), static_cast<std::uint8_t>(in_track | cylinder >> 8 << 6),
          static_cast<std::uint8_t>(cylinder)};
}

/// An entry whose sectors count from `origin`.
void put_entry(std::span<std::byte> out, const MbrPartition& partition, std::uint32_t origin) {
  const auto put_chs = [&](std::size_t at, std::uint64_t sector) {
    std::ranges::transform(chs_of(sector), out.begin() + static_cast<std::ptrdiff_t>(at),
                           [](std::uint8_t byte) { return std::byte{byte}; });
  };
  const std::uint64_t first = partition.first_sector;
  out[0] = std::byte{partition.active ? kActive : std::uint8_t{0}};
  put_chs(1, first);
  out[4] = std::byte{partition.type};
  put_chs(5, first + partition.sector_count - 1);
  store_le(out, 8, partition.first_sector - origin);
  store_le(out, 12, partition.sector_count);
}

/// The bytes of a sector from `from` to the signature's end.
std::vector<std::byte> signed_bytes(std::uint64_t from) {
  std::vector<std::byte> bytes(kTableEnd - from);
  bytes[bytes.size() - 2] = std::byte{0x55};
  bytes[bytes.size() - 1] = std::byte{0xAA};
  return bytes;
}

std::span<std::byte> entry_of(std::vector<std::byte>& bytes, std::size_t number) {
  // The table lies before the signature, however much stands before the table.
  const std::size_t table = bytes.size() - (kTableEnd - kEntriesAt);
  return std::span(bytes).subspan(table + number * kEntryBytes, kEntryBytes);
}

/// From the EBR to the partition's end: what an extended partition has of it.
MbrPartition with_ebr(const LogicalPartition& logical, std::uint8_t type) noexcept {
  const MbrPartition& inner = logical.partition;
  return {.type = type,
          .first_sector = logical.ebr_sector,
          .sector_count = inner.first_sector - logical.ebr_sector + inner.sector_count};
}

}  // namespace

std::vector<Patch> mbr_table(const MbrTable& table) {
  const std::vector<LogicalPartition>& logicals = table.logicals;
  assert(table.primaries.size() + (logicals.empty() ? 0 : 1) <= kMostPrimaries);
  std::vector<std::byte> bytes = signed_bytes(kDiskIdAt);
  store_le(std::span(bytes), 0, table.disk_id);
  std::size_t number = 0;
  for (const MbrPartition& partition : table.primaries) {
    put_entry(entry_of(bytes, number++), partition, 0);
  }
  std::uint32_t extended_sector = 0;
  if (!logicals.empty()) {
    MbrPartition extended = with_ebr(logicals.front(), kExtendedLba);
    extended_sector = extended.first_sector;
    const MbrPartition& last = logicals.back().partition;
    extended.sector_count = last.first_sector + last.sector_count - extended_sector;
    put_entry(entry_of(bytes, number), extended, 0);
  }
  std::vector<Patch> patches;
  patches.push_back({kDiskIdAt, std::move(bytes), "partition table"});

  for (std::size_t at = 0; at < logicals.size(); ++at) {
    std::vector<std::byte> ebr = signed_bytes(kEntriesAt);
    put_entry(entry_of(ebr, 0), logicals[at].partition, logicals[at].ebr_sector);
    if (at + 1 < logicals.size()) {
      put_entry(entry_of(ebr, 1), with_ebr(logicals[at + 1], kExtended), extended_sector);
    }
    patches.push_back({std::uint64_t{logicals[at].ebr_sector} * table.sector_bytes + kEntriesAt,
                       std::move(ebr), "extended boot record " + std::to_string(at + 5)});
  }
  return patches;
}

std::vector<Patch> protective_mbr(std::uint64_t sector_count) {
  constexpr std::uint64_t kMostSectors = 0xFFFFFFFF;
  std::vector<std::byte> bytes = signed_bytes(kDiskIdAt);
  const std::span<std::byte> entry = entry_of(bytes, 0);
  put_entry(entry,
            {.type = kProtective,
             .first_sector = 1,
             .sector_count = static_cast<std::uint32_t>(std::min(sector_count - 1, kMostSectors))},
            0);
  // The end is said to be unknown, as every tool has it, and not where a small disk ends.
  constexpr std::array<std::uint8_t, 3> kUnknown = {0xFE, 0xFF, 0xFF};
  std::ranges::transform(kUnknown, entry.begin() + 5,
                         [](std::uint8_t byte) { return std::byte{byte}; });
  std::vector<Patch> patches;
  patches.push_back({kDiskIdAt, std::move(bytes), "protective MBR"});
  return patches;
}

/// GRUB and Windows take a table for that of a GPT when the first entry says so, firmware when any
/// entry does that begins at sector 1.
std::vector<Patch> hybrid_mbr(std::uint32_t disk_id, std::span<const MbrPartition> shown) {
  assert(!shown.empty() && shown.size() <= kMostInHybrid);
  std::vector<std::byte> bytes = signed_bytes(kDiskIdAt);
  store_le(std::span(bytes), 0, disk_id);
  const auto first = std::ranges::min_element(shown, {}, &MbrPartition::first_sector);
  assert(first->first_sector > 1);
  put_entry(entry_of(bytes, 0),
            {.type = kProtective, .first_sector = 1, .sector_count = first->first_sector - 1}, 0);
  for (std::size_t at = 0; at < shown.size(); ++at)
    put_entry(entry_of(bytes, at + 1), shown[at], 0);
  std::vector<Patch> patches;
  patches.push_back({kDiskIdAt, std::move(bytes), "hybrid MBR"});
  return patches;
}

}  // namespace mkvirtfs::bootsect
