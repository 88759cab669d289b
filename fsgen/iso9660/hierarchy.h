// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "block/image.h"
#include "fsgen/iso9660/file_area.h"
#include "fsgen/iso9660/names.h"
#include "fsgen/iso9660/numbers.h"
#include "fsgen/iso9660/plan.h"
#include "fsgen/iso9660/system_use.h"
#include "fsgen/tree/source_tree.h"
#include "support/error.h"

namespace mkvirtfs::iso9660 {

/// One of a volume's two trees of directories: the primary one with Rock Ridge, or that of Joliet.
///
/// Keeps the order of the records, where each block of a directory begins in it, and which blocks
/// the directories have; records and path tables are made of that and the tree when they are read.
/// Differs from the tree in what stands in it: Joliet leaves out all but directories and regular
/// files, and relocated directories stand in one that the source does not have. Made by a
/// HierarchyBuilder and placed by plan(), immutable afterwards; refers to the tree. Directories
/// have the tree's numbers; the one that relocated directories stand in comes behind them.
class Hierarchy {
 public:
  enum class Kind : std::uint8_t { primary, joliet };

  struct IsoDirectory {
    RecordNo first_record;
    std::uint32_t record_count = 0;
    RecordNo record;                ///< its own, in the directory where it stands; the root: none
    DirectoryNo parent;             ///< where it stands; the root's is its own
    std::uint32_t path_number = 0;  ///< in the path tables, from 1
    std::uint32_t subdirectories = 0;
    BlockNo block;
    std::uint32_t first_position = 0;  ///< of its blocks, then of its continuation blocks
    std::uint32_t blocks = 0;
    std::uint32_t continuation_blocks = 0;
    bool is_relocated = false;

    RecordNo record_end() const noexcept { return first_record + record_count; }
    /// Behind its records, where its continuations begin.
    BlockNo continuations() const noexcept { return block + blocks; }
    BlockNo end() const noexcept { return continuations() + continuation_blocks; }
  };

  /// Names, orders and sizes everything. Errors: Errc::does_not_fit with the path and the limit.
  static Result<std::unique_ptr<Hierarchy>> make_primary(const SourceTree& tree, unsigned level,
                                                         DeepDirectories deep);
  static Result<std::unique_ptr<Hierarchy>> make_joliet(const SourceTree& tree,
                                                        std::size_t most_units,
                                                        JolietCharacters characters);
  /// The directories get their blocks, from `first_block` on; Errc::does_not_fit when they run out.
  /// Returns the block behind the last.
  Result<BlockNo> place(BlockNo first_block);

  Kind kind() const noexcept { return kind_; }
  bool is_joliet() const noexcept { return kind_ == Kind::joliet; }
  /// By their numbers.
  std::span<const IsoDirectory> directories() const noexcept { return directories_; }
  const IsoDirectory& directory(DirectoryNo no) const noexcept { return directories_[no.value()]; }
  std::uint64_t record_count() const noexcept { return records_.size(); }
  std::uint64_t renamed_count() const noexcept { return tails_.size(); }
  std::uint32_t relocated_count() const noexcept { return relocated_count_; }
  std::uint64_t left_out_count() const noexcept { return left_out_count_; }
  std::uint64_t left_out_symlink_count() const noexcept { return left_out_symlink_count_; }
  /// Of Joliet's names that are not the source's: cut, numbered, or with characters replaced.
  std::uint64_t changed_name_count() const noexcept { return changed_name_count_; }
  /// Those names, and what is left out; false when the sink wants no more. For Joliet.
  bool differences(DifferenceSink& sink) const;
  std::uint32_t path_table_bytes() const noexcept { return path_table_bytes_; }
  BlockNo end_block() const noexcept { return end_block_; }
  /// The directory that a block belongs to, with its continuations.
  DirectoryNo directory_at(BlockNo block) const noexcept;
  /// In the source's names, raw bytes; "" for the root.
  std::string path(DirectoryNo directory) const;
  /// The identifier of the regular file of that name in the root; empty if there is none.
  std::string identifier_in_root(std::string_view name) const;

  // All fill the whole of `out`, one block, and may run on any thread.

  /// Block `index` of a directory, counted over its records and then its continuations.
  void write_block(DirectoryNo directory, std::uint32_t index, const FileArea& files,
                   std::span<std::byte> out) const;
  void write_path_table(std::uint32_t index, std::endian order, std::span<std::byte> out) const;
  /// The root's record as the volume descriptor has it: 34 bytes.
  void write_root_record(std::span<std::byte> out) const;

 private:
  friend class HierarchyBuilder;

  /// The record of the directory that relocated ones stand in.
  static constexpr std::uint32_t kMovedEntry = 0xFFFFFFFF;
  static constexpr std::string_view kMovedName = "rr_moved";

  /// Where a block begins in the sequence of records: a record, which of its sections, and how much
  /// of the continuation area is in use before it.
  struct Position {
    RecordNo record;
    std::uint32_t section;
    std::uint32_t area_bytes;
  };
  struct NumberedRecord {
    RecordNo record;
    Tail tail;
  };
  struct PathPosition {
    std::uint32_t number;  // of the directory whose record reaches into the block, from 1
    std::uint32_t offset;  // of that record in the table
  };
  /// What a record shows.
  struct Item {
    std::string_view name;
    const Node* node;
    NodeNo no;  ///< which is its number for hard links, too
    std::optional<DirectoryNo> directory{};
    bool is_placeholder = false;  ///< a directory that stands elsewhere

    bool is_directory() const noexcept { return directory.has_value(); }
    NameOf of() const noexcept { return is_directory() ? NameOf::directory : NameOf::file; }
  };
  /// The first two records of a directory.
  enum class Dot : std::uint8_t { self, parent };

  Hierarchy(const SourceTree& tree, const NameRules& rules, Kind kind);

  Item item(DirectoryNo directory, RecordNo record) const noexcept;
  Tail tail_of(RecordNo record) const noexcept;
  Identifier identifier(const Item& item, RecordNo record) const noexcept;
  /// Of a record of a path table.
  static std::size_t path_record_bytes(const Identifier& identifier) noexcept;
  /// As a path table and a parent have it.
  Identifier identifier_of(DirectoryNo directory) const noexcept;
  NodeNo node_of(DirectoryNo directory) const noexcept;
  const Node& attributes_of(DirectoryNo directory) const noexcept;
  std::uint32_t links_of(const Item& item) const noexcept;
  /// The directory of which it is one for Rock Ridge.
  DirectoryNo true_parent(DirectoryNo directory) const noexcept;
  /// The directory that relocated ones stand in; behind all others, if there is one.
  DirectoryNo moved_directory() const noexcept {
    return DirectoryNo{static_cast<std::uint32_t>(tree_.directories().size())};
  }
  /// Whether an item of a directory is relocated, or where relocated ones stand.
  bool is_marked_relocated(DirectoryNo directory, const Item& item) const noexcept {
    return item.is_directory() &&
           (*item.directory == moved_directory() || directory == moved_directory());
  }
  bool list_left_out(DirectoryNo directory, DifferenceSink& sink) const;
  bool list_changed_names(DirectoryNo directory, DifferenceSink& sink) const;

  void order_by_block();
  std::uint32_t sections_of(const Item& item) const noexcept;
  void fill(SystemUse& use, DirectoryNo directory, const Item& item) const noexcept;
  void fill_dot(SystemUse& use, DirectoryNo directory, Dot dot) const noexcept;
  std::size_t dots_bytes(DirectoryNo directory) const noexcept;
  void write_dots(DirectoryNo directory, std::span<std::byte> out) const noexcept;
  struct Measured {
    std::size_t record_bytes;
    std::uint64_t area_bytes;  // after it
  };
  /// The record's size; fills and divides `use` when there are continuations.
  Measured measure(DirectoryNo directory, const Item& item, std::size_t identifier_bytes,
                   std::uint64_t area_bytes, SystemUse& use) const noexcept;
  /// The size of the system use entries, where they are few and fit; nullopt: make them.
  std::optional<std::size_t> plain_use_bytes(DirectoryNo directory, const Item& item,
                                             std::size_t capacity) const noexcept;
  void write_records(DirectoryNo directory, std::uint32_t index, const FileArea& files,
                     std::span<std::byte> out) const;
  void write_continuations(DirectoryNo directory, std::uint32_t index,
                           std::span<std::byte> out) const;

  const SourceTree& tree_;
  NameRules rules_;
  Kind kind_;
  Node moved_node_;
  std::vector<IsoDirectory> directories_;  // by DirectoryNo
  // By RecordNo: which entry of its directory in the tree it shows; in the directory that relocated
  // ones stand in, the number of a directory.
  std::vector<std::uint32_t> records_;
  std::vector<NumberedRecord> tails_;  // sorted by record
  std::vector<Position> positions_;
  std::vector<DirectoryNo> by_number_;  // as the path tables have them
  std::vector<DirectoryNo> by_block_;   // as they stand in the volume
  std::vector<PathPosition> path_positions_;
  std::uint32_t path_table_bytes_ = 0;
  std::uint32_t relocated_count_ = 0;
  std::uint64_t left_out_count_ = 0;
  std::uint64_t left_out_symlink_count_ = 0;
  std::uint64_t changed_name_count_ = 0;
  BlockNo end_block_;
};

}  // namespace mkvirtfs::iso9660
