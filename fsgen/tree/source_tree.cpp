// SPDX-License-Identifier: BSD-3-Clause
// A tree is a few arrays: nodes, directories, entries, one store of names and one of symlink
// targets. Lookups are binary searches over a directory's entries. The id is a SHA-256 over a
// canonical form of all of it.
#include "fsgen/tree/source_tree.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "support/arithmetic.h"
#include "support/byte_order.h"
#include "support/sha256.h"

namespace mkvirtfs {
namespace {

constexpr std::uint32_t kMinorBits = 20;  // as the kernel packs dev_t: 12 bits major, 20 bits minor

/// Feeds numbers and length-prefixed strings to a digest, little-endian, so that the id is the same
/// anywhere.
class Canonical {
 public:
  explicit Canonical(Sha256& digest) : digest_(digest), buffer_(kBufferBytes) {}
  ~Canonical() { flush(); }
  Canonical(const Canonical&) = delete;
  Canonical& operator=(const Canonical&) = delete;

  template <std::unsigned_integral T>
  void number(T value) {
    value = to_le(value);
    append(&value, sizeof value);
  }
  void text(std::string_view bytes) {
    number(static_cast<std::uint32_t>(bytes.size()));
    append(bytes.data(), bytes.size());
  }

 private:
  static constexpr std::size_t kBufferBytes = 1 << 16;

  // Numbers come by the million: a vector's insert() would take longer than the hash.
  void append(const void* bytes, std::size_t size) {
    if (size > buffer_.size() - used_) flush();
    if (size > buffer_.size()) {
      digest_.update({static_cast<const std::byte*>(bytes), size});
    } else if (size != 0) {
      std::memcpy(buffer_.data() + used_, bytes, size);
      used_ += size;
    }
  }
  void flush() {
    digest_.update(std::span(buffer_).first(used_));
    used_ = 0;
  }

  Sha256& digest_;
  std::vector<std::byte> buffer_;
  std::size_t used_ = 0;
};

}  // namespace

const Entry* SourceTree::find(const Directory& directory, std::string_view wanted) const noexcept {
  const std::span<const Entry> all = entries(directory);
  const auto at = std::ranges::lower_bound(all, wanted, {},
                                           [&](Entry entry) { return name(directory, entry); });
  return at != all.end() && name(directory, *at) == wanted ? &*at : nullptr;
}

const Node* SourceTree::find_path(std::string_view path) const noexcept {
  NodeNo at = kRootNode;
  while (!path.empty()) {
    const std::size_t slash = path.find('/');
    const std::string_view component = path.substr(0, slash);
    path = slash == std::string_view::npos ? std::string_view{} : path.substr(slash + 1);
    if (component.empty()) continue;
    if (!nodes_[at].is_directory()) return nullptr;
    const Entry* entry = find(directories_[directory_no(at)], component);
    if (entry == nullptr) return nullptr;
    at = entry->node;
  }
  return &nodes_[at];
}

std::string SourceTree::path(NodeNo no) const {
  std::vector<std::string_view> components;
  while (no != kRootNode) {
    const Directory& directory = parent_of(no);
    components.push_back(name(directory, entries(directory)[nodes_[no].entry]));
    no = directory.node;
  }
  std::string path;
  for (auto component = components.rbegin(); component != components.rend(); ++component) {
    if (!path.empty()) path += '/';
    path += *component;
  }
  return path;
}

std::string_view SourceTree::symlink_target(NodeNo no) const noexcept {
  std::uint32_t length;
  const char* at = targets_.data() + nodes_[no].payload;
  std::memcpy(&length, at, sizeof length);
  return {at + sizeof length, length};
}

DeviceNumber SourceTree::device_number(NodeNo no) const noexcept {
  const std::uint32_t packed = nodes_[no].payload;
  return {packed >> kMinorBits, packed & ((1u << kMinorBits) - 1)};
}

std::string_view SourceTree::lost_xattrs(NodeNo no) const noexcept {
  if ((nodes_[no].unshown & unshown::kXattrs) == 0) return {};
  const auto at =
      std::ranges::lower_bound(lost_xattrs_, no, {}, &std::pair<NodeNo, std::uint32_t>::first);
  return lost_names_[at->second];
}

std::span<const Range> SourceTree::data_runs(NodeNo no, Range& dense) const noexcept {
  const Node& node = nodes_[no];
  if (!is_sparse(no)) {
    dense = {0, node.size_bytes};
    return std::span(&dense, node.size_bytes == 0 ? 0 : 1);
  }
  const auto [first, count] = sparse_[node.payload];
  return std::span(runs_).subspan(first, count);
}

TreeId SourceTree::id() const {
  Sha256 digest;
  {
    Canonical out(digest);
    out.text("mkvirtfs tree 1");
    for (const std::vector<Xattr>& set : xattr_sets_) {
      out.number(static_cast<std::uint32_t>(set.size()));
      for (const Xattr& xattr : set) {
        out.text(xattr.name);
        out.text(xattr.value);
      }
    }
    for (NodeNo no; no < node_count(); ++no) {
      const Node& node = nodes_[no];
      out.number(node.mode);
      out.number(node.uid);
      out.number(node.gid);
      out.number(static_cast<std::uint64_t>(node.mtime_s));
      out.number(node.mtime_ns);
      out.number(node.size_bytes);
      out.number(node.xattrs);
      if (node.is_symlink()) out.text(symlink_target(no));
      if (node.is_device()) out.number(node.payload);
      if (is_sparse(no)) {
        Range dense;
        const auto runs = data_runs(no, dense);
        out.number(static_cast<std::uint64_t>(runs.size()));
        for (const Range& run : runs) {
          out.number(run.offset);
          out.number(run.length);
        }
      }
    }
    for (const Directory& directory : directories_) {
      out.number(directory.node.value());
      out.number(directory.entry_count);
      for (const Entry entry : entries(directory)) {
        out.number(entry.node.value());
        out.text(name(directory, entry));
      }
    }
  }
  return digest.finish();
}

Timestamp SourceTree::newest_mtime() const noexcept {
  Timestamp newest;
  for (const Node& node : nodes_) newest = std::max(newest, node.mtime());
  return newest;
}

TreeAssembler::TreeAssembler(const NewNode& root, std::vector<Xattr> root_xattrs) {
  assert(S_ISDIR(root.mode) && root.xattrs == 0);
  tree_.sparse_.push_back({0, 0});
  append_node(root, kRootDirectory, 0);
  tree_.nodes_.front().xattrs = intern(std::move(root_xattrs));
}

void TreeAssembler::reserve(std::size_t nodes, std::size_t entries, std::size_t directories,
                            std::size_t name_bytes) {
  tree_.nodes_.reserve(nodes);
  tree_.entries_.reserve(entries);
  tree_.directories_.reserve(directories);
  tree_.names_.reserve(name_bytes + entries);
}

void TreeAssembler::open_directory(DirectoryNo directory) {
  assert(directory < directory_count() && (directory == 0 || directory == open_ + 1));
  open_ = directory;
  Directory& opened = tree_.directories_[directory];
  opened.names_at = tree_.names_.size();
  opened.first_entry = narrow<std::uint32_t>(tree_.entries_.size());
}

void TreeAssembler::append_entry(std::string_view name, NodeNo node) {
  Directory& directory = tree_.directories_[open_];
  assert(!name.empty() && name.size() <= 255);
  assert(directory.entry_count == 0 || tree_.name(directory, tree_.entries_.back()) < name);
  tree_.entries_.push_back({narrow<std::uint32_t>(tree_.names_.size() - directory.names_at), node});
  tree_.names_.push_back(static_cast<char>(static_cast<unsigned char>(name.size())));
  tree_.names_.insert(tree_.names_.end(), name.begin(), name.end());
  ++directory.entry_count;
}

NodeNo TreeAssembler::add(std::string_view name, const NewNode& node) {
  const std::uint32_t entry = tree_.directories_[open_].entry_count;
  const NodeNo no = append_node(node, open_, entry);
  append_entry(name, no);
  return no;
}

void TreeAssembler::add_link(std::string_view name, NodeNo node) {
  assert(node < tree_.nodes_.size() && !tree_.nodes_[node].is_directory());
  append_entry(name, node);
  ++tree_.nodes_[node].link_count;
}

NodeNo TreeAssembler::append_node(const NewNode& from, DirectoryNo parent, std::uint32_t entry) {
  const NodeNo no = NodeNo{narrow<std::uint32_t>(tree_.nodes_.size())};
  Node node;
  node.mode = from.mode;
  node.uid = from.uid;
  node.gid = from.gid;
  node.mtime_s = from.mtime.seconds;
  node.mtime_ns = from.mtime.nanoseconds;
  node.xattrs = from.xattrs;
  node.parent = parent;
  node.entry = entry;
  if (node.is_directory()) {
    node.payload = directory_count();
    tree_.directories_.push_back({0, no, 0, 0});
  } else if (node.is_symlink()) {
    const auto length = narrow<std::uint32_t>(from.symlink_target.size());
    node.size_bytes = length;
    node.payload = narrow<std::uint32_t>(tree_.targets_.size());
    const auto* bytes = reinterpret_cast<const char*>(&length);
    tree_.targets_.insert(tree_.targets_.end(), bytes, bytes + sizeof length);
    tree_.targets_.insert(tree_.targets_.end(), from.symlink_target.begin(),
                          from.symlink_target.end());
  } else if (node.is_device()) {
    node.payload = (from.device.major << kMinorBits) | from.device.minor;
  } else if (node.is_regular()) {
    node.size_bytes = from.size_bytes;
    const bool dense =
        !from.sparse ||
        (from.data_runs.size() == 1 && from.data_runs[0] == Range{0, from.size_bytes}) ||
        from.size_bytes == 0;
    if (!dense) {
      node.payload = narrow<std::uint32_t>(tree_.sparse_.size());
      tree_.sparse_.push_back({narrow<std::uint32_t>(tree_.runs_.size()),
                               narrow<std::uint32_t>(from.data_runs.size())});
      tree_.runs_.insert(tree_.runs_.end(), from.data_runs.begin(), from.data_runs.end());
    }
  }
  tree_.nodes_.push_back(node);
  if (from.unshown != 0 || !from.lost_xattrs.empty()) note_unshown(no, from);
  return no;
}

void TreeAssembler::note_unshown(NodeNo no, const NewNode& from) {
  const auto flags = static_cast<std::uint8_t>(from.unshown & ~unshown::kXattrs);
  Node& node = tree_.nodes_[no];
  node.unshown = flags;
  if (flags != 0) ++tree_.unshown_counts_.flagged;
  if (from.lost_xattrs.empty()) return;
  node.unshown |= unshown::kXattrs;
  ++tree_.unshown_counts_.lost_xattrs;
  auto known = lost_names_.find(from.lost_xattrs);
  if (known == lost_names_.end()) {
    const auto next = narrow<std::uint32_t>(tree_.lost_names_.size());
    tree_.lost_names_.emplace_back(from.lost_xattrs);
    known = lost_names_.emplace(from.lost_xattrs, next).first;
  }
  tree_.lost_xattrs_.emplace_back(no, known->second);
}

void TreeAssembler::settle_data_order() {
  if (data_order_.empty()) return;
  std::vector<bool> waiting(tree_.nodes_.size());
  for (std::size_t no = 0; no < waiting.size(); ++no) {
    waiting[no] = tree_.nodes_[no].is_regular() && tree_.nodes_[no].size_bytes > 0;
  }
  std::erase_if(data_order_, [&](NodeNo no) {
    assert(no < waiting.size());
    const bool counts = waiting[no];
    waiting[no] = false;
    return !counts;
  });
  for (NodeNo no; no < waiting.size(); ++no) {
    if (waiting[no]) data_order_.push_back(no);
  }
  if (std::ranges::is_sorted(data_order_)) return;
  data_order_.shrink_to_fit();
  tree_.data_order_ = std::move(data_order_);
}

SourceTree TreeAssembler::finish() && {
  assert(open_ + 1 == directory_count());
  settle_data_order();
  tree_.xattr_sets_ = std::move(xattrs_).take();
  return std::move(tree_);
}

}  // namespace mkvirtfs
