// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/iso9660/hierarchy.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cstring>
#include <iterator>
#include <limits>
#include <utility>

#include "fsgen/iso9660/iso_time.h"
#include "support/arithmetic.h"
#include "support/byte_order.h"
#include "support/text.h"

namespace mkvirtfs::iso9660 {
namespace {

// A directory record (ECMA-119, 9.1) and one of a path table (9.4), without the identifier.
constexpr std::size_t kRecordHeader = 33;
constexpr std::size_t kMostRecordBytes = 254;
constexpr std::size_t kPathHeader = 8;
constexpr std::size_t kDotBytes = 34;

constexpr std::byte kIsDirectory{0x02};
constexpr std::byte kMoreSections{0x80};

// A file of more bytes than a record can say has several, each but the last with whole blocks.
constexpr std::uint64_t kMostSectionBytes = 0xFFFFFFFF;
constexpr std::uint64_t kSectionBytes = 0xFFFFF800;

constexpr std::uint32_t kMostLevels = 8;            // ECMA-119, 6.8.2.1
constexpr std::size_t kMostPathCharacters = 255;    // the same
constexpr std::uint32_t kMostParentNumber = 65535;  // 16 bits in a path table
constexpr std::uint64_t kMostDirectoryBytes = 0xFFFFF800;

constexpr std::string_view kMovedName = "rr_moved";
constexpr std::string_view kOtherMovedName = ".rr_moved";

std::size_t even(std::size_t bytes) { return bytes + bytes % 2; }
std::size_t base_bytes(std::size_t identifier_bytes) {
  return even(kRecordHeader + identifier_bytes);
}

struct RecordHead {
  std::uint32_t block = 0;
  std::uint32_t bytes = 0;
  Timestamp when;
  std::byte flags{0};
};

void put_record(std::span<std::byte> out, const RecordHead& head, std::string_view identifier) {
  out[0] = static_cast<std::byte>(out.size());
  put_both(out, 2, head.block);
  put_both(out, 10, head.bytes);
  put_short_time(out.subspan(18, kShortTimeBytes), head.when);
  out[25] = head.flags;
  put_both16(out, 28, 1);  // the volume's number in its set
  out[32] = static_cast<std::byte>(identifier.size());
  std::memcpy(out.data() + kRecordHeader, identifier.data(), identifier.size());
}

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

std::uint32_t bytes_of(const Hierarchy::Directory& directory) {
  return directory.blocks * kBlockBytes;
}

}  // namespace

Hierarchy::Hierarchy(const SourceTree& tree, const NameRules& rules, bool is_joliet)
    : tree_(tree), rules_(rules), is_joliet_(is_joliet), moved_node_(tree.node(kRootNode)) {
  moved_node_.mode = S_IFDIR | 0755;
}

// What stands in it.

NodeNo Hierarchy::node_of(std::uint32_t directory) const noexcept {
  return is_moved_directory(directory) ? NodeNo{tree_.node_count()}
                                       : tree_.directories()[directory].node;
}

const Node& Hierarchy::attributes_of(std::uint32_t directory) const noexcept {
  return is_moved_directory(directory) ? moved_node_
                                       : tree_.node(tree_.directories()[directory].node);
}

Hierarchy::Item Hierarchy::item(std::uint32_t directory, std::uint32_t record) const noexcept {
  const std::uint32_t entry = records_[record];
  if (entry == kMovedEntry) {
    const auto moved = static_cast<std::uint32_t>(tree_.directories().size());
    return {kMovedName, &moved_node_, node_of(moved), moved, false};
  }
  if (is_moved_directory(directory)) {
    const NodeNo no = tree_.directories()[entry].node;
    const mkvirtfs::Directory& parent = tree_.parent_of(no);
    return {tree_.name(parent, tree_.entries(parent)[tree_.node(no).entry]), &tree_.node(no), no,
            entry, false};
  }
  const mkvirtfs::Directory& source = tree_.directories()[directory];
  const Entry& found = tree_.entries(source)[entry];
  const Node& node = tree_.node(found.node);
  Item item{tree_.name(source, found), &node, found.node, kNone, false};
  if (node.is_directory()) {
    item.directory = tree_.directory_no(found.node);
    item.is_placeholder = !directories_.empty() && directories_[item.directory].is_relocated;
  }
  return item;
}

Tail Hierarchy::tail_of(std::uint32_t record) const noexcept {
  const auto found = std::ranges::lower_bound(tails_, record, {}, &NumberedRecord::record);
  return found != tails_.end() && found->record == record ? found->tail : Tail();
}

Identifier Hierarchy::identifier(const Item& item, std::uint32_t record) const noexcept {
  return rules_.identifier(item.name, item.is_directory(), tail_of(record));
}

Identifier Hierarchy::identifier_of(std::uint32_t directory) const noexcept {
  if (directory == 0) {
    Identifier root;
    root.append('\0');
    return root;
  }
  const Directory& is = directories_[directory];
  return identifier(item(is.parent, is.record), is.record);
}

std::string Hierarchy::identifier_in_root(std::string_view name) const {
  const Directory& root = directories_.front();
  for (std::uint32_t record = root.first_record; record < root.first_record + root.record_count;
       ++record) {
    const Item found = item(0, record);
    if (found.name == name && found.node->is_regular() && records_[record] != kMovedEntry) {
      return std::string(identifier(found, record).view());
    }
  }
  return {};
}

std::uint32_t Hierarchy::links_of(const Item& item) const noexcept {
  return item.is_directory() ? 2 + directories_[item.directory].subdirectories
                             : item.node->link_count;
}

std::uint32_t Hierarchy::true_parent(std::uint32_t directory) const noexcept {
  if (directory == 0 || is_moved_directory(directory)) return 0;
  return tree_.directory_no(tree_.parent_of(node_of(directory)).node);
}

std::uint32_t Hierarchy::sections_of(const Item& item) const noexcept {
  const std::uint64_t bytes = item.node->is_regular() ? item.node->size_bytes : 0;
  return bytes <= kMostSectionBytes
             ? 1
             : static_cast<std::uint32_t>(ceil_div<std::uint64_t>(bytes, kSectionBytes));
}

std::string Hierarchy::path(std::uint32_t directory) const {
  return is_moved_directory(directory) ? std::string(kMovedName)
                                       : tree_.path(tree_.directories()[directory].node);
}

bool Hierarchy::differences(DifferenceSink& sink) const {
  if (left_out_count_ == 0 && changed_name_count_ == 0) return true;
  for (std::uint32_t d = 0; d < tree_.directories().size(); ++d) {
    const std::string directory_path = path(d);
    const auto path_of = [&](std::string_view name) {
      return directory_path.empty() ? std::string(name)
                                    : fmt::format("{}/{}", directory_path, name);
    };
    const mkvirtfs::Directory& source = tree_.directories()[d];
    for (const Entry entry : tree_.entries(source)) {
      const Node& node = tree_.node(entry.node);
      if (node.is_directory() || node.is_regular()) continue;
      if (!sink.difference({"skipped", path_of(tree_.name(source, entry)),
                            fmt::format("is {}, which Joliet lacks", kind_in_words(node))})) {
        return false;
      }
    }
    const Directory& directory = directories_[d];
    for (std::uint32_t i = 0; i < directory.record_count; ++i) {
      const std::uint32_t record = directory.first_record + i;
      const Item shown = item(d, record);
      const Tail tail = tail_of(record);
      if (tail.digits() == 0 && rules_.is_kept(shown.name)) continue;
      const Identifier named = rules_.key(shown.name, shown.is_directory(), tail);
      if (!sink.difference({"mapped", path_of(shown.name),
                            fmt::format("is named {} in Joliet", utf8_of(named))})) {
        return false;
      }
    }
  }
  return true;
}

std::uint32_t Hierarchy::directory_at(std::uint32_t block) const noexcept {
  const auto after = std::ranges::upper_bound(
      by_block_, block, {}, [&](std::uint32_t number) { return directories_[number].block; });
  return *std::prev(after);
}

// Records.

void Hierarchy::fill(SystemUse& use, std::uint32_t directory, const Item& item) const noexcept {
  use.add_attributes(*item.node, links_of(item), item.no + 1);
  use.add_times(item.node->mtime());
  use.add_name(item.name);
  if (item.node->is_device()) use.add_device(tree_.device_number(item.no));
  if (item.node->is_symlink()) use.add_target(tree_.symlink_target(item.no));
  if (item.is_placeholder) use.add_child(directories_[item.directory].block);
  if (item.is_directory() &&
      (is_moved_directory(item.directory) || is_moved_directory(directory))) {
    use.add_relocated();
  }
}

void Hierarchy::fill_dot(SystemUse& use, std::uint32_t directory, bool parent) const noexcept {
  if (directory == 0 && !parent) use.add_root_marks();
  const std::uint32_t shown = parent ? true_parent(directory) : directory;
  use.add_attributes(attributes_of(shown), 2 + directories_[shown].subdirectories,
                     node_of(shown) + 1);
  use.add_times(attributes_of(shown).mtime());
  if (parent && directories_[directory].is_relocated) use.add_parent(directories_[shown].block);
}

std::size_t Hierarchy::dots_bytes(std::uint32_t directory) const noexcept {
  if (is_joliet_) return 2 * kDotBytes;
  std::size_t bytes = 0;
  for (const bool parent : {false, true}) {
    SystemUse use;
    fill_dot(use, directory, parent);
    bytes += even(kDotBytes + use.size_bytes());
  }
  return bytes;
}

void Hierarchy::write_dots(std::uint32_t directory, std::span<std::byte> out) const noexcept {
  std::size_t at = 0;
  for (const bool parent : {false, true}) {
    // In ECMA-119 the parent is where it stands; Rock Ridge's PL tells better.
    const std::uint32_t shown = parent ? directories_[directory].parent : directory;
    const Directory& target = directories_[shown];
    SystemUse use;
    if (!is_joliet_) {
      fill_dot(use, directory, parent);
      use.divide(use.size_bytes(), 0);
    }
    const auto record = out.subspan(at, even(kDotBytes + use.size_bytes()));
    const char identifier = parent ? '\x01' : '\0';
    put_record(record, {target.block, bytes_of(target), attributes_of(shown).mtime(), kIsDirectory},
               {&identifier, 1});
    use.write_record(0, record.subspan(kDotBytes));
    at += record.size();
  }
}

void Hierarchy::write_root_record(std::span<std::byte> out) const {
  constexpr char kIdentifier = '\0';
  const Directory& root = directories_.front();
  put_record(out.first(kDotBytes),
             {root.block, bytes_of(root), tree_.node(kRootNode).mtime(), kIsDirectory},
             {&kIdentifier, 1});
}

Hierarchy::Measured Hierarchy::measure(std::uint32_t directory, const Item& item,
                                       std::size_t identifier_bytes, std::uint64_t area_bytes,
                                       SystemUse& use) const noexcept {
  const std::size_t base = base_bytes(identifier_bytes);
  if (is_joliet_) return {base, area_bytes};
  const std::size_t capacity = kMostRecordBytes - base;
  if (!item.node->is_symlink() && item.name.size() <= SystemUse::kMostNameBytes) {
    // The usual case, without making it: nothing to continue.
    constexpr std::size_t kMostOthers = 20 + 12 + 4;
    const std::size_t usual = SystemUse::kAttributesBytes + SystemUse::kTimesBytes +
                              SystemUse::kNameHeaderBytes + item.name.size();
    const bool plain = !item.node->is_device() && !item.is_directory();
    if (usual + (plain ? 0 : kMostOthers) <= capacity) {
      std::size_t bytes = usual;
      if (item.node->is_device()) bytes += 20;
      if (item.is_placeholder) bytes += 12;
      const bool relocated = item.is_directory() &&
                             (is_moved_directory(item.directory) || is_moved_directory(directory));
      if (relocated) bytes += 4;
      return {even(base + bytes), area_bytes};
    }
  }
  use.clear();
  fill(use, directory, item);
  const std::uint64_t after = use.divide(capacity, area_bytes);
  return {even(base + use.record_bytes()), after};
}

void Hierarchy::write_records(std::uint32_t number, std::uint32_t index, const FilePlaces& files,
                              std::span<std::byte> out) const {
  const Directory& directory = directories_[number];
  const Position& start = positions_[directory.first_position + index];
  const std::uint32_t area = directory.block + directory.blocks;
  std::size_t at = 0;
  if (index == 0) {
    at = dots_bytes(number);
    write_dots(number, out.first(at));
  }
  std::uint64_t area_bytes = start.area_bytes;
  std::uint32_t section = start.section;
  SystemUse use;
  for (std::uint32_t record = start.record;
       record < directory.first_record + directory.record_count; ++record, section = 0) {
    const Item shown = item(number, record);
    const Identifier identifier = this->identifier(shown, record);
    const std::size_t base = base_bytes(identifier.size());
    RecordHead head;
    head.when = shown.node->mtime();
    if (shown.is_directory() && !shown.is_placeholder) {
      const Directory& child = directories_[shown.directory];
      head.block = child.block;
      head.bytes = bytes_of(child);
      head.flags = kIsDirectory;
    }
    const std::uint32_t first = shown.node->is_regular() ? files.block_of(shown.no) : 0;
    const std::uint32_t sections = sections_of(shown);
    for (; section < sections; ++section) {
      if (!is_joliet_) {
        use.clear();
        fill(use, number, shown);
        area_bytes = use.divide(kMostRecordBytes - base, area_bytes);
      }
      const std::size_t bytes = even(base + use.record_bytes());
      if (at + bytes > out.size()) return;
      if (shown.node->is_regular()) {
        const std::uint64_t begin = section * kSectionBytes;
        const bool last = section + 1 == sections;
        head.block = first + static_cast<std::uint32_t>(begin / kBlockBytes);
        head.bytes =
            static_cast<std::uint32_t>(last ? shown.node->size_bytes - begin : kSectionBytes);
        head.flags = last ? std::byte{0} : kMoreSections;
      }
      put_record(out.subspan(at, bytes), head, identifier.view());
      if (!is_joliet_) use.write_record(area, out.subspan(at + base, bytes - base));
      at += bytes;
    }
  }
}

void Hierarchy::write_continuations(std::uint32_t number, std::uint32_t index,
                                    std::span<std::byte> out) const {
  const Directory& directory = directories_[number];
  const Position& start = positions_[directory.first_position + directory.blocks + index];
  const std::uint32_t area = directory.block + directory.blocks;
  const std::uint64_t begin = std::uint64_t{index} * kBlockBytes;
  std::uint64_t area_bytes = start.area_bytes;
  std::uint32_t section = start.section;
  SystemUse use;
  for (std::uint32_t record = start.record;
       record < directory.first_record + directory.record_count; ++record, section = 0) {
    const Item shown = item(number, record);
    const std::size_t identifier_bytes = identifier(shown, record).size();
    for (const std::uint32_t sections = sections_of(shown); section < sections; ++section) {
      const Measured measured = measure(number, shown, identifier_bytes, area_bytes, use);
      if (measured.area_bytes == area_bytes) break;  // no continuations, in no section
      area_bytes = measured.area_bytes;
      for (std::size_t i = 0; i < use.chunks().size(); ++i) {
        const std::uint64_t at = use.chunks()[i].at;
        if (at >= begin + kBlockBytes) return;
        if (at >= begin) use.write_chunk(i, area, out.subspan(at - begin));
      }
    }
  }
}

void Hierarchy::write_block(std::uint32_t directory, std::uint32_t index, const FilePlaces& files,
                            std::span<std::byte> out) const {
  std::ranges::fill(out, std::byte{0});
  const std::uint32_t record_blocks = directories_[directory].blocks;
  if (index < record_blocks) {
    write_records(directory, index, files, out);
  } else {
    write_continuations(directory, index - record_blocks, out);
  }
}

void Hierarchy::write_path_table(std::uint32_t index, bool big_endian,
                                 std::span<std::byte> out) const {
  std::ranges::fill(out, std::byte{0});
  const std::uint64_t begin = std::uint64_t{index} * kBlockBytes;
  std::uint64_t at = path_positions_[index].offset;
  for (std::size_t number = path_positions_[index].number;
       number <= by_number_.size() && at < begin + kBlockBytes; ++number) {
    const std::uint32_t directory = by_number_[number - 1];
    const Identifier identifier = identifier_of(directory);
    std::array<std::byte, kPathHeader + Identifier::kMostBytes> record{};
    const auto parent =
        static_cast<std::uint16_t>(directories_[directories_[directory].parent].number);
    record[0] = static_cast<std::byte>(identifier.size());
    if (big_endian) {
      store_be(record, 2, directories_[directory].block);
      store_be(record, 6, parent);
    } else {
      store_le(record, 2, directories_[directory].block);
      store_le(record, 6, parent);
    }
    std::memcpy(record.data() + kPathHeader, identifier.view().data(), identifier.size());
    const std::size_t bytes = even(kPathHeader + identifier.size());
    // The part of it that stands in this block.
    const std::size_t skip = at < begin ? begin - at : 0;
    const std::size_t to = at + skip - begin;
    const std::size_t length = std::min(bytes - skip, out.size() - to);
    std::memcpy(out.data() + to, record.data() + skip, length);
    at += bytes;
  }
}

// Building.

/// Makes a Hierarchy: names, relocation, sizes, path table, one pass over the names each.
class HierarchyBuilder {
 public:
  HierarchyBuilder(const SourceTree& tree, const NameRules& rules, bool is_joliet)
      : tree_(tree), made_(new Hierarchy(tree, rules, is_joliet)), namer_(made_->rules_) {}

  Result<std::unique_ptr<Hierarchy>> build(bool relocate) {
    const auto directories = static_cast<std::uint32_t>(tree_.directories().size());
    std::vector<Hierarchy::Directory> named(directories);
    relocate_ = relocate;
    for (std::uint32_t d = 0; d < directories; ++d) {
      Result<void> good = name(d, named[d]);
      if (!good) return propagate(good);
    }
    made_->directories_ = std::move(named);
    find_parents();
    if (relocate) {
      Result<void> good = move_deep_ones();
      if (!good) return propagate(good);
    }
    if (Result<void> good = number(); !good) return propagate(good);
    for (std::uint32_t d = 0; d < made_->directories_.size(); ++d) {
      Result<void> good = size(d);
      if (!good) return propagate(good);
    }
    made_->positions_.shrink_to_fit();
    made_->records_.shrink_to_fit();
    return std::move(made_);
  }

 private:
  using Directory = Hierarchy::Directory;

  /// The records of a directory, in order.
  Result<void> name(std::uint32_t number, Directory& directory) {
    const mkvirtfs::Directory& source = tree_.directories()[number];
    const std::span<const Entry> entries = tree_.entries(source);
    namer_.begin();
    if (number == 0 && relocate_) namer_.add(kMovedName, true, Hierarchy::kMovedEntry);
    std::uint64_t wanted = number == 0 && relocate_ ? 1 : 0;
    for (std::uint32_t entry = 0; entry < entries.size(); ++entry) {
      const Node& node = tree_.node(entries[entry].node);
      if (made_->is_joliet_ && !node.is_directory() && !node.is_regular()) {
        ++made_->left_out_count_;
        if (node.is_symlink()) ++made_->left_out_symlink_count_;
        continue;
      }
      if (node.is_directory()) ++directory.subdirectories;
      ++wanted;
      namer_.add(tree_.name(source, entries[entry]), node.is_directory(), entry);
    }
    return take_names(number, directory, wanted);
  }

  Result<void> take_names(std::uint32_t number, Directory& directory, std::uint64_t wanted) {
    const std::span<const Namer::Named> names = namer_.finish();
    if (names.size() != wanted) {
      return fail(Errc::does_not_fit,
                  fmt::format("/{} has more names that are alike as {} identifiers than numbers "
                              "tell apart",
                              made_->path(number), made_->is_joliet_ ? "Joliet" : "ISO 9660"),
                  {{"fs", "ext4"}});
    }
    directory.first_record = static_cast<std::uint32_t>(made_->records_.size());
    directory.record_count = static_cast<std::uint32_t>(names.size());
    for (const Namer::Named& named : names) {
      if (named.tail.digits() != 0) {
        made_->tails_.push_back({static_cast<std::uint32_t>(made_->records_.size()), named.tail});
      }
      if (made_->is_joliet_ && (named.tail.digits() != 0 || !made_->rules_.is_kept(named.name))) {
        ++made_->changed_name_count_;
      }
      made_->records_.push_back(named.entry);
    }
    return {};
  }

  /// Each directory's own record.
  void find_parents() {
    for (std::uint32_t d = 0; d < made_->directories_.size(); ++d) {
      const Directory& directory = made_->directories_[d];
      for (std::uint32_t i = 0; i < directory.record_count; ++i) {
        const std::uint32_t record = directory.first_record + i;
        if (made_->records_[record] == Hierarchy::kMovedEntry) continue;
        const Hierarchy::Item item = made_->item(d, record);
        if (!item.is_directory()) continue;
        made_->directories_[item.directory].parent = d;
        made_->directories_[item.directory].record = record;
      }
    }
  }

  Result<void> move_deep_ones() {
    const std::vector<std::uint32_t> deep = find_deep_ones();
    if (deep.empty()) {
      forget_moved_record();
      return {};
    }
    const mkvirtfs::Directory& root = tree_.directories()[0];
    for (const std::string_view taken : {kMovedName, kOtherMovedName}) {
      if (tree_.find(root, taken) == nullptr) continue;
      return fail(Errc::does_not_fit,
                  fmt::format("{} is where readers look for directories deeper than {} levels, "
                              "such as {}",
                              taken, kMostLevels, made_->path(deep.front())),
                  {{"", "another name for it"}, {"deep-directories", "keep"}});
    }
    const auto moved = static_cast<std::uint32_t>(made_->directories_.size());
    made_->directories_.emplace_back();
    namer_.begin();
    for (const std::uint32_t d : deep) {
      const Directory& directory = made_->directories_[d];
      namer_.add(made_->item(directory.parent, directory.record).name, true, d);
    }
    Directory& place = made_->directories_.back();
    Result<void> good = take_names(moved, place, deep.size());
    if (!good) return good;
    place.subdirectories = place.record_count;
    place.record = moved_record();
    for (std::uint32_t i = 0; i < place.record_count; ++i) {
      const std::uint32_t record = place.first_record + i;
      Directory& directory = made_->directories_[made_->records_[record]];
      directory.parent = moved;
      directory.record = record;
      directory.is_relocated = true;
    }
    made_->relocated_count_ = place.record_count;
    return {};
  }

  /// Deeper than 8 levels, or with paths of more than 255 characters; as little as needed. A
  /// directory's number is always greater than its parent's.
  std::vector<std::uint32_t> find_deep_ones() const {
    struct Depth {
      std::uint16_t level;
      std::uint16_t path;
    };
    constexpr Depth kMoved{3, 8 + 1 + 31};
    std::vector<Depth> depths(made_->directories_.size(), Depth{1, 0});
    std::vector<std::uint32_t> deep;
    for (std::uint32_t d = 1; d < made_->directories_.size(); ++d) {
      const Directory& directory = made_->directories_[d];
      const Depth& parent = depths[directory.parent];
      std::size_t longest = 0;
      for (std::uint32_t i = 0; i < directory.record_count; ++i) {
        const std::uint32_t record = directory.first_record + i;
        const std::size_t length = made_->identifier(made_->item(d, record), record).size();
        longest = std::max(longest, length);
      }
      const std::size_t own = made_->identifier_of(d).size();
      depths[d] = {static_cast<std::uint16_t>(parent.level + 1),
                   static_cast<std::uint16_t>(parent.path + (directory.parent != 0) + own)};
      if (depths[d].level > kMostLevels || depths[d].path + 1 + longest > kMostPathCharacters) {
        depths[d] = kMoved;
        deep.push_back(d);
      }
    }
    return deep;
  }

  std::uint32_t moved_record() const {
    const Directory& root = made_->directories_.front();
    const auto begin = made_->records_.begin() + root.first_record;
    return static_cast<std::uint32_t>(
        std::find(begin, begin + root.record_count, Hierarchy::kMovedEntry) -
        made_->records_.begin());
  }

  void forget_moved_record() {
    const std::uint32_t record = moved_record();
    made_->records_.erase(made_->records_.begin() + record);
    --made_->directories_.front().record_count;
    for (Hierarchy::NumberedRecord& tail : made_->tails_) tail.record -= tail.record > record;
    for (Directory& directory : made_->directories_) {
      directory.first_record -= directory.first_record > record;
      directory.record -= directory.record > record;
    }
  }

  /// Numbers in the path tables: by level, then by the parent's number, then by identifier
  /// (ECMA-119, 6.9.1), which is breadth first in the order of records.
  Result<void> number() {
    std::vector<std::uint32_t>& by_number = made_->by_number_;
    by_number.reserve(made_->directories_.size());
    by_number.push_back(0);
    std::uint64_t bytes = 0;
    for (std::size_t i = 0; i < by_number.size(); ++i) {
      const std::uint32_t d = by_number[i];
      Directory& directory = made_->directories_[d];
      directory.number = static_cast<std::uint32_t>(i + 1);
      const std::size_t length = even(kPathHeader + made_->identifier_of(d).size());
      while (made_->path_positions_.size() * kBlockBytes < bytes + length) {
        made_->path_positions_.push_back({directory.number, static_cast<std::uint32_t>(bytes)});
      }
      bytes += length;
      for (std::uint32_t n = 0; n < directory.record_count; ++n) {
        const std::uint32_t record = directory.first_record + n;
        const Hierarchy::Item item = made_->item(d, record);
        if (!item.is_directory() || item.is_placeholder) continue;
        if (directory.number > kMostParentNumber) {
          return fail(Errc::does_not_fit,
                      fmt::format("/{} has directories, but is number {} of all; path tables of "
                                  "ISO 9660 number {}",
                                  made_->path(d), directory.number, kMostParentNumber),
                      {{"fs", "ext4"}});
        }
        by_number.push_back(item.directory);
      }
    }
    assert(by_number.size() == made_->directories_.size());
    made_->path_table_bytes_ = static_cast<std::uint32_t>(bytes);
    return {};
  }

  Result<void> size(std::uint32_t d) {
    Directory& directory = made_->directories_[d];
    const auto first = static_cast<std::uint32_t>(made_->positions_.size());
    directory.first_position = first;
    continuations_.clear();
    std::uint64_t at = made_->dots_bytes(d);
    std::uint64_t area = 0;
    made_->positions_.push_back({directory.first_record, 0, 0});
    for (std::uint32_t i = 0; i < directory.record_count; ++i) {
      const std::uint32_t record = directory.first_record + i;
      const Hierarchy::Item item = made_->item(d, record);
      const std::size_t identifier_bytes = made_->identifier(item, record).size();
      const std::uint32_t sections = made_->sections_of(item);
      for (std::uint32_t section = 0; section < sections; ++section) {
        const Hierarchy::Position here{record, section, static_cast<std::uint32_t>(area)};
        const auto measured = made_->measure(d, item, identifier_bytes, area, use_);
        if (at % kBlockBytes + measured.record_bytes > kBlockBytes) {
          at = round_up<std::uint64_t>(at, kBlockBytes);
        }
        if (at % kBlockBytes == 0) made_->positions_.push_back(here);
        at += measured.record_bytes;
        if (measured.area_bytes == area) continue;
        area = measured.area_bytes;
        for (const SystemUse::Chunk& chunk : use_.chunks()) {
          if (chunk.at / kBlockBytes == continuations_.size()) continuations_.push_back(here);
        }
      }
      if (at > kMostDirectoryBytes || area > kMostDirectoryBytes) {
        return fail(Errc::does_not_fit,
                    fmt::format("/{} has more names than the 4 GiB of an ISO 9660 directory hold",
                                made_->path(d)),
                    {{"fs", "ext4"}});
      }
    }
    directory.blocks = static_cast<std::uint32_t>(made_->positions_.size()) - first;
    directory.continuation_blocks = static_cast<std::uint32_t>(continuations_.size());
    made_->positions_.insert(made_->positions_.end(), continuations_.begin(), continuations_.end());
    return {};
  }

  const SourceTree& tree_;
  std::unique_ptr<Hierarchy> made_;
  Namer namer_;
  bool relocate_ = false;
  SystemUse use_;
  std::vector<Hierarchy::Position> continuations_;
};

Result<std::unique_ptr<Hierarchy>> Hierarchy::make_primary(const SourceTree& tree, unsigned level,
                                                           DeepDirectories deep) {
  return HierarchyBuilder(tree, NameRules::primary(level), false)
      .build(deep == DeepDirectories::relocate);
}

Result<std::unique_ptr<Hierarchy>> Hierarchy::make_joliet(const SourceTree& tree,
                                                          std::size_t most_units) {
  return HierarchyBuilder(tree, NameRules::joliet(most_units), true).build(false);
}

/// Depth first, what is relocated before all else and the less deep of it first: libarchive goes
/// through a volume in one direction, and must have met a relocated directory before the place
/// where it belongs.
void Hierarchy::order_by_block() {
  by_block_.clear();
  by_block_.reserve(directories_.size());
  std::vector<std::uint32_t> waiting = {0};
  std::vector<std::uint32_t> children;
  std::vector<std::uint32_t> moved;
  while (!waiting.empty()) {
    const std::uint32_t number = waiting.back();
    waiting.pop_back();
    by_block_.push_back(number);
    const Directory& directory = directories_[number];
    children.clear();
    moved.clear();
    for (std::uint32_t i = 0; i < directory.record_count; ++i) {
      const Item child = item(number, directory.first_record + i);
      if (!child.is_directory() || child.is_placeholder) continue;
      (is_moved_directory(child.directory) ? moved : children).push_back(child.directory);
    }
    if (is_moved_directory(number)) {
      std::ranges::sort(children);
      std::ranges::sort(moved);
    }
    waiting.insert(waiting.end(), children.rbegin(), children.rend());
    waiting.insert(waiting.end(), moved.rbegin(), moved.rend());
  }
}

Result<std::uint32_t> Hierarchy::place(std::uint32_t first_block) {
  order_by_block();
  std::uint64_t at = first_block;
  for (const std::uint32_t number : by_block_) {
    Directory& directory = directories_[number];
    directory.block = static_cast<std::uint32_t>(at);
    at += std::uint64_t{directory.blocks} + directory.continuation_blocks;
    if (at > std::numeric_limits<std::uint32_t>::max()) {
      return fail(Errc::does_not_fit,
                  "the directories alone do not fit an ISO 9660 volume of 8 TiB", {{"fs", "ext4"}});
    }
  }
  end_block_ = static_cast<std::uint32_t>(at);
  return end_block_;
}

}  // namespace mkvirtfs::iso9660
