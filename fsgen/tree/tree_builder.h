// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "block/content.h"
#include "fsgen/tree/source_tree.h"

namespace mkvirtfs {

/// A tree made in memory, with the bytes of its files.
struct BuiltTree {
  std::shared_ptr<const SourceTree> tree;
  std::shared_ptr<ContentStore> store;
};

/// Makes SourceTrees for tests and recipes. Entries may come in any order; missing parents are made
/// as root-owned 0755 directories. The attribute calls apply to the entry that was added last; the
/// defaults are owner 0:0, 1970, and 0755, 0644 or (symlinks) 0777.
///
/// Paths are raw bytes below the root, without a leading '/'. A call that makes no sense (a path
/// twice, a parent that is a file, runs outside the size) is the caller's mistake and asserted;
/// parse() reports it instead.
///
///     BuiltTree built = TreeBuilder{}.file("etc/hostname", "box\n").mode(0600).symlink("a",
///     "b").build();
class TreeBuilder {
 public:
  TreeBuilder();

  TreeBuilder& directory(std::string_view path);
  TreeBuilder& file(std::string_view path, std::string_view bytes);
  /// A file of `size_bytes` whose bytes are a function of path and offset, never zero: big files
  /// cost no memory.
  TreeBuilder& patterned_file(std::string_view path, std::uint64_t size_bytes);
  /// The same with holes: data only in `data_runs`, which are sorted and do not touch.
  TreeBuilder& sparse_file(std::string_view path, std::uint64_t size_bytes,
                           std::vector<Range> data_runs);
  TreeBuilder& symlink(std::string_view path, std::string_view target);
  /// `existing` may be added later; it is no directory and no hard_link() itself.
  TreeBuilder& hard_link(std::string_view path, std::string_view existing);
  TreeBuilder& device(std::string_view path, char type /* 'b' or 'c' */, DeviceNumber number);
  TreeBuilder& fifo(std::string_view path);
  TreeBuilder& socket(std::string_view path);

  TreeBuilder& mode(std::uint16_t permissions);
  TreeBuilder& owner(std::uint32_t uid, std::uint32_t gid);
  TreeBuilder& mtime(Timestamp when);
  TreeBuilder& xattr(std::string name, std::string value);
  /// Bits of Node::unshown.
  TreeBuilder& unshown(std::uint8_t flags);
  /// SourceTree::lost_xattrs().
  TreeBuilder& lost_xattrs(std::string names);
  /// Back to the root's own attributes.
  TreeBuilder& root();

  /// The files at these paths stand first in the tree's data_order(), in this order. Not part of
  /// listings.
  TreeBuilder& data_order(std::vector<std::string> paths);

  BuiltTree build() const;

  /// Reads a recipe's listing: one entry a line, as described in tests/images/README.md.
  /// Errc::usage names the line.
  static Result<TreeBuilder> parse(std::string_view listing);

 private:
  friend class ListingReader;

  struct Item {
    std::uint16_t mode = 0;
    bool implied = false;    // made as a parent, not added yet
    bool hard_link = false;  // another name of what is at `target`
    std::uint32_t uid = 0;
    std::uint32_t gid = 0;
    Timestamp mtime;
    std::uint64_t size_bytes = 0;
    std::optional<std::string> bytes;  // else patterned
    std::optional<std::vector<Range>> data_runs;
    std::string target;
    DeviceNumber device;
    std::vector<Xattr> xattrs;
    std::uint8_t unshown = 0;
    std::string lost_xattrs;
  };

  // What speaks against it, in words that follow the path; nullopt when nothing does.
  std::optional<std::string> objection_to(std::string_view path, std::uint16_t mode) const;
  static std::optional<std::string> objection_to(const Item& item);
  std::optional<std::string> objection_to_hard_links() const;

  Item& add(std::string_view path, std::uint16_t mode);
  Item& last() { return items_.find(last_)->second; }

  std::map<std::string, Item, std::less<>> items_;  // "" is the root
  std::string last_;
  std::vector<std::string> data_order_;
};

}  // namespace mkvirtfs
