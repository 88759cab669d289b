// SPDX-License-Identifier: BSD-3-Clause
//
// How a hierarchy is made, one pass over the names each: every directory is named and sorted by
// itself; parents are found; directories that lie too deep move to one that the source does not
// have; the path tables are numbered breadth first; and the records are measured, which says where
// the blocks of each directory begin. Nothing has a block yet: Hierarchy::place() deals them out.
#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <limits>
#include <string_view>
#include <utility>
#include <vector>

#include "fsgen/iso9660/hierarchy.h"
#include "support/arithmetic.h"

namespace mkvirtfs::iso9660 {
namespace {

constexpr std::uint32_t kMostLevels = 8;            // ECMA-119, 6.8.2.1
constexpr std::size_t kMostPathCharacters = 255;    // the same
constexpr std::uint32_t kMostParentNumber = 65535;  // 16 bits in a path table
constexpr std::uint64_t kMostDirectoryBytes = 0xFFFFF800;
constexpr std::string_view kOtherMovedName = ".rr_moved";

}  // namespace

class HierarchyBuilder {
 public:
  HierarchyBuilder(const SourceTree& tree, const NameRules& rules, Hierarchy::Kind kind,
                   DeepDirectories deep)
      : tree_(tree),
        made_(new Hierarchy(tree, rules, kind)),
        namer_(made_->rules_),
        relocates_(deep == DeepDirectories::relocate) {}

  Result<std::unique_ptr<Hierarchy>> build() {
    Result<void> good = name_all();
    if (good) find_parents();
    if (good && relocates_) good = move_deep_ones();
    if (good) good = number();
    for (DirectoryNo no; good && no.value() < made_->directories_.size(); ++no) good = measure(no);
    if (!good) return propagate(good);
    made_->positions_.shrink_to_fit();
    made_->records_.shrink_to_fit();
    return std::move(made_);
  }

 private:
  using IsoDirectory = Hierarchy::IsoDirectory;
  using Item = Hierarchy::Item;

  const IsoDirectory& directory(DirectoryNo no) const noexcept { return made_->directory(no); }
  IsoDirectory& directory(DirectoryNo no) noexcept { return made_->directories_[no.value()]; }
  RecordNo next_record() const noexcept {
    return RecordNo{static_cast<std::uint32_t>(made_->records_.size())};
  }
  std::uint32_t& entry_of(RecordNo record) noexcept { return made_->records_[record.value()]; }

  // Names.

  Result<void> name_all() {
    const auto count = static_cast<std::uint32_t>(tree_.directories().size());
    // While they are named nobody may ask of a directory whether it is relocated.
    std::vector<IsoDirectory> named(count);
    for (DirectoryNo no; no.value() < count; ++no) {
      if (Result<void> good = name(no, named[no.value()]); !good) return good;
    }
    made_->directories_ = std::move(named);
    return {};
  }

  /// The records of a directory, in order.
  Result<void> name(DirectoryNo no, IsoDirectory& here) {
    const Directory& source = tree_.directories()[no.value()];
    const std::span<const Entry> entries = tree_.entries(source);
    const bool has_moved = no == kRootDirectory && relocates_;
    namer_.begin();
    if (has_moved) namer_.add(Hierarchy::kMovedName, NameOf::directory, Hierarchy::kMovedEntry);
    std::uint64_t wanted = has_moved ? 1 : 0;
    for (std::uint32_t entry = 0; entry < entries.size(); ++entry) {
      const Node& node = tree_.node(entries[entry].node);
      if (made_->is_joliet() && !node.is_directory() && !node.is_regular()) {
        ++made_->left_out_count_;
        if (node.is_symlink()) ++made_->left_out_symlink_count_;
        continue;
      }
      if (node.is_directory()) ++here.subdirectories;
      ++wanted;
      namer_.add(tree_.name(source, entries[entry]),
                 node.is_directory() ? NameOf::directory : NameOf::file, entry);
    }
    return take_names(no, here, wanted);
  }

  Result<void> take_names(DirectoryNo no, IsoDirectory& here, std::uint64_t wanted) {
    const std::span<const Namer::Named> names = namer_.finish();
    if (names.size() != wanted) {
      return fail(Errc::does_not_fit,
                  fmt::format("/{} has too many names that are alike as {} identifiers: numbers "
                              "do not suffice to make them different",
                              made_->path(no), made_->is_joliet() ? "Joliet" : "ISO 9660"),
                  {{"fs", "ext4"}});
    }
    here.first_record = next_record();
    here.record_count = static_cast<std::uint32_t>(names.size());
    for (const Namer::Named& named : names) {
      const bool is_numbered = named.tail.digits() != 0;
      if (is_numbered) made_->tails_.push_back({next_record(), named.tail});
      if (made_->is_joliet() && (is_numbered || !made_->rules_.is_kept(named.name))) {
        ++made_->changed_name_count_;
      }
      made_->records_.push_back(named.entry);
    }
    return {};
  }

  /// Each directory's own record.
  void find_parents() {
    for (DirectoryNo no; no.value() < made_->directories_.size(); ++no) {
      const IsoDirectory& here = directory(no);
      for (RecordNo record = here.first_record; record < here.record_end(); ++record) {
        if (entry_of(record) == Hierarchy::kMovedEntry) continue;
        const Item item = made_->item(no, record);
        if (!item.is_directory()) continue;
        directory(*item.directory).parent = no;
        directory(*item.directory).record = record;
      }
    }
  }

  // Relocation.

  Result<void> move_deep_ones() {
    const std::vector<DirectoryNo> deep = find_deep_ones();
    if (deep.empty()) {
      forget_moved_record();
      return {};
    }
    const Directory& root = tree_.directories()[0];
    for (const std::string_view taken : {Hierarchy::kMovedName, kOtherMovedName}) {
      if (tree_.find(root, taken) == nullptr) continue;
      return fail(Errc::does_not_fit,
                  fmt::format("{} is where readers look for directories deeper than {} levels, "
                              "such as {}",
                              taken, kMostLevels, made_->path(deep.front())),
                  {{"", "another name for it"}, {"deep-directories", "keep"}});
    }
    const DirectoryNo moved = made_->moved_directory();
    assert(moved.value() == made_->directories_.size());
    made_->directories_.emplace_back();
    namer_.begin();
    for (const DirectoryNo no : deep) {
      const Item item = made_->item(directory(no).parent, directory(no).record);
      namer_.add(item.name, NameOf::directory, no.value());
    }
    IsoDirectory& place = directory(moved);
    if (Result<void> good = take_names(moved, place, deep.size()); !good) return good;
    place.subdirectories = place.record_count;
    place.record = moved_record();
    for (RecordNo record = place.first_record; record < place.record_end(); ++record) {
      IsoDirectory& here = directory(DirectoryNo{entry_of(record)});
      here.parent = moved;
      here.record = record;
      here.is_relocated = true;
    }
    made_->relocated_count_ = place.record_count;
    return {};
  }

  /// Deeper than 8 levels, or with paths of more than 255 characters; as little as needed. A
  /// directory's number is always greater than its parent's.
  std::vector<DirectoryNo> find_deep_ones() const {
    struct Depth {
      std::uint16_t level;
      std::uint16_t path;
    };
    constexpr Depth kMoved{3, 8 + 1 + 31};
    std::vector<Depth> depths(made_->directories_.size(), Depth{1, 0});
    std::vector<DirectoryNo> deep;
    for (DirectoryNo no{1}; no.value() < made_->directories_.size(); ++no) {
      const IsoDirectory& here = directory(no);
      const Depth& parent = depths[here.parent.value()];
      std::size_t longest = 0;
      for (RecordNo record = here.first_record; record < here.record_end(); ++record) {
        const std::size_t length = made_->identifier(made_->item(no, record), record).size();
        longest = std::max(longest, length);
      }
      const std::size_t own = made_->identifier_of(no).size();
      const bool below_root = here.parent == kRootDirectory;
      Depth depth{static_cast<std::uint16_t>(parent.level + 1),
                  static_cast<std::uint16_t>(parent.path + (below_root ? 0 : 1) + own)};
      if (depth.level > kMostLevels || depth.path + 1 + longest > kMostPathCharacters) {
        depth = kMoved;
        deep.push_back(no);
      }
      depths[no.value()] = depth;
    }
    return deep;
  }

  /// That of the directory for relocated ones, in the root.
  RecordNo moved_record() const {
    const IsoDirectory& root = directory(kRootDirectory);
    const auto begin = made_->records_.begin() + root.first_record.value();
    const auto found = std::find(begin, begin + root.record_count, Hierarchy::kMovedEntry);
    return RecordNo{static_cast<std::uint32_t>(found - made_->records_.begin())};
  }

  void forget_moved_record() {
    const RecordNo gone = moved_record();
    const auto close = [&](RecordNo& record) {
      if (record > gone) record -= 1;
    };
    made_->records_.erase(made_->records_.begin() + gone.value());
    --directory(kRootDirectory).record_count;
    for (Hierarchy::NumberedRecord& tail : made_->tails_) close(tail.record);
    for (IsoDirectory& here : made_->directories_) {
      close(here.first_record);
      close(here.record);
    }
  }

  // Path tables.

  /// Numbers in the path tables: by level, then by the parent's number, then by identifier
  /// (ECMA-119, 6.9.1), which is breadth first in the order of records.
  Result<void> number() {
    std::vector<DirectoryNo>& by_number = made_->by_number_;
    by_number.reserve(made_->directories_.size());
    by_number.push_back(kRootDirectory);
    std::uint64_t bytes = 0;
    for (std::size_t i = 0; i < by_number.size(); ++i) {
      const DirectoryNo no = by_number[i];
      IsoDirectory& here = directory(no);
      here.path_number = static_cast<std::uint32_t>(i + 1);
      const std::size_t length = Hierarchy::path_record_bytes(made_->identifier_of(no));
      while (made_->path_positions_.size() * kBlockBytes < bytes + length) {
        made_->path_positions_.push_back({here.path_number, static_cast<std::uint32_t>(bytes)});
      }
      bytes += length;
      if (Result<void> good = number_children(no); !good) return good;
    }
    assert(by_number.size() == made_->directories_.size());
    made_->path_table_bytes_ = static_cast<std::uint32_t>(bytes);
    return {};
  }

  Result<void> number_children(DirectoryNo no) {
    const IsoDirectory& here = directory(no);
    for (RecordNo record = here.first_record; record < here.record_end(); ++record) {
      const Item item = made_->item(no, record);
      if (!item.is_directory() || item.is_placeholder) continue;
      if (here.path_number > kMostParentNumber) {
        return fail(Errc::does_not_fit,
                    fmt::format("/{} has directories, but is number {} of all; path tables of "
                                "ISO 9660 number {}",
                                made_->path(no), here.path_number, kMostParentNumber),
                    {{"fs", "ext4"}});
      }
      made_->by_number_.push_back(*item.directory);
    }
    return {};
  }

  // Sizes.

  /// Where the blocks of a directory begin, and those of its continuations.
  Result<void> measure(DirectoryNo no) {
    IsoDirectory& here = directory(no);
    const auto first = static_cast<std::uint32_t>(made_->positions_.size());
    here.first_position = first;
    continuations_.clear();
    std::uint64_t at = made_->dots_bytes(no);
    std::uint64_t area = 0;
    made_->positions_.push_back({here.first_record, 0, 0});
    for (RecordNo record = here.first_record; record < here.record_end(); ++record) {
      measure_record(no, record, at, area);
      if (at > kMostDirectoryBytes || area > kMostDirectoryBytes) {
        return fail(Errc::does_not_fit,
                    fmt::format("/{} has more names than the 4 GiB of an ISO 9660 directory hold",
                                made_->path(no)),
                    {{"fs", "ext4"}});
      }
    }
    here.blocks = static_cast<std::uint32_t>(made_->positions_.size()) - first;
    here.continuation_blocks = static_cast<std::uint32_t>(continuations_.size());
    made_->positions_.insert(made_->positions_.end(), continuations_.begin(), continuations_.end());
    return {};
  }

  /// `at` and `area`: the bytes of records and of continuations before it, then behind it.
  void measure_record(DirectoryNo no, RecordNo record, std::uint64_t& at, std::uint64_t& area) {
    const Item item = made_->item(no, record);
    const std::size_t identifier_bytes = made_->identifier(item, record).size();
    const std::uint32_t sections = made_->sections_of(item);
    for (std::uint32_t section = 0; section < sections; ++section) {
      const Hierarchy::Position here{record, section, static_cast<std::uint32_t>(area)};
      const auto measured = made_->measure(no, item, identifier_bytes, area, use_);
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
  }

  const SourceTree& tree_;
  std::unique_ptr<Hierarchy> made_;
  Namer namer_;
  const bool relocates_;
  SystemUse use_;
  std::vector<Hierarchy::Position> continuations_;
};

Result<std::unique_ptr<Hierarchy>> Hierarchy::make_primary(const SourceTree& tree, unsigned level,
                                                           DeepDirectories deep) {
  return HierarchyBuilder(tree, NameRules::primary(level), Kind::primary, deep).build();
}

Result<std::unique_ptr<Hierarchy>> Hierarchy::make_joliet(const SourceTree& tree,
                                                          std::size_t most_units,
                                                          JolietCharacters characters) {
  return HierarchyBuilder(tree, NameRules::joliet(most_units, characters), Kind::joliet,
                          DeepDirectories::keep)
      .build();
}

}  // namespace mkvirtfs::iso9660
