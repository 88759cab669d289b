// SPDX-License-Identifier: BSD-3-Clause
// All trees are walked at once, directory by directory in the order of the result's numbers, so
// that the result is made in one go however many layers there are. A directory of the result is a
// list of shares (StackView); its names are those of all shares, sorted, and what is seen of each
// becomes a node, one more name of a node, or a directory that waits for its turn.
#include "fsgen/tree/tree_merger.h"

#include <sys/stat.h>

#include <algorithm>
#include <memory>
#include <span>
#include <utility>

#include "fsgen/tree/sequence.h"

namespace mkvirtfs {

TreeMerger::TreeMerger(const StackView& view, const LayerOverrides& overrides)
    : view_(view),
      overrides_(overrides),
      root_(view.attributes_of(view.root(view.end()).shares)),
      assembler_(new_node(root_), xattrs_of(root_)),
      has_links_(!view.linked().empty()) {
  for (const Origin& origin : view.linked()) shared_.emplace(origin, kNoNode);
}

NewNode TreeMerger::new_node(const Origin& origin) const {
  NewNode made;
  if (view_.is_made(origin)) {
    made.mode = S_IFDIR | 0755;
  } else {
    const SourceTree& from = view_.tree(origin.layer);
    const Node& node = from.node(origin.node);
    made.mode = node.mode;
    made.uid = node.uid;
    made.gid = node.gid;
    made.mtime = node.mtime();
    made.size_bytes = node.size_bytes;
    made.unshown = node.unshown;
    made.lost_xattrs = from.lost_xattrs(origin.node);
    if (node.is_symlink()) made.symlink_target = from.symlink_target(origin.node);
    if (node.is_device()) made.device = from.device_number(origin.node);
    if (from.is_sparse(origin.node)) {
      Range dense;
      made.sparse = true;
      made.data_runs = from.data_runs(origin.node, dense);
    }
  }
  overrides_.apply(origin, made);
  return made;
}

std::vector<Xattr> TreeMerger::xattrs_of(const Origin& origin) const {
  if (view_.is_made(origin)) return {};
  const auto set = view_.tree(origin.layer).xattrs(view_.node_of(origin).xattrs);
  return {set.begin(), set.end()};
}

Layer TreeMerger::run() && {
  reserve();
  origins_.push_back(root_);
  found_ = view_.root(view_.end());
  take_directory(kRootNode, kRootMark);
  for (DirectoryNo d; d < assembler_.directory_count(); ++d) {
    assembler_.open_directory(d);
    const Pending directory = std::move(pending_.front());
    pending_.pop_front();
    fill(directory);
  }
  set_data_order();
  return std::move(*this).result();
}

void TreeMerger::reserve() {
  std::size_t nodes = 0;
  std::size_t directories = 0;
  for (const PlacedLayer& placed : view_.layers()) {
    const SourceTree& tree = *placed.layer.tree;
    nodes += tree.node_count();
    directories += tree.directories().size();
    set_numbers_.emplace_back(tree.xattr_set_count(), kNoSet);
    set_numbers_.back()[0] = 0;
  }
  assembler_.reserve(nodes, nodes, directories, 0);
  origins_.reserve(nodes);
}

/// Puts the directory that was found aside until its number comes.
void TreeMerger::take_directory(NodeNo no, MarkNo mark) {
  std::vector<DirectoryShare>& shares = found_.shares;
  if (std::ranges::all_of(shares,
                          [&](const DirectoryShare& share) { return view_.is_implied(share); })) {
    implied_.push_back(no);
  }
  shares.resize(view_.seen_shares(shares, mark, view_.end()));
  pending_.push_back({shares, mark});
}

void TreeMerger::fill(const Pending& directory) {
  view_.list(directory.shares, directory.mark, rows_);
  for (std::size_t first = 0, end = 0; first < rows_.size(); first = end) {
    const std::string_view name = rows_[first].name;
    while (end < rows_.size() && rows_[end].name == name) ++end;
    const MarkNo mark = view_.marks().below(directory.mark, name);
    view_.see(std::span(rows_).subspan(first, end - first),
              view_.marks().lowest_at(mark, view_.end()), found_);
    if (found_.leaf) {
      add_leaf(name, *found_.leaf);
    } else if (found_.exists()) {
      take_directory(add_new(name, view_.attributes_of(found_.shares)), mark);
    }
  }
}

void TreeMerger::add_leaf(std::string_view name, const Origin& origin) {
  const bool has_names =
      view_.node_of(origin).link_count > 1 || (has_links_ && shared_.contains(origin));
  if (!has_names) {
    add_new(name, origin);
    return;
  }
  const auto known = shared_.find(origin);
  if (known != shared_.end() && known->second != kNoNode) {
    assembler_.add_link(name, known->second);
    return;
  }
  shared_[origin] = add_new(name, origin);
}

NodeNo TreeMerger::add_new(std::string_view name, const Origin& origin) {
  NewNode node = new_node(origin);
  if (!view_.is_made(origin)) {
    XattrSetNo& number = set_numbers_[origin.layer][view_.node_of(origin).xattrs];
    if (number == kNoSet) number = assembler_.intern(xattrs_of(origin));
    node.xattrs = number;
  }
  origins_.push_back(origin);
  return assembler_.add(name, node);
}

void TreeMerger::set_data_order() {
  const bool any = std::ranges::any_of(view_.layers(), [](const PlacedLayer& placed) {
    return !placed.layer.tree->data_order().empty();
  });
  if (!any) return;
  std::vector<Sequence> sequences;
  for (const PlacedLayer& placed : view_.layers()) {
    sequences.push_back(data_sequence(*placed.layer.tree));
  }
  std::vector<NodeNo> order;
  for (NodeNo no; no < origins_.size(); ++no) {
    const bool is_file = !view_.is_made(origins_[no]) && view_.node_of(origins_[no]).is_regular();
    if (is_file) order.push_back(no);
  }
  std::ranges::sort(order, {}, [&](NodeNo no) {
    const Origin& origin = origins_[no];
    const Sequence& sequence = sequences[origin.layer];
    return std::pair(origin.layer, sequence.position_of(origin.node));
  });
  assembler_.set_data_order(std::move(order));
}

Layer TreeMerger::result() && {
  std::vector<std::shared_ptr<ContentStore>> stores;
  for (const PlacedLayer& placed : view_.layers()) stores.push_back(placed.layer.contents);
  Layer merged;
  merged.tree = std::make_shared<const SourceTree>(std::move(assembler_).finish());
  merged.contents = std::make_shared<MergedContents>(std::move(stores), std::move(origins_));
  merged.implied_directories = std::move(implied_);
  return merged;
}

}  // namespace mkvirtfs
