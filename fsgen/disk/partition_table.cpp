// SPDX-License-Identifier: BSD-3-Clause
// Sector 0 has four entries. One of type 0xee says that the disk has a GPT, whose header is sector
// 1 and, as a copy, the last sector: of 512 bytes or of 4096, which only the header's place says.
// One of type 5, 0xf or 0x85 is a chain of sectors with two entries each: a logical partition, and
// the next link. Links only lead forward, so that the chain ends.
#include "fsgen/disk/partition_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <span>
#include <utility>

#include "fsgen/disk/utf16.h"
#include "support/byte_order.h"
#include "support/crc32.h"

namespace mkvirtfs::disk {
namespace {

constexpr std::uint32_t kSectorBytes = 512;
constexpr std::size_t kMbrEntriesAt = 446;
constexpr std::size_t kMbrEntryBytes = 16;
constexpr unsigned kFirstLogical = 5;
constexpr unsigned kMostLogical = 128;
constexpr unsigned kGptType = 0xee;

constexpr std::size_t kGptHeaderBytes = 92;
constexpr std::uint32_t kMostGptEntries = 4096;
constexpr std::uint32_t kMostGptBytes = 1U << 20;
constexpr std::uint32_t kLeastGptEntryBytes = 128;
constexpr std::size_t kGptNameAt = 56;
constexpr std::size_t kGptNameUnits = 36;

using Bytes = std::span<const std::byte>;

struct MbrEntry {
  unsigned flags = 0;
  unsigned type = 0;
  std::uint64_t first_sector = 0;
  std::uint64_t sector_count = 0;

  bool is_used() const noexcept { return type != 0 && sector_count != 0; }
  bool is_chain() const noexcept { return type == 0x05 || type == 0x0f || type == 0x85; }
};

MbrEntry mbr_entry(Bytes sector, std::size_t index) {
  const Bytes entry = sector.subspan(kMbrEntriesAt + index * kMbrEntryBytes, kMbrEntryBytes);
  return {std::to_integer<unsigned>(entry[0]), std::to_integer<unsigned>(entry[4]),
          load_le<std::uint32_t>(entry, 8), load_le<std::uint32_t>(entry, 12)};
}

bool has_mbr_signature(Bytes sector) { return load_le<std::uint16_t>(sector, 510) == 0xaa55; }

class TableReader {
 public:
  explicit TableReader(ByteSource& disk) : disk_(disk) {}

  Result<std::optional<PartitionTable>> read();

 private:
  Result<void> read_mbr(Bytes sector);
  Result<void> read_chain(const MbrEntry& chain);
  Result<void> read_gpt();
  Result<void> read_gpt_copy(std::uint64_t header_at, std::uint32_t sector_bytes);
  Result<void> read_gpt_entries(Bytes header, std::uint64_t header_at, std::uint32_t sector_bytes);
  Result<bool> has_gpt_header(std::uint64_t at);
  void add(unsigned number, std::uint64_t first_sector, std::uint64_t sector_count,
           std::string name, std::string problem);
  void find_overlaps();

  Result<void> bytes_at(std::uint64_t at, std::span<std::byte> out) {
    if (at > disk_.size_bytes() || out.size() > disk_.size_bytes() - at) {
      return wrong(at, "the partition table goes on behind the end of the disk");
    }
    return disk_.read(at, out);
  }
  std::unexpected<Error> wrong(std::uint64_t at, std::string_view what) const {
    return fail(Errc::unreadable, fmt::format("{}: byte {}: {}", disk_.name(), at, what));
  }

  ByteSource& disk_;
  PartitionTable table_;
};

Result<std::optional<PartitionTable>> TableReader::read() {
  std::array<std::byte, kSectorBytes> sector{};
  if (disk_.size_bytes() < sector.size()) return std::nullopt;
  if (Result<void> good = disk_.read(0, sector); !good) return propagate(good);
  if (!has_mbr_signature(sector)) return std::nullopt;
  bool is_gpt = false;
  bool is_used = false;
  for (std::size_t i = 0; i < 4; ++i) {
    const MbrEntry entry = mbr_entry(sector, i);
    // A boot sector of FAT has the signature, too, and code where the entries would be.
    if (entry.flags != 0 && entry.flags != 0x80) return std::nullopt;
    is_used = is_used || entry.is_used();
    is_gpt = is_gpt || entry.type == kGptType;
  }
  if (!is_used) return std::nullopt;
  Result<void> good = is_gpt ? read_gpt() : read_mbr(sector);
  if (!good) return propagate(good);
  find_overlaps();
  return std::move(table_);
}

Result<void> TableReader::read_mbr(Bytes sector) {
  table_.kind = "MBR";
  for (unsigned i = 0; i < 4; ++i) {
    const MbrEntry entry = mbr_entry(sector, i);
    if (!entry.is_used()) continue;
    add(i + 1, entry.first_sector, entry.sector_count, "",
        entry.is_chain() ? "it is an extended partition, which only has others in it" : "");
  }
  for (std::size_t i = 0; i < 4; ++i) {
    const MbrEntry entry = mbr_entry(sector, i);
    if (!entry.is_used() || !entry.is_chain()) continue;
    if (Result<void> good = read_chain(entry); !good) return good;
  }
  return {};
}

Result<void> TableReader::read_chain(const MbrEntry& chain) {
  std::uint64_t link = 0;  // sectors, from the chain's first
  std::array<std::byte, kSectorBytes> sector{};
  unsigned number = kFirstLogical;
  for (const Partition& partition : table_.partitions) {
    number = std::max(number, partition.number + 1);
  }
  while (true) {
    const std::uint64_t at = (chain.first_sector + link) * kSectorBytes;
    if (Result<void> good = bytes_at(at, sector); !good) return good;
    if (!has_mbr_signature(sector)) {
      return wrong(at, "a link of the chain of logical partitions has no signature");
    }
    const MbrEntry logical = mbr_entry(sector, 0);
    if (logical.is_used() && !logical.is_chain()) {
      const bool is_inside =
          link + logical.first_sector + logical.sector_count <= chain.sector_count;
      add(number++, chain.first_sector + link + logical.first_sector, logical.sector_count, "",
          is_inside ? "" : "it leaves the extended partition that it is in");
    }
    const MbrEntry next = mbr_entry(sector, 1);
    if (!next.is_used() || !next.is_chain()) return {};
    if (next.first_sector <= link || next.first_sector >= chain.sector_count) {
      return wrong(at, "the chain of logical partitions does not lead forward");
    }
    if (number >= kFirstLogical + kMostLogical) {
      return wrong(at, "there are too many logical partitions");
    }
    link = next.first_sector;
  }
}

Result<bool> TableReader::has_gpt_header(std::uint64_t at) {
  constexpr std::uint64_t kSignature = 0x5452415020494645;  // "EFI PART"
  std::array<std::byte, 8> signature{};
  if (disk_.size_bytes() < at + signature.size()) return false;
  if (Result<void> good = disk_.read(at, signature); !good) return propagate(good);
  return load_le<std::uint64_t>(signature) == kSignature;
}

Result<void> TableReader::read_gpt() {
  std::optional<Error> first_error;
  for (const bool is_copy : {false, true}) {
    for (const std::uint32_t sector_bytes : {512U, 4096U}) {
      if (disk_.size_bytes() < 3 * std::uint64_t{sector_bytes}) continue;
      const std::uint64_t last = (disk_.size_bytes() / sector_bytes - 1) * sector_bytes;
      const std::uint64_t at = is_copy ? last : sector_bytes;
      const Result<bool> has_header = has_gpt_header(at);
      if (!has_header) return propagate(has_header);
      if (!*has_header) continue;
      table_ = PartitionTable{"GPT", sector_bytes};
      Result<void> good = read_gpt_copy(at, sector_bytes);
      if (good) {
        if (first_error) table_.problem = first_error->what + "; its copy at the end is read";
        if (!first_error && is_copy) {
          table_.problem = fmt::format(
              "{}: the GPT at the beginning is missing; its copy at the end is read", disk_.name());
        }
        return {};
      }
      if (!first_error) first_error = std::move(good).error();
    }
  }
  if (first_error) return std::unexpected(std::move(*first_error));
  return wrong(kSectorBytes, "the MBR says that there is a GPT, and there is none");
}

Result<void> TableReader::read_gpt_copy(std::uint64_t header_at, std::uint32_t sector_bytes) {
  std::vector<std::byte> header(sector_bytes);
  if (Result<void> good = bytes_at(header_at, header); !good) return good;
  const auto header_bytes = load_le<std::uint32_t>(header, 12);
  if (header_bytes < kGptHeaderBytes || header_bytes > sector_bytes) {
    return wrong(header_at, fmt::format("the GPT's header has {} bytes", header_bytes));
  }
  const auto crc = load_le<std::uint32_t>(header, 16);
  store_le<std::uint32_t>(header, 16, 0);
  if (crc32(Bytes(header).first(header_bytes)) != crc) {
    return wrong(header_at, "the checksum of the GPT's header is wrong");
  }
  if (load_le<std::uint64_t>(header, 24) != header_at / sector_bytes) {
    return wrong(header_at, "the GPT's header belongs to another sector");
  }
  return read_gpt_entries(header, header_at, sector_bytes);
}

Result<void> TableReader::read_gpt_entries(Bytes header, std::uint64_t header_at,
                                           std::uint32_t sector_bytes) {
  const auto first_usable = load_le<std::uint64_t>(header, 40);
  const auto last_usable = load_le<std::uint64_t>(header, 48);
  const auto entries_at = load_le<std::uint64_t>(header, 72);
  const auto count = load_le<std::uint32_t>(header, 80);
  const auto entry_bytes = load_le<std::uint32_t>(header, 84);
  const std::uint64_t disk_sectors = disk_.size_bytes() / sector_bytes;
  if (count > kMostGptEntries || entry_bytes < kLeastGptEntryBytes || entry_bytes % 8 != 0 ||
      entry_bytes > kMostGptBytes || std::uint64_t{count} * entry_bytes > kMostGptBytes) {
    return wrong(header_at, fmt::format("the GPT has {} entries of {} bytes", count, entry_bytes));
  }
  if (entries_at >= disk_sectors || first_usable > last_usable || last_usable >= disk_sectors) {
    return wrong(header_at, "the GPT's header names sectors behind the end of the disk");
  }
  std::vector<std::byte> entries(std::size_t{count} * entry_bytes);
  if (Result<void> good = bytes_at(entries_at * sector_bytes, entries); !good) return good;
  if (crc32(entries) != load_le<std::uint32_t>(header, 88)) {
    return wrong(entries_at * sector_bytes, "the checksum of the GPT's entries is wrong");
  }
  for (std::uint32_t i = 0; i < count; ++i) {
    const Bytes entry = Bytes(entries).subspan(std::size_t{i} * entry_bytes, entry_bytes);
    const Bytes type = entry.first(16);
    if (std::ranges::all_of(type, [](std::byte byte) { return byte == std::byte{}; })) continue;
    const auto first = load_le<std::uint64_t>(entry, 32);
    const auto last = load_le<std::uint64_t>(entry, 40);
    std::u16string units;
    for (std::size_t unit = 0; unit < kGptNameUnits; ++unit) {
      const auto value = load_le<std::uint16_t>(entry, kGptNameAt + 2 * unit);
      if (value == 0) break;
      units += static_cast<char16_t>(value);
    }
    std::string name;
    for (std::size_t at = 0; at < units.size();) {
      append_utf8(name, next_character(units, at).value_or(U'\ufffd'));
    }
    if (first > last || first < first_usable || last > last_usable) {
      table_.partitions.push_back(
          {i + 1, {}, std::move(name), "it leaves the sectors that the GPT has for partitions"});
    } else {
      add(i + 1, first, last - first + 1, std::move(name), "");
    }
  }
  return {};
}

void TableReader::add(unsigned number, std::uint64_t first_sector, std::uint64_t sector_count,
                      std::string name, std::string problem) {
  // Both are less than 2^33 in an MBR, and lie inside the disk in a GPT.
  const Range range{first_sector * table_.sector_bytes, sector_count * table_.sector_bytes};
  if (problem.empty() && range.end() > disk_.size_bytes()) {
    problem =
        fmt::format("it ends at byte {}, and the disk at {}", range.end(), disk_.size_bytes());
  }
  if (problem.empty() && range.offset == 0) problem = "it begins where the table is";
  table_.partitions.push_back({number, range, std::move(name), std::move(problem)});
}

/// Among those that have no problem yet.
void TableReader::find_overlaps() {
  std::vector<Partition*> in_order;
  for (Partition& partition : table_.partitions) {
    if (partition.problem.empty()) in_order.push_back(&partition);
  }
  std::ranges::sort(in_order, {}, [](const Partition* each) {
    return std::pair(each->range.offset, each->number);
  });
  Partition* furthest = nullptr;
  for (Partition* const each : in_order) {
    if (furthest != nullptr && each->range.offset < furthest->range.end()) {
      each->problem = fmt::format("partition {} has the same bytes", furthest->number);
      if (furthest->problem.empty()) {
        furthest->problem = fmt::format("partition {} has the same bytes", each->number);
      }
    }
    if (furthest == nullptr || each->range.end() > furthest->range.end()) furthest = each;
  }
}

/// What is at a place of a partition, up to the first zero and without blanks at the end; "" where
/// that is outside.
Result<std::string> text_at(ByteSource& disk, Range partition, std::uint64_t at,
                            std::size_t length) {
  std::string text(length, '\0');
  if (at + length > partition.length) return std::string();
  Result<void> read = disk.read(partition.offset + at, std::as_writable_bytes(std::span(text)));
  if (!read) return propagate(read);
  text.resize(std::min(text.find('\0'), text.size()));
  while (text.ends_with(' ')) text.pop_back();
  return text;
}

/// The label of the file system in a partition; "": there is none.
Result<std::string> label_of(ByteSource& disk, Range partition) {
  struct Place {
    std::uint64_t magic_at;
    std::string_view magic;
    std::uint64_t label_at;
    std::size_t label_bytes;
  };
  using namespace std::string_view_literals;
  static constexpr auto kPlaces = std::to_array<Place>({
      {1024 + 56, "\x53\xef"sv, 1024 + 120, 16},    // ext
      {1024, "\xe2\xe1\xf5\xe0"sv, 1024 + 64, 16},  // EROFS
      {82, "FAT32"sv, 71, 11},                      // FAT
      {54, "FAT"sv, 43, 11},
  });
  for (const Place& place : kPlaces) {
    Result<std::string> magic = text_at(disk, partition, place.magic_at, place.magic.size());
    if (!magic) return magic;
    if (*magic == place.magic) return text_at(disk, partition, place.label_at, place.label_bytes);
  }
  return std::string();
}

}  // namespace

Result<std::optional<PartitionTable>> read_partition_table(ByteSource& disk) {
  return TableReader(disk).read();
}

Result<Partition> find_partition(const PartitionTable& table, ByteSource& disk,
                                 std::string_view word) {
  unsigned number = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
  const bool is_number = error == std::errc() && end == word.data() + word.size();
  std::vector<const Partition*> found;
  const auto find = [&](auto&& is_meant) {
    for (const Partition& each : table.partitions) {
      if (is_meant(each)) found.push_back(&each);
    }
  };
  if (is_number) find([&](const Partition& each) { return each.number == number; });
  if (found.empty()) find([&](const Partition& each) { return each.name == word; });
  if (found.empty()) {
    for (const Partition& each : table.partitions) {
      if (!each.problem.empty()) continue;
      const Result<std::string> label = label_of(disk, each.range);
      if (!label) return propagate(label);
      if (*label == word) found.push_back(&each);
    }
  }
  if (found.empty()) {
    return fail(Errc::unreadable, fmt::format("{} has no partition {}; it has {}", disk.name(),
                                              word, list_of(table)));
  }
  if (found.size() > 1) {
    return fail(Errc::unreadable,
                fmt::format("{} has several partitions {}: name one by its number ({} and {})",
                            disk.name(), word, found[0]->number, found[1]->number));
  }
  if (!found[0]->problem.empty()) {
    return fail(Errc::unreadable, fmt::format("partition {} of {}: {}", found[0]->number,
                                              disk.name(), found[0]->problem));
  }
  return *found[0];
}

std::string list_of(const PartitionTable& table) {
  constexpr std::size_t kMost = 16;
  std::string text;
  for (std::size_t i = 0; i < table.partitions.size(); ++i) {
    if (i == kMost) return text + ", ...";
    if (i != 0) text += ", ";
    const Partition& partition = table.partitions[i];
    text += fmt::format("{}", partition.number);
    if (!partition.name.empty()) text += fmt::format(" ({})", partition.name);
  }
  return text.empty() ? "none" : text;
}

}  // namespace mkvirtfs::disk
