// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sys/stat.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "block/extent.h"
#include "fsgen/tree/xattr_pool.h"
#include "support/strong_integer.h"

namespace mkvirtfs {

/// A node's number in its SourceTree; 0 is the root.
struct NodeNoTag;
using NodeNo = StrongInteger<NodeNoTag>;
inline constexpr NodeNo kRootNode{0};

/// A directory's number in its SourceTree; 0 is the root.
struct DirectoryNoTag;
using DirectoryNo = StrongInteger<DirectoryNoTag>;
inline constexpr DirectoryNo kRootDirectory{0};

/// The bytes of a node have its number in the tree's ContentStore.
constexpr ContentNo content_no(NodeNo node) noexcept { return ContentNo{node.value()}; }
constexpr NodeNo node_no(ContentNo content) noexcept {
  return NodeNo{static_cast<std::uint32_t>(content)};
}

/// A moment, as the source has it: seconds since 1970 (negative before) and 0..999999999
/// nanoseconds.
struct Timestamp {
  std::int64_t seconds = 0;
  std::uint32_t nanoseconds = 0;

  friend auto operator<=>(const Timestamp&, const Timestamp&) = default;
};

/// Device numbers of a character or block device node.
struct DeviceNumber {
  std::uint32_t major = 0;
  std::uint32_t minor = 0;

  friend bool operator==(const DeviceNumber&, const DeviceNumber&) = default;
};

/// What a source has of a node and no image shows, as bits of Node::unshown; it is only listed.
namespace unshown {
inline constexpr std::uint8_t kImmutable = 1;   ///< chattr +i
inline constexpr std::uint8_t kAppendOnly = 2;  ///< chattr +a
inline constexpr std::uint8_t kNoDump = 4;      ///< chattr +d
inline constexpr std::uint8_t kCompressed = 8;  ///< chattr +c
inline constexpr std::uint8_t kXattrs = 16;     ///< SourceTree::lost_xattrs() names them
}  // namespace unshown

/// One inode of the source: what `stat` reports, compact (a tree of 1M files must cost tens of
/// megabytes). Names stand in the directories' entries; hard links are several entries with one
/// node.
struct Node {
  std::uint64_t size_bytes = 0;  ///< regular file: bytes; symlink: length of the target; else 0
  std::int64_t mtime_s = 0;
  std::uint32_t mtime_ns = 0;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  XattrSetNo xattrs = 0;
  std::uint32_t link_count = 1;  ///< entries in this tree that name the node; directories: always 1
  DirectoryNo parent{};          ///< holds its first entry
  std::uint32_t entry =
      0;  ///< the first entry in that directory, counted from the directory's start
  std::uint32_t payload =
      0;                   ///< SourceTree's own: directory index, target, device number, data runs
  std::uint16_t mode = 0;  ///< type and permission bits, as st_mode
  std::uint8_t unshown = 0;  ///< not part of the tree's id: no image differs by it

  Timestamp mtime() const noexcept { return {mtime_s, mtime_ns}; }
  bool is_directory() const noexcept { return S_ISDIR(mode); }
  bool is_regular() const noexcept { return S_ISREG(mode); }
  bool is_symlink() const noexcept { return S_ISLNK(mode); }
  bool is_device() const noexcept { return S_ISCHR(mode) || S_ISBLK(mode); }
};
static_assert(sizeof(Node) == 56);

/// A named child of a directory. The name is asked of the tree.
struct Entry {
  std::uint32_t name_at = 0;  ///< in the directory's stretch of the name store
  NodeNo node{};
};

/// One directory: its node, and its children sorted by the bytes of their names.
struct Directory {
  std::uint64_t names_at = 0;  ///< start of its stretch in the name store
  NodeNo node{};
  std::uint32_t first_entry = 0;
  std::uint32_t entry_count = 0;
};

/// A SHA-256 over everything an image can show of a tree but the files' bytes.
using TreeId = std::array<std::byte, 32>;

/// The frozen source: a compact index of names and metadata, made by a scan, an archive reader or a
/// test.
///
/// Numbering is a function of the names alone: node 0 is the root; the children of one directory
/// are numbered consecutively in name order (a hard link keeps the number of its first name),
/// directory after directory in breadth-first order. Immutable after TreeAssembler::finish(), so
/// any thread may read.
class SourceTree {
 public:
  std::uint32_t node_count() const noexcept { return static_cast<std::uint32_t>(nodes_.size()); }
  const Node& node(NodeNo no) const noexcept { return nodes_[no]; }
  std::span<const Node> nodes() const noexcept { return nodes_; }
  NodeNo number_of(const Node& node) const noexcept {
    return NodeNo{static_cast<std::uint32_t>(&node - nodes_.data())};
  }

  /// Directories in numbering order; directory 0 is the root.
  std::span<const Directory> directories() const noexcept { return directories_; }
  const Directory& directory(DirectoryNo no) const noexcept { return directories_[no]; }
  /// Of a node that is a directory.
  DirectoryNo directory_no(NodeNo no) const noexcept { return DirectoryNo{nodes_[no].payload}; }
  /// The directory that holds a node's first entry; the root is its own parent.
  const Directory& parent_of(NodeNo no) const noexcept { return directories_[nodes_[no].parent]; }

  std::span<const Entry> entries(const Directory& directory) const noexcept {
    return std::span(entries_).subspan(directory.first_entry, directory.entry_count);
  }
  /// Raw bytes, 1..255 of them, never '/' or NUL, never "." or "..".
  std::string_view name(const Directory& directory, Entry entry) const noexcept {
    const char* at = names_.data() + directory.names_at + entry.name_at;
    return {at + 1, static_cast<unsigned char>(*at)};
  }
  /// The entry of that name, nullptr if there is none: a binary search.
  const Entry* find(const Directory& directory, std::string_view name) const noexcept;
  /// The node at a '/'-separated path below the root ("" is the root), or nullptr.
  const Node* find_path(std::string_view path) const noexcept;

  /// The first path of a node below the root, raw bytes; "" for the root.
  std::string path(NodeNo no) const;
  std::string_view symlink_target(NodeNo no) const noexcept;
  DeviceNumber device_number(NodeNo no) const noexcept;
  /// Where a regular file has data, sorted, disjoint and not touching; everything else of it is a
  /// hole. A file without holes has the one run [0, size), which is not stored: hence by value
  /// through `dense`.
  std::span<const Range> data_runs(NodeNo no, Range& dense) const noexcept;
  bool is_sparse(NodeNo no) const noexcept {
    return nodes_[no].is_regular() && nodes_[no].payload != 0;
  }

  /// The regular files with bytes in the order in which planners lay out their data, each once; or
  /// nothing at all, when that is numbering order. An archive says here in which order it is read
  /// best. Not part of the id: it says nothing of what the tree is.
  std::span<const NodeNo> data_order() const noexcept { return data_order_; }

  std::size_t xattr_set_count() const noexcept { return xattr_sets_.size(); }
  /// Sorted by name.
  std::span<const Xattr> xattrs(XattrSetNo set) const noexcept { return xattr_sets_[set]; }

  /// How many nodes lose something that is only listed.
  struct UnshownCounts {
    std::uint64_t flagged = 0;      ///< chattr flags
    std::uint64_t lost_xattrs = 0;  ///< extended attributes

    friend bool operator==(const UnshownCounts&, const UnshownCounts&) = default;
  };
  const UnshownCounts& unshown_counts() const noexcept { return unshown_counts_; }
  /// The names of the extended attributes that were left out of `xattrs`, because no Linux file
  /// system can have them: "com.apple.quarantine, system.nfs4_acl"; mostly empty.
  std::string_view lost_xattrs(NodeNo no) const noexcept;

  /// Computed on each call (tens of milliseconds a million nodes): ask once.
  TreeId id() const;
  /// The newest mtime of any node; 1970 for an empty tree.
  Timestamp newest_mtime() const noexcept;

 private:
  friend class TreeAssembler;

  std::vector<Node> nodes_;
  std::vector<Directory> directories_;
  std::vector<Entry> entries_;
  std::vector<char> names_;    // each name behind its length byte
  std::vector<char> targets_;  // symlink targets, each behind 4 length bytes in host order
  std::vector<Range> runs_;
  std::vector<std::array<std::uint32_t, 2>>
      sparse_;                                  // payload -> first run, run count; 0 is unused
  std::vector<std::vector<Xattr>> xattr_sets_;  // 0 is the empty set
  std::vector<NodeNo> data_order_;
  UnshownCounts unshown_counts_;
  std::vector<std::pair<NodeNo, std::uint32_t>> lost_xattrs_;  // node -> number of its names
  std::vector<std::string> lost_names_;
};

/// The metadata of a node that is about to be added.
struct NewNode {
  std::uint16_t mode = 0;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  Timestamp mtime;
  std::uint64_t size_bytes = 0;      ///< regular files
  XattrSetNo xattrs = 0;             ///< from TreeAssembler::intern()
  std::string_view symlink_target;   ///< symlinks; up to 4095 bytes
  DeviceNumber device;               ///< devices
  bool sparse = false;               ///< regular files: only `data_runs` are data, else all of it
  std::span<const Range> data_runs;  ///< sorted, disjoint, inside the size
  std::uint8_t unshown = 0;          ///< unshown::kXattrs is set by `lost_xattrs`
  std::string_view lost_xattrs;      ///< see SourceTree::lost_xattrs()
};

/// Builds a SourceTree in its numbering order. The caller brings the directories' children sorted;
/// this class keeps the numbering and the counts. Not thread-safe.
///
///     TreeAssembler assembler(root);
///     for (DirectoryNo d; d < assembler.directory_count(); ++d) {
///       assembler.open_directory(d);               // d's children follow, sorted by name bytes
///       assembler.add("name", node);               // or add_link("name", earlier_node)
///     }
///     SourceTree tree = std::move(assembler).finish();
class TreeAssembler {
 public:
  /// The root's attributes are interned here: before there is an assembler there is no set number.
  explicit TreeAssembler(const NewNode& root, std::vector<Xattr> root_xattrs = {});

  /// Room for that many, so that nothing is moved while growing. The root counts.
  void reserve(std::size_t nodes, std::size_t entries, std::size_t directories,
               std::size_t name_bytes);
  /// Attributes in any order; sets that are equal share one number.
  XattrSetNo intern(std::vector<Xattr> set) { return xattrs_.intern(std::move(set)); }

  std::uint32_t directory_count() const noexcept {
    return static_cast<std::uint32_t>(tree_.directories_.size());
  }
  NodeNo directory_node(DirectoryNo directory) const noexcept {
    return tree_.directories_[directory].node;
  }
  void open_directory(DirectoryNo directory);
  NodeNo add(std::string_view name, const NewNode& node);
  void add_link(std::string_view name, NodeNo node);

  /// What data_order() is to be. Those that have no bytes are passed over, and so is a file that
  /// was named before; files that are not named follow in numbering order.
  void set_data_order(std::vector<NodeNo> order) { data_order_ = std::move(order); }

  SourceTree finish() &&;

 private:
  NodeNo append_node(const NewNode& node, DirectoryNo parent, std::uint32_t entry);
  void append_entry(std::string_view name, NodeNo node);
  void settle_data_order();
  void note_unshown(NodeNo no, const NewNode& from);

  SourceTree tree_;
  std::vector<NodeNo> data_order_;  // as it was given
  DirectoryNo open_;
  XattrPool xattrs_;
  std::map<std::string, std::uint32_t, std::less<>> lost_names_;
};

}  // namespace mkvirtfs
