// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <vector>

#include "fsgen/erofs/numbers.h"
#include "fsgen/erofs/window.h"
#include "fsgen/tree/source_tree.h"

namespace mkvirtfs::erofs {

/// Which entry of each directory begins which of its blocks. An entry and its name stand in one
/// block; `.` and `..` are entries among the others, in the order of the bytes. Keeps 12 bytes a
/// directory and 4 a block, and how many directories each one holds. Immutable.
class Directories {
 public:
  Directories(const SourceTree& tree, std::uint32_t block_bytes);

  /// The bytes of all its blocks; the last one ends with its last name.
  std::uint64_t size_bytes(DirectoryNo no) const noexcept {
    return std::uint64_t{block_count(no) - 1} * block_bytes_ + directories_[no].last_bytes;
  }
  std::uint32_t block_count(DirectoryNo no) const noexcept {
    const std::uint32_t end = no + 1 < directories_.size()
                                  ? directories_[no + 1].first_block
                                  : static_cast<std::uint32_t>(blocks_.size());
    return end - directories_[no].first_block;
  }

  /// Its own entry, its parent's, and those of the directories in it.
  std::uint32_t link_count(DirectoryNo no) const noexcept {
    return 2 + directories_[no].subdirectories;
  }

  /// Leads from a node to its inode.
  class Inodes {
   public:
    virtual SlotNo slot_of(NodeNo no) const noexcept = 0;

   protected:
    ~Inodes() = default;
  };
  /// Block `index` of a directory, which stands at `at`.
  void write_block(const SourceTree& tree, DirectoryNo no, std::uint32_t index, std::uint64_t at,
                   const Inodes& inodes, Window& out) const;

 private:
  struct Blocks {
    std::uint32_t first_block = 0;  // in blocks_
    std::uint32_t last_bytes = 0;   // of the last one
    std::uint32_t subdirectories = 0;
  };

  std::uint32_t block_bytes_;
  std::vector<Blocks> directories_;
  std::vector<std::uint32_t> blocks_;  // the first entry of each
};

}  // namespace mkvirtfs::erofs
