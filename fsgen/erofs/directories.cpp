// SPDX-License-Identifier: BSD-3-Clause
//
// A block has its entries in front and their names behind them, in the same order. Entries go into
// a block until one does not fit, so where blocks begin is one pass over the names; it is kept, and
// a block is made of the names when it is read. A name's length follows from where the next one
// begins, and that of a block's last one from the zeroes behind it.
#include "fsgen/erofs/directories.h"

#include <algorithm>
#include <cassert>
#include <span>
#include <string_view>

#include "support/arithmetic.h"

namespace mkvirtfs::erofs {
namespace {

constexpr std::string_view kSelf = ".";
constexpr std::string_view kParent = "..";

/// Types of files, as entries have them.
std::uint8_t type_of(const Node& node) {
  switch (node.mode & S_IFMT) {
    case S_IFREG:
      return 1;
    case S_IFDIR:
      return 2;
    case S_IFCHR:
      return 3;
    case S_IFBLK:
      return 4;
    case S_IFIFO:
      return 5;
    case S_IFSOCK:
      return 6;
    default:
      assert(S_ISLNK(node.mode));
      return 7;
  }
}

/// The entries of a directory with `.` and `..` among them, in the order of their bytes.
class AllEntries {
 public:
  AllEntries(const SourceTree& tree, DirectoryNo no)
      : tree_(tree), directory_(tree.directory(no)), entries_(tree.entries(directory_)) {
    const auto before = [&](std::string_view name) {
      const auto at = std::ranges::lower_bound(
          entries_, name, {}, [&](Entry entry) { return tree_.name(directory_, entry); });
      return static_cast<std::uint32_t>(at - entries_.begin());
    };
    self_ = before(kSelf);
    parent_ = before(kParent) + 1;
  }

  std::uint32_t count() const noexcept { return static_cast<std::uint32_t>(entries_.size()) + 2; }
  std::string_view name(std::uint32_t index) const noexcept {
    if (index == self_) return kSelf;
    if (index == parent_) return kParent;
    return tree_.name(directory_, entry(index));
  }
  NodeNo node(std::uint32_t index) const noexcept {
    if (index == self_) return directory_.node;
    if (index == parent_) return tree_.parent_of(directory_.node).node;
    return entry(index).node;
  }

 private:
  Entry entry(std::uint32_t index) const noexcept {
    return entries_[index - (index > self_ ? 1 : 0) - (index > parent_ ? 1 : 0)];
  }

  const SourceTree& tree_;
  const Directory& directory_;
  std::span<const Entry> entries_;
  std::uint32_t self_ = 0;
  std::uint32_t parent_ = 0;
};

std::uint32_t entry_bytes(std::string_view name) {
  return kDirentBytes + static_cast<std::uint32_t>(name.size());
}

}  // namespace

Directories::Directories(const SourceTree& tree, std::uint32_t block_bytes)
    : block_bytes_(block_bytes) {
  directories_.reserve(tree.directories().size());
  blocks_.reserve(tree.directories().size());
  for (DirectoryNo no; no < tree.directories().size(); ++no) {
    const AllEntries entries(tree, no);
    directories_.push_back({.first_block = static_cast<std::uint32_t>(blocks_.size())});
    blocks_.push_back(0);
    std::uint32_t used = 0;
    for (std::uint32_t index = 0; index < entries.count(); ++index) {
      const std::uint32_t bytes = entry_bytes(entries.name(index));
      if (used + bytes > block_bytes) {
        blocks_.push_back(index);
        used = 0;
      }
      used += bytes;
    }
    directories_.back().last_bytes = used;
    if (no != kRootDirectory) {
      ++directories_[tree.node(tree.directory(no).node).parent].subdirectories;
    }
  }
}

void Directories::write_block(const SourceTree& tree, DirectoryNo no, std::uint32_t index,
                              std::uint64_t at, const Inodes& inodes, Window& out) const {
  const AllEntries entries(tree, no);
  const std::uint32_t block = directories_[no].first_block + index;
  const std::uint32_t begin = blocks_[block];
  const std::uint32_t end = index + 1 < block_count(no) ? blocks_[block + 1] : entries.count();
  std::uint32_t name_at = (end - begin) * kDirentBytes;
  for (std::uint32_t each = begin; each < end; ++each) {
    const std::uint64_t entry_at = at + std::uint64_t{each - begin} * kDirentBytes;
    const std::string_view name = entries.name(each);
    const NodeNo node = entries.node(each);
    out.put(entry_at, std::uint64_t{inodes.slot_of(node).value()});
    out.put(entry_at + 8, narrow<std::uint16_t>(name_at));
    out.put(entry_at + 10, type_of(tree.node(node)));
    out.put(at + name_at, name);
    name_at += static_cast<std::uint32_t>(name.size());
  }
}

}  // namespace mkvirtfs::erofs
