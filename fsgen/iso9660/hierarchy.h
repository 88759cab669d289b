// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "block/image.h"
#include "fsgen/iso9660/file_places.h"
#include "fsgen/iso9660/names.h"
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
/// files, and relocated directories stand in one that the source does not have. Built in steps by
/// plan(), immutable afterwards; refers to the tree.
class Hierarchy {
 public:
  struct Directory {
    std::uint32_t first_record = 0;
    std::uint32_t record_count = 0;
    std::uint32_t record = 0;  ///< its own, in the directory where it stands; the root: none
    std::uint32_t parent = 0;  ///< where it stands; the root's is its own
    std::uint32_t number = 0;  ///< in the path tables, from 1
    std::uint32_t subdirectories = 0;
    std::uint32_t block = 0;
    std::uint32_t first_position = 0;  ///< of its blocks, then of its continuation blocks
    std::uint32_t blocks = 0;
    std::uint32_t continuation_blocks = 0;
    bool is_relocated = false;
  };

  /// Names, orders and sizes everything. Errors: Errc::does_not_fit with the path and the limit.
  static Result<std::unique_ptr<Hierarchy>> make_primary(const SourceTree& tree, unsigned level,
                                                         DeepDirectories deep);
  static Result<std::unique_ptr<Hierarchy>> make_joliet(const SourceTree& tree,
                                                        std::size_t most_units);
  /// The directories get their blocks, from `first_block` on; Errc::does_not_fit when they run out.
  /// Returns the block behind the last.
  Result<std::uint32_t> place(std::uint32_t first_block);

  bool is_joliet() const noexcept { return is_joliet_; }
  std::span<const Directory> directories() const noexcept { return directories_; }
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
  std::uint32_t first_block() const noexcept { return directories_.front().block; }
  std::uint32_t end_block() const noexcept { return end_block_; }
  /// The directory that a block belongs to, with its continuations.
  std::uint32_t directory_at(std::uint32_t block) const noexcept;
  /// In the source's names, raw bytes; "" for the root.
  std::string path(std::uint32_t directory) const;
  /// The identifier of the regular file of that name in the root; empty if there is none.
  std::string identifier_in_root(std::string_view name) const;

  // All fill the whole of `out`, one block, and may run on any thread.

  /// Block `index` of a directory, counted over its records and then its continuations.
  void write_block(std::uint32_t directory, std::uint32_t index, const FilePlaces& files,
                   std::span<std::byte> out) const;
  void write_path_table(std::uint32_t index, bool big_endian, std::span<std::byte> out) const;
  /// The root's record as the volume descriptor has it: 34 bytes.
  void write_root_record(std::span<std::byte> out) const;

 private:
  friend class HierarchyBuilder;

  /// The record of the directory that relocated ones stand in.
  static constexpr std::uint32_t kMovedEntry = 0xFFFFFFFF;
  static constexpr std::uint32_t kNone = 0xFFFFFFFF;

  /// Where a block begins in the sequence of records: a record, which of its sections, and how much
  /// of the continuation area is in use before it.
  struct Position {
    std::uint32_t record;
    std::uint32_t section;
    std::uint32_t area_bytes;
  };
  struct NumberedRecord {
    std::uint32_t record;
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
    NodeNo no;                ///< which is its number for hard links, too
    std::uint32_t directory;  ///< kNone: it is none
    bool is_placeholder;      ///< a directory that stands elsewhere

    bool is_directory() const noexcept { return directory != kNone; }
  };

  Hierarchy(const SourceTree& tree, const NameRules& rules, bool is_joliet);

  Item item(std::uint32_t directory, std::uint32_t record) const noexcept;
  Tail tail_of(std::uint32_t record) const noexcept;
  Identifier identifier(const Item& item, std::uint32_t record) const noexcept;
  /// As a path table and a parent have it.
  Identifier identifier_of(std::uint32_t directory) const noexcept;
  NodeNo node_of(std::uint32_t directory) const noexcept;
  const Node& attributes_of(std::uint32_t directory) const noexcept;
  std::uint32_t links_of(const Item& item) const noexcept;
  /// The directory of which it is one for Rock Ridge.
  std::uint32_t true_parent(std::uint32_t directory) const noexcept;
  bool is_moved_directory(std::uint32_t directory) const noexcept {
    return directory == tree_.directories().size();
  }

  void order_by_block();
  std::uint32_t sections_of(const Item& item) const noexcept;
  void fill(SystemUse& use, std::uint32_t directory, const Item& item) const noexcept;
  void fill_dot(SystemUse& use, std::uint32_t directory, bool parent) const noexcept;
  std::size_t dots_bytes(std::uint32_t directory) const noexcept;
  void write_dots(std::uint32_t directory, std::span<std::byte> out) const noexcept;
  struct Measured {
    std::size_t record_bytes;
    std::uint64_t area_bytes;  // after it
  };
  /// The record's size; fills and divides `use` when there are continuations.
  Measured measure(std::uint32_t directory, const Item& item, std::size_t identifier_bytes,
                   std::uint64_t area_bytes, SystemUse& use) const noexcept;
  void write_records(std::uint32_t directory, std::uint32_t index, const FilePlaces& files,
                     std::span<std::byte> out) const;
  void write_continuations(std::uint32_t directory, std::uint32_t index,
                           std::span<std::byte> out) const;

  const SourceTree& tree_;
  NameRules rules_;
  bool is_joliet_;
  Node moved_node_;
  std::vector<Directory> directories_;  // by the tree's numbers, then that of relocated ones
  std::vector<std::uint32_t> records_;  // entries of the tree's directory, in the order of records
  std::vector<NumberedRecord> tails_;   // sorted by record
  std::vector<Position> positions_;
  std::vector<std::uint32_t> by_number_;  // directories as the path tables have them
  std::vector<std::uint32_t> by_block_;   // directories as they stand in the volume
  std::vector<PathPosition> path_positions_;
  std::uint32_t path_table_bytes_ = 0;
  std::uint32_t relocated_count_ = 0;
  std::uint64_t left_out_count_ = 0;
  std::uint64_t left_out_symlink_count_ = 0;
  std::uint64_t changed_name_count_ = 0;
  std::uint32_t end_block_ = 0;
};

}  // namespace mkvirtfs::iso9660
