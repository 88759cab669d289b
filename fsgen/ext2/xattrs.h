// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fsgen/ext2/group_layout.h"
#include "fsgen/ext2/inode_numbers.h"
#include "fsgen/ext2/parameters.h"
#include "fsgen/tree/source_tree.h"
#include "support/error.h"

namespace mkvirtfs::ext2 {

/// Where each set of extended attributes is stored: in the inode behind its fields, in an attribute
/// block that inodes with the same set share, or split over both. With ea_inode, values that make a
/// set too big are files of their own, equal ones the same. POSIX ACLs are turned into ext's own
/// short form.
class Xattrs {
 public:
  /// Errors: Errc::does_not_fit naming a file whose attributes are too big; Errc::unsupported
  /// naming an attribute whose namespace ext does not have.
  static Result<Xattrs> make(const SourceTree& tree, const Parameters& parameters,
                             const InodeNumbers& numbers);

  /// The bytes behind the inode's own fields, magic number first; empty when there are none.
  std::span<const std::byte> in_inode(XattrSetNo set) const noexcept { return sets_[set].in_inode; }
  bool has_block(XattrSetNo set) const noexcept { return !sets_[set].block.empty(); }
  /// A value that is a file.
  struct Value {
    std::string bytes;
    std::uint32_t hash = 0;
    std::uint64_t references = 0;  ///< from inodes and attribute blocks
  };
  std::span<const Value> values() const noexcept { return values_; }
  /// The first node that has one; nullopt: none has.
  std::optional<NodeNo> first_with_value() const noexcept { return first_with_value_; }
  /// How many values of a set are files, and their blocks: both count as those of each node.
  std::uint32_t value_count(XattrSetNo set) const noexcept { return sets_[set].value_count; }
  std::uint64_t value_blocks(XattrSetNo set) const noexcept { return sets_[set].value_blocks; }

  /// How many attribute blocks all sets need together.
  std::uint32_t block_count() const noexcept { return block_count_; }
  /// Which of the attribute blocks a node of a set with a block refers to.
  std::uint32_t block_of(NodeNo node, XattrSetNo set) const noexcept;
  /// Fills attribute block `index`, which lies at `block`.
  void write_block(std::uint32_t index, BlockNo block, const Parameters& parameters,
                   std::span<std::byte> out) const;

 private:
  class Maker;
  struct Set {
    std::vector<std::byte> in_inode;
    std::vector<std::byte> block;  // without reference count and checksum
    std::vector<NodeNo> users;     // sorted; only for sets with a block
    std::uint32_t first_block = 0;
    std::uint32_t value_count = 0;
    std::uint64_t value_blocks = 0;
  };

  std::vector<Set> sets_;
  std::vector<XattrSetNo> set_of_block_;
  std::vector<Value> values_;
  std::optional<NodeNo> first_with_value_;
  std::uint32_t block_count_ = 0;
};

}  // namespace mkvirtfs::ext2
