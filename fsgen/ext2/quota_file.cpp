// SPDX-License-Identifier: BSD-3-Clause
//
// A quota file has blocks of 1 KiB: a header, then a tree of four levels, each of which takes eight
// bits of an id, and data blocks with the usages themselves. Usages are sorted and stand one behind
// the other, so the nodes of a level are the runs of ids that are equal in their upper bits, and
// only the last data block may have room. Blocks stand level by level, the data last.
#include "fsgen/ext2/quota_file.h"

#include <array>
#include <utility>

#include "support/arithmetic.h"
#include "support/byte_order.h"

namespace mkvirtfs::ext2 {
namespace {

constexpr std::size_t kBlockBytes = 1024;
constexpr std::size_t kEntryBytes = 72;       // struct v2r1_disk_dqblk
constexpr std::size_t kDataHeaderBytes = 16;  // struct qt_disk_dqdbheader
constexpr std::size_t kEntriesInBlock = (kBlockBytes - kDataHeaderBytes) / kEntryBytes;
constexpr std::size_t kHeaderBlocks = 1;
constexpr std::uint32_t kVersion = 1;
constexpr std::uint32_t kGraceSeconds = 7 * 24 * 60 * 60;
constexpr unsigned kLevels = 4;

constexpr std::uint32_t magic_of(OwnFile::What what) noexcept {
  switch (what) {
    case OwnFile::What::user_quota:
      return 0xD9C01F11;
    case OwnFile::What::group_quota:
      return 0xD9C01927;
    case OwnFile::What::project_quota:
      return 0xD9C03F14;
    case OwnFile::What::orphans:
    case OwnFile::What::xattr_value:
      break;
  }
  std::unreachable();
}

/// The bits of an id above those that a node of the level divides by.
constexpr std::uint64_t prefix_of(std::uint32_t id, unsigned level) noexcept {
  return std::uint64_t{id} >> (8 * (kLevels - level));
}

/// How many nodes each level has.
template <class Items, class Id>
std::array<std::size_t, kLevels> node_counts(const Items& items, Id&& id) {
  std::array<std::size_t, kLevels> counts{};
  for (std::size_t i = 0; i < items.size(); ++i) {
    for (unsigned level = 0; level < kLevels; ++level) {
      const bool is_new =
          i == 0 || prefix_of(id(items[i - 1]), level) != prefix_of(id(items[i]), level);
      if (is_new) ++counts[level];
    }
  }
  return counts;
}

std::size_t data_blocks(std::size_t usages) noexcept { return ceil_div(usages, kEntriesInBlock); }

void put_usage(std::span<std::byte> file, std::size_t at, const QuotaUsage& usage) {
  store_le(file, at, usage.id);
  store_le(file, at + 24, usage.inodes);  // dqb_curinodes; the limits before it are 0
  store_le(file, at + 48, usage.bytes);   // dqb_curspace
}

}  // namespace

std::uint64_t quota_file_bytes(std::span<const std::uint32_t> ids) {
  std::uint64_t blocks = kHeaderBlocks + data_blocks(ids.size());
  for (const std::size_t count : node_counts(ids, [](std::uint32_t id) { return id; })) {
    blocks += count;
  }
  return blocks * kBlockBytes;
}

std::vector<std::byte> make_quota_file(OwnFile::What what, std::span<const QuotaUsage> usages) {
  const auto counts = node_counts(usages, [](const QuotaUsage& usage) { return usage.id; });
  std::array<std::size_t, kLevels + 1> starts{kHeaderBlocks};  // the last one is of the data
  for (unsigned level = 0; level < kLevels; ++level) {
    starts[level + 1] = starts[level] + counts[level];
  }
  const std::size_t blocks = starts[kLevels] + data_blocks(usages.size());
  std::vector<std::byte> file(blocks * kBlockBytes);

  std::array<std::size_t, kLevels> node{};  // of each level, the one that the id belongs to
  for (std::size_t i = 0; i < usages.size(); ++i) {
    const std::uint32_t id = usages[i].id;
    for (unsigned level = 0; level < kLevels; ++level) {
      if (i > 0 && prefix_of(usages[i - 1].id, level) != prefix_of(id, level)) ++node[level];
    }
    const std::size_t data = starts[kLevels] + i / kEntriesInBlock;
    for (unsigned level = 0; level < kLevels; ++level) {
      const std::size_t child = level + 1 < kLevels ? starts[level + 1] + node[level + 1] : data;
      const std::size_t slot = (id >> (8 * (kLevels - 1 - level))) & 0xFF;
      store_le(std::span(file), (starts[level] + node[level]) * kBlockBytes + 4 * slot,
               narrow<std::uint32_t>(child));
    }
    put_usage(file, data * kBlockBytes + kDataHeaderBytes + i % kEntriesInBlock * kEntryBytes,
              usages[i]);
    // dqdh_entries, as it is when the last one has come.
    store_le(std::span(file), data * kBlockBytes + 8,
             static_cast<std::uint16_t>(i % kEntriesInBlock + 1));
  }

  const bool last_has_room = usages.size() % kEntriesInBlock != 0;
  const std::span<std::byte> header(file);
  store_le(header, 0, magic_of(what));
  store_le(header, 4, kVersion);
  store_le(header, 8, kGraceSeconds);   // of blocks
  store_le(header, 12, kGraceSeconds);  // of inodes
  store_le(header, 20, narrow<std::uint32_t>(blocks));
  store_le(header, 28, last_has_room ? narrow<std::uint32_t>(blocks - 1) : std::uint32_t{0});
  return file;
}

}  // namespace mkvirtfs::ext2
