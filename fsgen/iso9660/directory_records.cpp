// SPDX-License-Identifier: BSD-3-Clause
//
// The records of a directory (ECMA-119, 9.1). When a hierarchy is built each is measured: its
// length follows from its name, its identifier and its kind, and what of Rock Ridge does not fit
// goes to the directory's continuation area. When a block is read its records are made again, from
// the position that was kept for it; a record's system use entries are divided as they were when it
// was measured, so that both agree without a word of it being stored.
#include <algorithm>
#include <cassert>
#include <cstring>
#include <optional>

#include "fsgen/iso9660/hierarchy.h"
#include "fsgen/iso9660/iso_time.h"
#include "support/arithmetic.h"

namespace mkvirtfs::iso9660 {
namespace {

constexpr std::size_t kRecordHeader = 33;  // without the identifier
constexpr std::size_t kMostRecordBytes = 254;
constexpr std::size_t kDotBytes = 34;

constexpr std::byte kIsDirectory{0x02};
constexpr std::byte kMoreSections{0x80};

// A file of more bytes than a record can say has several, each but the last with whole blocks.
constexpr std::uint64_t kMostSectionBytes = 0xFFFFFFFF;
constexpr std::uint64_t kSectionBytes = 0xFFFFF800;

std::size_t even(std::size_t bytes) { return bytes + bytes % 2; }
std::size_t base_bytes(std::size_t identifier_bytes) {
  return even(kRecordHeader + identifier_bytes);
}

struct RecordHead {
  BlockNo block{};
  std::uint32_t bytes = 0;
  Timestamp when;
  std::byte flags{0};
};

void put_record(std::span<std::byte> out, const RecordHead& head, std::string_view identifier) {
  out[0] = static_cast<std::byte>(out.size());
  put_both(out, 2, head.block.value());
  put_both(out, 10, head.bytes);
  put_short_time(out.subspan(18, kShortTimeBytes), head.when);
  out[25] = head.flags;
  put_both16(out, 28, 1);  // the volume's number in its set
  out[32] = static_cast<std::byte>(identifier.size());
  std::memcpy(out.data() + kRecordHeader, identifier.data(), identifier.size());
}

RecordHead head_of(const Hierarchy::IsoDirectory& directory, Timestamp when) {
  return {directory.block, directory.blocks * kBlockBytes, when, kIsDirectory};
}

/// One of the sections of a file that begins at `first`.
RecordHead head_of_section(BlockNo first, const Node& file, std::uint32_t section,
                           std::uint32_t sections) {
  const std::uint64_t begin = section * kSectionBytes;
  const bool last = section + 1 == sections;
  return {first + static_cast<std::uint32_t>(begin / kBlockBytes),
          static_cast<std::uint32_t>(last ? file.size_bytes - begin : kSectionBytes), file.mtime(),
          last ? std::byte{0} : kMoreSections};
}

}  // namespace

std::uint32_t Hierarchy::sections_of(const Item& item) const noexcept {
  const std::uint64_t bytes = item.node->is_regular() ? item.node->size_bytes : 0;
  return bytes <= kMostSectionBytes
             ? 1
             : static_cast<std::uint32_t>(ceil_div<std::uint64_t>(bytes, kSectionBytes));
}

void Hierarchy::fill(SystemUse& use, DirectoryNo directory, const Item& item) const noexcept {
  use.add_attributes(*item.node, links_of(item), item.no.value() + 1);
  use.add_times(item.node->mtime());
  use.add_name(item.name);
  if (item.node->is_device()) use.add_device(tree_.device_number(item.no));
  if (item.node->is_symlink()) use.add_target(tree_.symlink_target(item.no));
  if (item.is_placeholder) use.add_child(this->directory(*item.directory).block);
  if (is_marked_relocated(directory, item)) use.add_relocated();
}

void Hierarchy::fill_dot(SystemUse& use, DirectoryNo no, Dot dot) const noexcept {
  if (no == kRootDirectory && dot == Dot::self) use.add_root_marks();
  const DirectoryNo shown = dot == Dot::parent ? true_parent(no) : no;
  use.add_attributes(attributes_of(shown), 2 + directory(shown).subdirectories,
                     node_of(shown).value() + 1);
  use.add_times(attributes_of(shown).mtime());
  if (dot == Dot::parent && directory(no).is_relocated) use.add_parent(directory(shown).block);
}

std::size_t Hierarchy::dots_bytes(DirectoryNo directory) const noexcept {
  if (is_joliet()) return 2 * kDotBytes;
  std::size_t bytes = 0;
  for (const Dot dot : {Dot::self, Dot::parent}) {
    SystemUse use;
    fill_dot(use, directory, dot);
    bytes += even(kDotBytes + use.size_bytes());
  }
  return bytes;
}

void Hierarchy::write_dots(DirectoryNo no, std::span<std::byte> out) const noexcept {
  std::size_t at = 0;
  for (const Dot dot : {Dot::self, Dot::parent}) {
    // In ECMA-119 the parent is where it stands; Rock Ridge's PL says better.
    const DirectoryNo shown = dot == Dot::parent ? directory(no).parent : no;
    SystemUse use;
    if (!is_joliet()) {
      fill_dot(use, no, dot);
      use.divide(use.size_bytes(), 0);
    }
    const auto record = out.subspan(at, even(kDotBytes + use.size_bytes()));
    const char identifier = dot == Dot::parent ? '\x01' : '\0';
    put_record(record, head_of(directory(shown), attributes_of(shown).mtime()), {&identifier, 1});
    use.write_record(BlockNo{0}, record.subspan(kDotBytes));
    at += record.size();
  }
}

void Hierarchy::write_root_record(std::span<std::byte> out) const {
  constexpr char kIdentifier = '\0';
  put_record(out.first(kDotBytes),
             head_of(directory(kRootDirectory), tree_.node(kRootNode).mtime()), {&kIdentifier, 1});
}

std::optional<std::size_t> Hierarchy::plain_use_bytes(DirectoryNo directory, const Item& item,
                                                      std::size_t capacity) const noexcept {
  if (item.node->is_symlink() || item.name.size() > SystemUse::kMostNameBytes) return std::nullopt;
  constexpr std::size_t kDevice = 20;
  constexpr std::size_t kChild = 12;
  constexpr std::size_t kRelocated = 4;
  std::size_t bytes = SystemUse::kAttributesBytes + SystemUse::kTimesBytes +
                      SystemUse::kNameHeaderBytes + item.name.size();
  const bool plain = !item.node->is_device() && !item.is_directory();
  if (bytes + (plain ? 0 : kDevice + kChild + kRelocated) > capacity) return std::nullopt;
  if (item.node->is_device()) bytes += kDevice;
  if (item.is_placeholder) bytes += kChild;
  if (is_marked_relocated(directory, item)) bytes += kRelocated;
  return bytes;
}

Hierarchy::Measured Hierarchy::measure(DirectoryNo directory, const Item& item,
                                       std::size_t identifier_bytes, std::uint64_t area_bytes,
                                       SystemUse& use) const noexcept {
  const std::size_t base = base_bytes(identifier_bytes);
  if (is_joliet()) return {base, area_bytes};
  const std::size_t capacity = kMostRecordBytes - base;
  // The usual case, without making it: nothing to continue.
  if (const auto bytes = plain_use_bytes(directory, item, capacity)) {
    return {even(base + *bytes), area_bytes};
  }
  use.clear();
  fill(use, directory, item);
  const std::uint64_t after = use.divide(capacity, area_bytes);
  return {even(base + use.record_bytes()), after};
}

void Hierarchy::write_records(DirectoryNo no, std::uint32_t index, const FileArea& files,
                              std::span<std::byte> out) const {
  const IsoDirectory& here = directory(no);
  const Position& start = positions_[here.first_position + index];
  std::size_t at = 0;
  if (index == 0) {
    at = dots_bytes(no);
    write_dots(no, out.first(at));
  }
  std::uint64_t area_bytes = start.area_bytes;
  std::uint32_t section = start.section;
  SystemUse use;
  for (RecordNo record = start.record; record < here.record_end(); ++record, section = 0) {
    const Item shown = item(no, record);
    const Identifier identifier = this->identifier(shown, record);
    const std::size_t base = base_bytes(identifier.size());
    RecordHead head{.when = shown.node->mtime()};
    if (shown.is_directory() && !shown.is_placeholder) {
      head = head_of(directory(*shown.directory), shown.node->mtime());
    }
    const bool is_file = shown.node->is_regular();
    const BlockNo first = is_file ? files.block_of(shown.no) : BlockNo{0};
    const std::uint32_t sections = sections_of(shown);
    for (; section < sections; ++section) {
      if (!is_joliet()) {
        use.clear();
        fill(use, no, shown);
        area_bytes = use.divide(kMostRecordBytes - base, area_bytes);
      }
      const std::size_t bytes = even(base + use.record_bytes());
      if (at + bytes > out.size()) return;
      if (is_file) head = head_of_section(first, *shown.node, section, sections);
      put_record(out.subspan(at, bytes), head, identifier.view());
      if (!is_joliet())
        use.write_record(here.continuations(), out.subspan(at + base, bytes - base));
      at += bytes;
    }
  }
}

void Hierarchy::write_continuations(DirectoryNo no, std::uint32_t index,
                                    std::span<std::byte> out) const {
  const IsoDirectory& here = directory(no);
  const Position& start = positions_[here.first_position + here.blocks + index];
  const std::uint64_t begin = std::uint64_t{index} * kBlockBytes;
  std::uint64_t area_bytes = start.area_bytes;
  std::uint32_t section = start.section;
  SystemUse use;
  for (RecordNo record = start.record; record < here.record_end(); ++record, section = 0) {
    const Item shown = item(no, record);
    const std::size_t identifier_bytes = identifier(shown, record).size();
    for (const std::uint32_t sections = sections_of(shown); section < sections; ++section) {
      const Measured measured = measure(no, shown, identifier_bytes, area_bytes, use);
      if (measured.area_bytes == area_bytes) break;  // no continuations, in no section
      area_bytes = measured.area_bytes;
      for (std::size_t i = 0; i < use.chunks().size(); ++i) {
        const std::uint64_t at = use.chunks()[i].at;
        if (at >= begin + kBlockBytes) return;
        if (at >= begin) use.write_chunk(i, here.continuations(), out.subspan(at - begin));
      }
    }
  }
}

void Hierarchy::write_block(DirectoryNo no, std::uint32_t index, const FileArea& files,
                            std::span<std::byte> out) const {
  std::ranges::fill(out, std::byte{0});
  const std::uint32_t record_blocks = directory(no).blocks;
  if (index < record_blocks) {
    write_records(no, index, files, out);
  } else {
    write_continuations(no, index - record_blocks, out);
  }
}

}  // namespace mkvirtfs::iso9660
