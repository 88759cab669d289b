// SPDX-License-Identifier: BSD-3-Clause
//
// A hierarchy is two sequences: the records of all directories, each naming an entry of the tree,
// and the positions in it where blocks begin. All else follows from the tree. hierarchy_builder.cpp
// makes them, directory_records.cpp makes blocks of them; here is what a record shows, where
// directories stand, and the path tables.
#include "fsgen/iso9660/hierarchy.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <limits>
#include <utility>

#include "support/byte_order.h"

namespace mkvirtfs::iso9660 {
namespace {

constexpr std::size_t kPathHeader = 8;  // of a record of a path table (ECMA-119, 9.4)

std::string_view kind_in_words(const Node& node) {
  if (node.is_symlink()) return "a symlink";
  if (node.is_device()) return "a device";
  return S_ISFIFO(node.mode) ? "a FIFO" : "a socket";
}

/// Joliet's big-endian UTF-16, which names.cpp makes without half pairs.
std::string utf8_of(const Identifier& joliet) {
  const std::string_view bytes = joliet.view();
  const auto unit = [&](std::size_t at) {
    return static_cast<char32_t>(static_cast<unsigned char>(bytes[at]) << 8 |
                                 static_cast<unsigned char>(bytes[at + 1]));
  };
  std::string text;
  const auto put = [&](char32_t byte) { text += static_cast<char>(byte); };
  for (std::size_t at = 0; at + 1 < bytes.size(); at += 2) {
    char32_t point = unit(at);
    if (point >= 0xD800 && point < 0xDC00 && at + 3 < bytes.size()) {
      at += 2;
      point = 0x10000 + ((point - 0xD800) << 10) + (unit(at) - 0xDC00);
    }
    if (point < 0x80) {
      put(point);
    } else if (point < 0x800) {
      put(0xC0 | point >> 6);
      put(0x80 | (point & 0x3F));
    } else {
      if (point < 0x10000) {
        put(0xE0 | point >> 12);
      } else {
        put(0xF0 | point >> 18);
        put(0x80 | (point >> 12 & 0x3F));
      }
      put(0x80 | (point >> 6 & 0x3F));
      put(0x80 | (point & 0x3F));
    }
  }
  return text;
}

std::string joined(const std::string& directory_path, std::string_view name) {
  return directory_path.empty() ? std::string(name) : fmt::format("{}/{}", directory_path, name);
}

}  // namespace

Hierarchy::Hierarchy(const SourceTree& tree, const NameRules& rules, Kind kind)
    : tree_(tree), rules_(rules), kind_(kind), moved_node_(tree.node(kRootNode)) {
  moved_node_.mode = S_IFDIR | 0755;
}

NodeNo Hierarchy::node_of(DirectoryNo directory) const noexcept {
  return directory == moved_directory() ? NodeNo{tree_.node_count()}
                                        : tree_.directories()[directory.value()].node;
}

const Node& Hierarchy::attributes_of(DirectoryNo directory) const noexcept {
  return directory == moved_directory() ? moved_node_ : tree_.node(node_of(directory));
}

Hierarchy::Item Hierarchy::item(DirectoryNo directory, RecordNo record) const noexcept {
  const std::uint32_t entry = records_[record.value()];
  if (entry == kMovedEntry) {
    return {kMovedName, &moved_node_, node_of(moved_directory()), moved_directory()};
  }
  if (directory == moved_directory()) {
    const DirectoryNo moved{entry};
    const NodeNo no = node_of(moved);
    const Directory& parent = tree_.parent_of(no);
    return {tree_.name(parent, tree_.entries(parent)[tree_.node(no).entry]), &tree_.node(no), no,
            moved};
  }
  const Directory& source = tree_.directories()[directory.value()];
  const Entry& found = tree_.entries(source)[entry];
  const Node& node = tree_.node(found.node);
  Item item{tree_.name(source, found), &node, found.node};
  if (node.is_directory()) {
    item.directory = tree_.directory_no(found.node);
    item.is_placeholder = !directories_.empty() && this->directory(*item.directory).is_relocated;
  }
  return item;
}

Tail Hierarchy::tail_of(RecordNo record) const noexcept {
  const auto found = std::ranges::lower_bound(tails_, record, {}, &NumberedRecord::record);
  return found != tails_.end() && found->record == record ? found->tail : Tail();
}

Identifier Hierarchy::identifier(const Item& item, RecordNo record) const noexcept {
  return rules_.identifier(item.name, item.of(), tail_of(record));
}

Identifier Hierarchy::identifier_of(DirectoryNo no) const noexcept {
  if (no == kRootDirectory) {
    Identifier root;
    root.append('\0');
    return root;
  }
  const IsoDirectory& is = directory(no);
  return identifier(item(is.parent, is.record), is.record);
}

std::string Hierarchy::identifier_in_root(std::string_view name) const {
  const IsoDirectory& root = directory(kRootDirectory);
  for (RecordNo record = root.first_record; record < root.record_end(); ++record) {
    const Item found = item(kRootDirectory, record);
    if (found.name == name && found.node->is_regular()) {
      return std::string(identifier(found, record).view());
    }
  }
  return {};
}

std::uint32_t Hierarchy::links_of(const Item& item) const noexcept {
  return item.is_directory() ? 2 + directory(*item.directory).subdirectories
                             : item.node->link_count;
}

DirectoryNo Hierarchy::true_parent(DirectoryNo no) const noexcept {
  if (no == kRootDirectory || no == moved_directory()) return kRootDirectory;
  return tree_.directory_no(tree_.parent_of(node_of(no)).node);
}

std::string Hierarchy::path(DirectoryNo directory) const {
  return directory == moved_directory() ? std::string(kMovedName) : tree_.path(node_of(directory));
}

bool Hierarchy::differences(DifferenceSink& sink) const {
  if (left_out_count_ == 0 && changed_name_count_ == 0) return true;
  for (DirectoryNo no; no < moved_directory(); ++no) {
    if (!list_left_out(no, sink) || !list_changed_names(no, sink)) return false;
  }
  return true;
}

bool Hierarchy::list_left_out(DirectoryNo no, DifferenceSink& sink) const {
  const Directory& source = tree_.directories()[no.value()];
  for (const Entry entry : tree_.entries(source)) {
    const Node& node = tree_.node(entry.node);
    if (node.is_directory() || node.is_regular()) continue;
    if (!sink.difference({"skipped", joined(path(no), tree_.name(source, entry)),
                          fmt::format("is {}, which Joliet lacks", kind_in_words(node))})) {
      return false;
    }
  }
  return true;
}

bool Hierarchy::list_changed_names(DirectoryNo no, DifferenceSink& sink) const {
  const IsoDirectory& here = directory(no);
  for (RecordNo record = here.first_record; record < here.record_end(); ++record) {
    const Item shown = item(no, record);
    const Tail tail = tail_of(record);
    if (tail.digits() == 0 && rules_.is_kept(shown.name)) continue;
    const Identifier named = rules_.key(shown.name, shown.of(), tail);
    if (!sink.difference({"mapped", joined(path(no), shown.name),
                          fmt::format("is named {} in Joliet", utf8_of(named))})) {
      return false;
    }
  }
  return true;
}

// Where directories stand.

DirectoryNo Hierarchy::directory_at(BlockNo block) const noexcept {
  const auto after = std::ranges::upper_bound(
      by_block_, block, {}, [&](DirectoryNo number) { return directory(number).block; });
  return *std::prev(after);
}

/// Depth first, what is relocated before all else and the less deep of it first: libarchive goes
/// through a volume in one direction, and must have met a relocated directory before the place
/// where it belongs.
void Hierarchy::order_by_block() {
  by_block_.clear();
  by_block_.reserve(directories_.size());
  std::vector<DirectoryNo> waiting = {kRootDirectory};
  std::vector<DirectoryNo> children;
  std::vector<DirectoryNo> moved;
  while (!waiting.empty()) {
    const DirectoryNo number = waiting.back();
    waiting.pop_back();
    by_block_.push_back(number);
    const IsoDirectory& here = directory(number);
    children.clear();
    moved.clear();
    for (RecordNo record = here.first_record; record < here.record_end(); ++record) {
      const Item child = item(number, record);
      if (!child.is_directory() || child.is_placeholder) continue;
      (*child.directory == moved_directory() ? moved : children).push_back(*child.directory);
    }
    if (number == moved_directory()) {
      std::ranges::sort(children);
      std::ranges::sort(moved);
    }
    waiting.insert(waiting.end(), children.rbegin(), children.rend());
    waiting.insert(waiting.end(), moved.rbegin(), moved.rend());
  }
}

Result<BlockNo> Hierarchy::place(BlockNo first_block) {
  order_by_block();
  std::uint64_t at = first_block.value();
  for (const DirectoryNo number : by_block_) {
    IsoDirectory& here = directories_[number.value()];
    here.block = block_no(at);
    at += std::uint64_t{here.blocks} + here.continuation_blocks;
    if (at > std::numeric_limits<std::uint32_t>::max()) {
      return fail(Errc::does_not_fit,
                  "the directories alone do not fit an ISO 9660 volume of 8 TiB", {{"fs", "ext4"}});
    }
  }
  end_block_ = block_no(at);
  return end_block_;
}

void Hierarchy::write_path_table(std::uint32_t index, std::endian order,
                                 std::span<std::byte> out) const {
  std::ranges::fill(out, std::byte{0});
  const std::uint64_t begin = std::uint64_t{index} * kBlockBytes;
  std::uint64_t at = path_positions_[index].offset;
  for (std::size_t number = path_positions_[index].number;
       number <= by_number_.size() && at < begin + kBlockBytes; ++number) {
    const DirectoryNo no = by_number_[number - 1];
    const std::uint32_t block = directory(no).block.value();
    const auto parent = static_cast<std::uint16_t>(directory(directory(no).parent).path_number);
    const Identifier identifier = identifier_of(no);
    std::array<std::byte, kPathHeader + Identifier::kMostBytes> record{};
    record[0] = static_cast<std::byte>(identifier.size());
    if (order == std::endian::big) {
      store_be(record, 2, block);
      store_be(record, 6, parent);
    } else {
      store_le(record, 2, block);
      store_le(record, 6, parent);
    }
    std::memcpy(record.data() + kPathHeader, identifier.view().data(), identifier.size());
    const std::size_t bytes = path_record_bytes(identifier);
    // The part of it that stands in this block.
    const std::size_t skip = at < begin ? begin - at : 0;
    const std::size_t to = at + skip - begin;
    const std::size_t length = std::min(bytes - skip, out.size() - to);
    std::memcpy(out.data() + to, record.data() + skip, length);
    at += bytes;
  }
}

std::size_t Hierarchy::path_record_bytes(const Identifier& identifier) noexcept {
  return round_up<std::size_t>(kPathHeader + identifier.size(), 2);
}

}  // namespace mkvirtfs::iso9660
