// SPDX-License-Identifier: BSD-3-Clause
// Directories of the result are filled in the order of their numbers, each from one of the source,
// and those that are found in it wait for their turn. A file has one number, under all names that
// lead to it; a directory has one for each way to it.
#include "fsgen/tree/followed_symlinks.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "fsgen/tree/merged_contents.h"
#include "fsgen/tree/source_tree.h"
#include "fsgen/tree/symlink_target.h"
#include "fsgen/tree/tree_path.h"

namespace mkvirtfs {
namespace {

constexpr NodeNo kNoNode{std::numeric_limits<std::uint32_t>::max()};
constexpr XattrSetNo kNoSet = std::numeric_limits<XattrSetNo>::max();

class Follower {
 public:
  explicit Follower(const Layer& source)
      : source_(source),
        tree_(*source.tree),
        assembler_(node_of(kRootNode), xattrs_of(kRootNode)),
        new_of_(tree_.node_count(), kNoNode),
        new_sets_(tree_.xattr_set_count(), kNoSet) {}

  Result<FollowedTree> run() &&;

 private:
  /// A directory of the result.
  struct Copy {
    DirectoryNo source;
    DirectoryNo parent;  // in the result; the root's is its own
    std::string path{};  // of the result
  };

  NewNode node_of(NodeNo no) const;
  std::vector<Xattr> xattrs_of(NodeNo no) const {
    const auto set = tree_.xattrs(tree_.node(no).xattrs);
    return {set.begin(), set.end()};
  }
  Result<void> fill(DirectoryNo no);
  Result<NodeNo> target_of(DirectoryNo no, const std::string& path, NodeNo link) const;
  NodeNo add(std::string_view name, NodeNo no);
  std::vector<NodeNo> data_order() const;

  const Layer& source_;
  const SourceTree& tree_;
  TreeAssembler assembler_;
  std::vector<Copy> copies_{{}};      // by DirectoryNo of the result
  std::vector<NodeNo> new_of_;        // of files, by node of the source
  std::vector<XattrSetNo> new_sets_;  // by set of the source
  std::vector<Origin> origins_{{}};   // by node of the result
  std::vector<Difference> links_;
};

NewNode Follower::node_of(NodeNo no) const {
  const Node& node = tree_.node(no);
  NewNode made;
  made.mode = node.mode;
  made.uid = node.uid;
  made.gid = node.gid;
  made.mtime = node.mtime();
  made.size_bytes = node.size_bytes;
  made.unshown = node.unshown;
  made.lost_xattrs = tree_.lost_xattrs(no);
  if (node.is_device()) made.device = tree_.device_number(no);
  if (tree_.is_sparse(no)) {
    Range dense;
    made.sparse = true;
    made.data_runs = tree_.data_runs(no, dense);
  }
  return made;
}

/// What a symlink leads to, if that can be copied here.
Result<NodeNo> Follower::target_of(DirectoryNo no, const std::string& path, NodeNo link) const {
  std::expected<NodeNo, LeadsNowhere> target =
      follow_symlink(tree_, tree_.directory(copies_[no].source).node, link);
  if (target && tree_.node(*target).is_directory()) {
    // A copy of a directory inside itself would go on for ever.
    const DirectoryNo directory = tree_.directory_no(*target);
    for (DirectoryNo at = no;; at = copies_[at].parent) {
      if (copies_[at].source == directory) target = std::unexpected(LeadsNowhere::loop);
      if (!target || at == kRootDirectory) break;
    }
  }
  if (target) return *target;
  return fail(Errc::does_not_fit,
              fmt::format("{} {}: {}", path, words_of(target.error()), tree_.symlink_target(link)),
              {{"symlinks", "keep"}, {"exclude"}});
}

NodeNo Follower::add(std::string_view name, NodeNo no) {
  NewNode made = node_of(no);
  XattrSetNo& set = new_sets_[tree_.node(no).xattrs];
  if (set == kNoSet) set = assembler_.intern(xattrs_of(no));
  made.xattrs = set;
  origins_.push_back({LayerNo{0}, no});
  return assembler_.add(name, made);
}

Result<void> Follower::fill(DirectoryNo no) {
  const std::uint64_t most = 1'000'000 + std::uint64_t{16} * tree_.node_count();
  const Directory& directory = tree_.directory(copies_[no].source);
  for (const Entry& entry : tree_.entries(directory)) {
    const std::string_view name = tree_.name(directory, entry);
    const std::string path = join_path(copies_[no].path, name);
    NodeNo node = entry.node;
    if (tree_.node(node).is_symlink()) {
      const Result<NodeNo> target = target_of(no, path, node);
      if (!target) return propagate(target);
      node = *target;
      links_.push_back({"followed", path, "is a copy of /" + tree_.path(node)});
    }
    if (origins_.size() >= most) {
      return fail(Errc::does_not_fit,
                  fmt::format("{}: with all symlinks followed there are more than {} files and "
                              "directories",
                              path, most),
                  {{"symlinks", "keep"}, {"exclude"}});
    }
    if (tree_.node(node).is_directory()) {
      add(name, node);
      copies_.push_back({tree_.directory_no(node), no, path});
    } else if (new_of_[node] != kNoNode) {
      assembler_.add_link(name, new_of_[node]);
    } else {
      new_of_[node] = add(name, node);
    }
  }
  return {};
}

/// That of the source, without what is not in the result.
std::vector<NodeNo> Follower::data_order() const {
  std::vector<NodeNo> order;
  for (const NodeNo no : tree_.data_order()) {
    if (new_of_[no] != kNoNode) order.push_back(new_of_[no]);
  }
  return order;
}

Result<FollowedTree> Follower::run() && {
  assembler_.reserve(tree_.node_count(), tree_.node_count(), tree_.directories().size(), 0);
  for (DirectoryNo no; no < assembler_.directory_count(); ++no) {
    assembler_.open_directory(no);
    if (Result<void> good = fill(no); !good) return propagate(good);
  }
  if (!tree_.data_order().empty()) assembler_.set_data_order(data_order());
  Layer followed;
  followed.tree = std::make_shared<const SourceTree>(std::move(assembler_).finish());
  followed.contents = std::make_shared<MergedContents>(
      std::vector<std::shared_ptr<ContentStore>>{source_.contents}, std::move(origins_));
  return FollowedTree{std::move(followed), std::move(links_)};
}

}  // namespace

Result<FollowedTree> follow_symlinks(const Layer& source) {
  const SourceTree& tree = *source.tree;
  bool has_symlinks = false;
  for (NodeNo no; no < tree.node_count() && !has_symlinks; ++no) {
    has_symlinks = tree.node(no).is_symlink();
  }
  if (has_symlinks) return Follower(source).run();
  Layer same;
  same.tree = source.tree;
  same.contents = source.contents;
  return FollowedTree{std::move(same)};
}

}  // namespace mkvirtfs
