// SPDX-License-Identifier: BSD-3-Clause
// Entries are collected by path, checked as they come, and numbered in one go at the end: breadth
// first, names in byte order, as TreeAssembler wants them.
#include "fsgen/tree/tree_builder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <limits>
#include <unordered_map>
#include <utility>

#include "fsgen/tree/memory_contents.h"
#include "fsgen/tree/node_limits.h"
#include "fsgen/tree/tree_path.h"
#include "support/arithmetic.h"
#include "support/text.h"

namespace mkvirtfs {
namespace {

std::string_view name_of(std::string_view path) { return path.substr(path.rfind('/') + 1); }

}  // namespace

TreeBuilder::TreeBuilder() { items_[""].mode = S_IFDIR | 0755; }

std::optional<std::string> TreeBuilder::objection_to(std::string_view path,
                                                     std::uint16_t mode) const {
  std::string_view rest = path;
  while (true) {
    const std::size_t slash = rest.find('/');
    const std::string_view name = rest.substr(0, slash);
    if (name.empty()) return "has an empty component";
    if (name == "." || name == "..") return "has a component \".\" or \"..\"";
    if (name.size() > kMostNameBytes) return "has a component of more than 255 bytes";
    if (name.find('\0') != std::string_view::npos) return "has a NUL byte";
    if (slash == std::string_view::npos) break;
    rest.remove_prefix(slash + 1);
    const auto parent = items_.find(path.substr(0, path.size() - rest.size() - 1));
    if (parent != items_.end() && !S_ISDIR(parent->second.mode)) {
      return fmt::format("lies below {}, which is no directory", printable(parent->first));
    }
  }
  const auto known = items_.find(path);
  if (known == items_.end()) return std::nullopt;
  if (known->second.implied && S_ISDIR(mode)) return std::nullopt;
  return known->second.implied ? "has entries below it, so it can only be a directory"
                               : "is there twice";
}

std::optional<std::string> TreeBuilder::objection_to(const Item& item) {
  if (item.hard_link) return std::nullopt;
  if (item.mtime.nanoseconds > 999'999'999) return "has more than 999999999 nanoseconds";
  if (item.size_bytes > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
    return "has a size beyond 2^63 - 1";
  }
  std::uint64_t free_from = 0;
  for (const Range& run : item.data_runs.value_or(std::vector<Range>{})) {
    const auto end = checked_add(run.offset, run.length);
    if (run.length == 0 || !end || *end > item.size_bytes) {
      return "has a data run that is empty or outside its size";
    }
    if (run.offset < free_from) return "has data runs that are out of order or touch";
    free_from = *end + 1;
  }
  if (S_ISLNK(item.mode) && (item.target.empty() || item.target.size() > kMostTargetBytes ||
                             item.target.find('\0') != std::string::npos)) {
    return "has a target that is empty, longer than 4095 bytes or has a NUL byte";
  }
  if (item.device.major > kMostMajor || item.device.minor > kMostMinor) {
    return "has a device number beyond 4095:1048575";
  }
  for (std::size_t i = 0; i < item.xattrs.size(); ++i) {
    const Xattr& xattr = item.xattrs[i];
    if (!xattr.name.contains('.') || xattr.name.size() > kMostXattrNameBytes ||
        xattr.name.find('\0') != std::string::npos || xattr.value.size() > kMostXattrValueBytes) {
      return fmt::format("has an attribute {} that no kernel takes", printable(xattr.name));
    }
    for (std::size_t other = 0; other < i; ++other) {
      if (item.xattrs[other].name == xattr.name) {
        return fmt::format("has the attribute {} twice", printable(xattr.name));
      }
    }
  }
  return std::nullopt;
}

std::optional<std::string> TreeBuilder::objection_to_hard_links() const {
  for (const auto& [path, item] : items_) {
    if (!item.hard_link) continue;
    const auto target = items_.find(item.target);
    if (target == items_.end() || S_ISDIR(target->second.mode) || target->second.hard_link) {
      return fmt::format("{} is a hard link to {}, which is {}", printable(path),
                         printable(item.target),
                         target == items_.end() ? "not there" : "a directory or a hard link");
    }
  }
  return std::nullopt;
}

TreeBuilder::Item& TreeBuilder::add(std::string_view path, std::uint16_t mode) {
  assert(!objection_to(path, mode));
  for (std::string_view parent = parent_path(path); !parent.empty(); parent = parent_path(parent)) {
    const auto [at, is_new] = items_.try_emplace(std::string(parent));
    if (!is_new) break;
    at->second.mode = S_IFDIR | 0755;
    at->second.implied = true;
  }
  last_ = path;
  Item& item = items_[last_];
  item.mode = mode;
  item.implied = false;
  return item;
}

TreeBuilder& TreeBuilder::directory(std::string_view path) {
  add(path, S_IFDIR | 0755);
  return *this;
}

TreeBuilder& TreeBuilder::file(std::string_view path, std::string_view bytes) {
  Item& item = add(path, S_IFREG | 0644);
  item.size_bytes = bytes.size();
  item.bytes = bytes;
  return *this;
}

TreeBuilder& TreeBuilder::patterned_file(std::string_view path, std::uint64_t size_bytes) {
  add(path, S_IFREG | 0644).size_bytes = size_bytes;
  return *this;
}

TreeBuilder& TreeBuilder::sparse_file(std::string_view path, std::uint64_t size_bytes,
                                      std::vector<Range> data_runs) {
  Item& item = add(path, S_IFREG | 0644);
  item.size_bytes = size_bytes;
  item.data_runs = std::move(data_runs);
  return *this;
}

TreeBuilder& TreeBuilder::symlink(std::string_view path, std::string_view target) {
  add(path, S_IFLNK | 0777).target = target;
  return *this;
}

TreeBuilder& TreeBuilder::hard_link(std::string_view path, std::string_view existing) {
  Item& item = add(path, S_IFREG);
  item.hard_link = true;
  item.target = existing;
  return *this;
}

TreeBuilder& TreeBuilder::device(std::string_view path, char type, DeviceNumber number) {
  assert(type == 'b' || type == 'c');
  add(path, (type == 'b' ? S_IFBLK : S_IFCHR) | 0644).device = number;
  return *this;
}

TreeBuilder& TreeBuilder::fifo(std::string_view path) {
  add(path, S_IFIFO | 0644);
  return *this;
}

TreeBuilder& TreeBuilder::socket(std::string_view path) {
  add(path, S_IFSOCK | 0644);
  return *this;
}

TreeBuilder& TreeBuilder::mode(std::uint16_t permissions) {
  assert((permissions & ~07777) == 0 && !last().hard_link);
  last().mode = static_cast<std::uint16_t>((last().mode & S_IFMT) | permissions);
  return *this;
}

TreeBuilder& TreeBuilder::owner(std::uint32_t uid, std::uint32_t gid) {
  assert(!last().hard_link);
  last().uid = uid;
  last().gid = gid;
  return *this;
}

TreeBuilder& TreeBuilder::mtime(Timestamp when) {
  assert(!last().hard_link);
  last().mtime = when;
  return *this;
}

TreeBuilder& TreeBuilder::xattr(std::string name, std::string value) {
  assert(!last().hard_link);
  last().xattrs.push_back({std::move(name), std::move(value)});
  return *this;
}

TreeBuilder& TreeBuilder::root() {
  last_.clear();
  return *this;
}

TreeBuilder& TreeBuilder::data_order(std::vector<std::string> paths) {
  data_order_ = std::move(paths);
  return *this;
}

TreeBuilder& TreeBuilder::unshown(std::uint8_t flags) {
  last().unshown = flags;
  return *this;
}

TreeBuilder& TreeBuilder::lost_xattrs(std::string names) {
  last().lost_xattrs = std::move(names);
  return *this;
}

BuiltTree TreeBuilder::build() const {
  assert(!objection_to_hard_links());
  // Sorted by path means sorted by name inside one parent, though not parent by parent.
  std::unordered_map<std::string_view, std::vector<std::string_view>> children;
  for (const auto& [path, item] : items_) {
    assert(!objection_to(item));
    if (!path.empty()) children[parent_path(path)].push_back(path);
  }

  const auto new_node = [](const Item& item) {
    NewNode node;
    node.mode = item.mode;
    node.uid = item.uid;
    node.gid = item.gid;
    node.mtime = item.mtime;
    node.size_bytes = item.size_bytes;
    node.symlink_target = item.target;
    node.device = item.device;
    node.sparse = item.data_runs.has_value();
    if (item.data_runs) node.data_runs = *item.data_runs;
    node.unshown = item.unshown;
    node.lost_xattrs = item.lost_xattrs;
    return node;
  };
  const Item& top = items_.find("")->second;
  TreeAssembler assembler(new_node(top), top.xattrs);

  std::vector<std::string_view> directories = {""};
  std::unordered_map<std::string_view, NodeNo> numbered;
  std::map<NodeNo, std::string> literals;
  for (DirectoryNo d; d < assembler.directory_count(); ++d) {
    assembler.open_directory(d);
    for (const std::string_view path : children[directories[d]]) {
      const Item& named = items_.find(path)->second;
      const auto owner = named.hard_link ? items_.find(named.target) : items_.find(path);
      if (const auto known = numbered.find(owner->first); known != numbered.end()) {
        assembler.add_link(name_of(path), known->second);
        continue;
      }
      NewNode node = new_node(owner->second);
      node.xattrs = assembler.intern(owner->second.xattrs);
      const NodeNo no = assembler.add(name_of(path), node);
      numbered.emplace(owner->first, no);
      if (S_ISDIR(node.mode)) directories.push_back(path);
      if (owner->second.bytes) literals.emplace(no, *owner->second.bytes);
    }
  }
  std::vector<NodeNo> order;
  order.reserve(data_order_.size());
  for (const std::string& path : data_order_) {
    const Item& named = items_.at(path);
    order.push_back(numbered.at(named.hard_link ? named.target : path));
  }
  assembler.set_data_order(std::move(order));

  BuiltTree built;
  built.tree = std::make_shared<const SourceTree>(std::move(assembler).finish());
  built.store = std::make_shared<MemoryContents>(built.tree, std::move(literals));
  return built;
}

}  // namespace mkvirtfs
