// SPDX-License-Identifier: BSD-3-Clause
#include "fsgen/tree/merge.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cassert>
#include <deque>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "fsgen/tree/sequence.h"

namespace mkvirtfs {
namespace {

/// A node of a layer. Directories on the way to where a layer is placed are counted backwards from
/// the last number that there is: ~0 is the first of them.
struct Origin {
  std::uint32_t layer = 0;
  NodeNo node = 0;

  friend auto operator<=>(const Origin&, const Origin&) = default;
};

struct OriginHash {
  std::size_t operator()(const Origin& origin) const noexcept {
    return std::hash<std::uint64_t>()(std::uint64_t{origin.layer} << 32 | origin.node);
  }
};

std::string_view type_in_words(std::uint16_t type) {
  switch (type) {
    case S_IFDIR:
      return "a directory";
    case S_IFREG:
      return "a file";
    case S_IFLNK:
      return "a symlink";
    case S_IFCHR:
    case S_IFBLK:
      return "a device";
    case S_IFIFO:
      return "a fifo";
    case S_IFSOCK:
      return "a socket";
    default:
      return "something else";
  }
}

/// The stores of all layers as one. Which node of which layer a node is was settled before.
class MergedContents final : public ContentStore {
 public:
  MergedContents(std::vector<std::shared_ptr<ContentStore>> stores, std::vector<Origin> origins)
      : stores_(std::move(stores)), origins_(std::move(origins)) {}

  Result<void> read(ContentNo content, std::uint64_t offset, std::span<std::byte> out) override {
    return store(content).read(below(content), offset, out);
  }
  Result<bool> read_at_once(ContentNo content, std::uint64_t offset,
                            std::span<std::byte> out) override {
    return store(content).read_at_once(below(content), offset, out);
  }
  bool is_at_hand(ContentNo content, std::uint64_t offset, std::uint64_t length) override {
    return store(content).is_at_hand(below(content), offset, length);
  }
  void fetch(ContentNo content, std::uint64_t offset, std::uint64_t length) override {
    store(content).fetch(below(content), offset, length);
  }
  bool keeps_fetched(ContentNo content) override {
    return store(content).keeps_fetched(below(content));
  }
  Result<Pin> pin(ContentNo content) override { return store(content).pin(below(content)); }
  Result<void> recheck(ContentNo content, const PinnedFile& file) override {
    return store(content).recheck(below(content), file);
  }
  std::string name(ContentNo content) const override { return store(content).name(below(content)); }
  std::optional<HostFile> host_file(ContentNo content) const override {
    // A number beyond all nodes is that of a directory that was made on the way to a layer.
    if (static_cast<NodeNo>(content) >= origins_.size()) return std::nullopt;
    return store(content).host_file(below(content));
  }
  std::uint32_t source_of(ContentNo content) const override { return origin(content).layer; }

 private:
  const Origin& origin(ContentNo content) const noexcept {
    return origins_[static_cast<NodeNo>(content)];
  }
  ContentStore& store(ContentNo content) const noexcept { return *stores_[origin(content).layer]; }
  ContentNo below(ContentNo content) const noexcept { return ContentNo{origin(content).node}; }

  std::vector<std::shared_ptr<ContentStore>> stores_;
  std::vector<Origin> origins_;  // by node
};

/// The components of a path; nullopt when one of them is "." or "..".
std::optional<std::vector<std::string_view>> components_of(std::string_view path) {
  std::vector<std::string_view> components;
  while (!path.empty()) {
    const std::size_t slash = path.find('/');
    const std::string_view component = path.substr(0, slash);
    path = slash == std::string_view::npos ? std::string_view{} : path.substr(slash + 1);
    if (component == "." || component == "..") return std::nullopt;
    if (!component.empty()) components.push_back(component);
  }
  return components;
}

std::string joined(std::string_view first, std::string_view second) {
  std::string path(first);
  if (!first.empty() && !second.empty()) path += '/';
  return path.append(second);
}

/// What layers say of a path besides what their trees hold there, and of the paths below it.
struct Mark {
  std::map<std::string, std::uint32_t, std::less<>> children;
  std::vector<std::uint32_t> whiteouts;  // layers, ascending
  std::vector<std::uint32_t> opaque;     // layers, ascending
  std::vector<std::uint32_t> links;      // numbers of outward links, by layer
};
constexpr std::uint32_t kNoMark = std::numeric_limits<std::uint32_t>::max();

/// The first layer that is seen where each of these hides those before it: the last of them, which
/// are ascending, below `limit`.
std::uint32_t first_seen(const std::vector<std::uint32_t>& layers, std::uint32_t limit) {
  const auto after = std::ranges::lower_bound(layers, limit);
  return after == layers.begin() ? 0 : *std::prev(after);
}

}  // namespace

/// Walks all trees at once, directory by directory in the order of the result's numbers, so that
/// the result is made in one go however many layers there are.
class LayerMerger {
 public:
  /// Takes one more layer, over all that are there.
  Result<void> add(PlacedLayer placed) {
    const std::uint32_t layer = layer_count();
    placed_.push_back(std::move(placed));
    Result<void> good = place(placed_.back());
    if (good) good = mark(layer);
    if (good) good = check_way(layer);
    if (good) good = find_targets(layer);
    if (good) good = find_overridden(layer);
    return good;
  }

  Standing look(std::string_view path) const {
    const Result<Found> found = find(path, layer_count());
    if (!found || !found->exists()) return {};
    if (!found->leaf) return {Standing::Kind::directory, {}};
    if (!node_of(*found->leaf).is_symlink()) return {Standing::Kind::other, {}};
    return {Standing::Kind::symlink, tree(found->leaf->layer).symlink_target(found->leaf->node)};
  }

  /// At the end, once.
  Result<Layer> merge() {
    assert(!placed_.empty());
    PlacedLayer& first = placed_.front();
    const bool as_it_is = placed_.size() == 1 && first.at.empty() &&
                          first.layer.outward_links.empty() && first.layer.overrides.empty();
    if (!as_it_is) return assemble();
    Layer same = std::move(first.layer);
    same.whiteouts.clear();
    same.opaque_directories.clear();
    return same;
  }

 private:
  /// A directory of a placed layer: the first ones are those on the way to where it is placed, its
  /// own follow. So its root is always directory 0.
  struct Share {
    std::uint32_t layer;
    std::uint32_t directory;
  };
  enum class Kind : std::uint8_t { directory, node, link };
  /// What a layer has under a name.
  struct Child {
    std::uint32_t layer;
    std::uint32_t number;  ///< of the directory as in Share, of the node, of the outward link
    Kind kind;
  };
  struct Row {
    std::string_view name;
    Child child;
  };
  /// What stands at a path: a directory made of shares, or one node; or nothing.
  struct Found {
    std::optional<Origin> leaf;
    std::vector<Share> shares;  ///< the last layer's first, all that make up its attributes
    bool exists() const noexcept { return leaf || !shares.empty(); }
  };
  struct Link {
    std::uint32_t layer;
    std::string path;
    std::string target;
    Origin origin;
  };
  struct Patch {
    std::optional<std::uint16_t> permissions;
    std::optional<std::uint32_t> uid;
    std::optional<std::uint32_t> gid;
    std::optional<Timestamp> mtime;
  };

  const SourceTree& tree(std::uint32_t layer) const noexcept { return *placed_[layer].layer.tree; }
  std::uint32_t depth(std::uint32_t layer) const noexcept {
    return static_cast<std::uint32_t>(ways_[layer].size());
  }

  /// Where the layer stands.
  Result<void> place(const PlacedLayer& placed) {
    auto way = components_of(placed.at);
    if (!way || !is_valid_place(placed.at)) {
      return fail(Errc::usage, fmt::format("{} is no place in a tree: it must be a path without "
                                           ". and .., of names of up to 255 bytes",
                                           placed.at));
    }
    node_limit_ += placed.layer.tree->node_count() + way->size();
    ways_.push_back(std::move(*way));
    if (node_limit_ > std::numeric_limits<NodeNo>::max()) {
      return fail(Errc::does_not_fit, "the sources have more than 4294967295 entries together");
    }
    return {};
  }

  std::unexpected<Error> wrong(std::uint32_t layer, const std::string& what) const {
    const std::string& name = placed_[layer].name;
    return fail(Errc::unreadable, name.empty() ? what : fmt::format("{}: {}", name, what));
  }

  std::string placed_path(std::uint32_t layer, std::string_view path) const {
    return joined(fmt::format("{}", fmt::join(ways_[layer], "/")), path);
  }

  Result<std::uint32_t> mark_at(const std::string& path) {
    const auto components = components_of(path);
    if (!components) {
      return fail(Errc::unreadable, fmt::format("{}: . and .. have no place in a path", path));
    }
    std::uint32_t at = 0;
    for (const std::string_view name : *components) {
      const auto known = marks_[at].children.find(name);
      if (known != marks_[at].children.end()) {
        at = known->second;
        continue;
      }
      const auto next = static_cast<std::uint32_t>(marks_.size());
      marks_[at].children.emplace(name, next);
      marks_.emplace_back();
      at = next;
    }
    return at;
  }

  /// Notes whiteouts, opaque directories and outward links of the layer.
  Result<void> mark(std::uint32_t no) {
    const Layer& layer = placed_[no].layer;
    for (const std::string& path : layer.whiteouts) {
      const Result<std::uint32_t> at = mark_at(placed_path(no, path));
      if (!at) return propagate(at);
      if (path.empty()) {
        return wrong(no, "a whiteout of the root: there is no such thing");
      }
      auto& layers = marks_[*at].whiteouts;
      if (layers.empty() || layers.back() != no) layers.push_back(no);
    }
    for (const std::string& path : layer.opaque_directories) {
      const Result<std::uint32_t> at = mark_at(placed_path(no, path));
      if (!at) return propagate(at);
      auto& layers = marks_[*at].opaque;
      if (layers.empty() || layers.back() != no) layers.push_back(no);
    }
    for (const OutwardLink& link : layer.outward_links) {
      std::string path = placed_path(no, link.path);
      const Result<std::uint32_t> at = mark_at(path);
      if (!at) return propagate(at);
      const std::size_t slash = link.path.rfind('/');
      const std::string_view parent = slash == std::string::npos
                                          ? std::string_view{}
                                          : std::string_view(link.path).substr(0, slash);
      const Node* directory = layer.tree->find_path(parent);
      if (link.path.empty() || directory == nullptr || !directory->is_directory() ||
          layer.tree->find_path(link.path) != nullptr) {
        return wrong(
            no, fmt::format("{}: a hard link to {} cannot stand there", link.path, link.target));
      }
      marks_[*at].links.push_back(static_cast<std::uint32_t>(links_.size()));
      links_.push_back({no, std::move(path), placed_path(no, link.target), {}});
    }
    return {};
  }

  /// Nothing but directories on the way to where a layer is placed, and there itself.
  Result<void> check_way(std::uint32_t layer) const {
    std::string path;
    for (const std::string_view name : ways_[layer]) {
      path = joined(path, name);
      const Result<Found> found = find(path, layer);
      if (!found) return propagate(found);
      if (!found->exists()) return {};
      if (found->leaf) {
        const char* what = node_of(*found->leaf).is_symlink() ? "symlink" : "file";
        return fail(Errc::usage, fmt::format("--at=/{}: /{} is a {} in the sources before, and no "
                                             "directory",
                                             placed_path(layer, ""), path, what));
      }
    }
    return {};
  }

  Result<void> find_targets(std::uint32_t layer) {
    for (Link& link : links_) {
      if (link.layer != layer) continue;
      const Result<Found> found = find(link.target, layer);
      if (!found) return propagate(found);
      if (!found->leaf) {
        return wrong(layer, fmt::format("{} is a hard link to {}, which is {}", link.path,
                                        link.target, found->exists() ? "a directory" : "nowhere"));
      }
      link.origin = *found->leaf;
      shared_.emplace(link.origin, kNoNode);
    }
    return {};
  }

  Result<void> find_overridden(std::uint32_t layer) {
    for (const AttributeOverride& change : placed_[layer].layer.overrides) {
      const std::string path = placed_path(layer, change.path);
      const Result<Found> found = find(path, layer + 1);
      if (!found) return propagate(found);
      if (!found->exists()) {
        if (change.is_optional) continue;
        return wrong(layer,
                     fmt::format("{} is given attributes, but there is no such entry", path));
      }
      const auto type =
          static_cast<std::uint16_t>(found->leaf ? node_of(*found->leaf).mode & S_IFMT : S_IFDIR);
      if (change.type != 0 && change.type != type) {
        return wrong(layer, fmt::format("{} is given attributes as {}, but is {}", path,
                                        type_in_words(change.type), type_in_words(type)));
      }
      Patch& patch = patches_[found->leaf ? *found->leaf : attributes_of(found->shares)];
      if (change.permissions) patch.permissions = change.permissions;
      if (change.uid) patch.uid = change.uid;
      if (change.gid) patch.gid = change.gid;
      if (change.mtime) patch.mtime = change.mtime;
    }
    return {};
  }

  bool is_made(const Origin& origin) const noexcept {
    return origin.node >= tree(origin.layer).node_count();
  }
  const Node& node_of(const Origin& origin) const noexcept {
    return tree(origin.layer).node(origin.node);
  }
  Origin origin_of(const Share& share) const noexcept {
    const std::uint32_t own = depth(share.layer);
    if (share.directory < own) return {share.layer, ~share.directory};
    return {share.layer, tree(share.layer).directories()[share.directory - own].node};
  }
  bool is_implied(const Share& share) const noexcept {
    const Origin origin = origin_of(share);
    return is_made(origin) ||
           std::ranges::binary_search(placed_[origin.layer].layer.implied_directories, origin.node);
  }
  /// Of the last layer that says something, or of the first that needs the directory.
  Origin attributes_of(const std::vector<Share>& shares) const noexcept {
    for (const Share& share : shares) {
      if (!is_implied(share)) return origin_of(share);
    }
    return origin_of(shares.back());
  }

  Child child_of(std::uint32_t layer, NodeNo no) const noexcept {
    const Node& node = tree(layer).node(no);
    if (!node.is_directory()) return {layer, no, Kind::node};
    return {layer, tree(layer).directory_index(no) + depth(layer), Kind::directory};
  }

  /// Of what layers have at one path, the last layer's first, that what is seen: `barrier` is the
  /// first layer that a whiteout lets through.
  void settle(std::span<const Row> rows, std::uint32_t barrier, Found& found) const {
    found.leaf.reset();
    found.shares.clear();
    for (const Row& row : rows) {
      const Child& child = row.child;
      if (child.layer < barrier) return;
      if (child.kind == Kind::directory) {
        found.shares.push_back({child.layer, child.number});
        continue;
      }
      // It is what was before the directories above it came.
      if (!found.shares.empty()) return;
      found.leaf = child.kind == Kind::link ? links_[child.number].origin
                                            : Origin{child.layer, child.number};
      return;
    }
  }

  /// Of a directory's shares those through which something of it is seen.
  std::size_t seen_shares(const std::vector<Share>& shares, std::uint32_t mark,
                          std::uint32_t limit) const {
    if (mark == kNoMark) return shares.size();
    const std::uint32_t barrier = first_seen(marks_[mark].opaque, limit);
    const auto end =
        std::ranges::find_if(shares, [&](const Share& share) { return share.layer < barrier; });
    return static_cast<std::size_t>(end - shares.begin());
  }

  Found root(std::uint32_t limit) const {
    Found found;
    for (std::uint32_t layer = limit; layer-- > 0;) found.shares.push_back({layer, 0});
    return found;
  }

  /// What stands at a path when only the layers below `limit` are in place.
  Result<Found> find(std::string_view path, std::uint32_t limit) const {
    const auto components = components_of(path);
    if (!components) {
      return fail(Errc::unreadable, fmt::format("{}: . and .. have no place in a path", path));
    }
    Found found = root(limit);
    std::uint32_t mark = 0;
    std::vector<Row> rows;
    for (std::size_t at = 0; at < components->size(); ++at) {
      const std::string_view name = (*components)[at];
      found.shares.resize(seen_shares(found.shares, mark, limit));
      const std::uint32_t mark_of_name = mark_below(mark, name);
      rows.clear();
      for (const Share& share : found.shares) {
        const std::uint32_t own = depth(share.layer);
        if (share.directory < own) {
          if (ways_[share.layer][share.directory] == name) {
            rows.push_back({name, {share.layer, share.directory + 1, Kind::directory}});
          }
          continue;
        }
        const SourceTree& own_tree = tree(share.layer);
        const Entry* entry = own_tree.find(own_tree.directories()[share.directory - own], name);
        if (entry != nullptr) rows.push_back({name, child_of(share.layer, entry->node)});
      }
      std::uint32_t barrier = 0;
      if (mark_of_name != kNoMark) {
        barrier = first_seen(marks_[mark_of_name].whiteouts, limit);
        add_links(mark_of_name, name, limit, found.shares, rows);
        sort(rows);
      }
      settle(rows, barrier, found);
      mark = mark_of_name;
      const bool on_the_way = at + 1 < components->size();
      if (!found.exists() || (found.leaf && on_the_way)) return Found{};
    }
    return found;
  }

  std::uint32_t mark_below(std::uint32_t mark, std::string_view name) const {
    if (mark == kNoMark) return kNoMark;
    const auto& children = marks_[mark].children;
    const auto at = children.find(name);
    return at == children.end() ? kNoMark : at->second;
  }

  /// The outward links under a name, as far as their layers have a share in the directory.
  void add_links(std::uint32_t mark, std::string_view name, std::uint32_t limit,
                 std::span<const Share> shares, std::vector<Row>& rows) const {
    for (const std::uint32_t no : marks_[mark].links) {
      const std::uint32_t layer = links_[no].layer;
      const bool seen =
          layer < limit && std::ranges::find(shares, layer, &Share::layer) != shares.end();
      if (seen) rows.push_back({name, {layer, no, Kind::link}});
    }
  }

  static void sort(std::vector<Row>& rows) {
    std::ranges::sort(rows, [](const Row& a, const Row& b) {
      const int order = a.name.compare(b.name);
      return order != 0 ? order < 0 : a.child.layer > b.child.layer;
    });
  }

  /// All that the shares of a directory have, sorted by name, the last layer's first.
  void list(std::span<const Share> shares, std::uint32_t mark, std::vector<Row>& rows) const {
    rows.clear();
    for (const Share& share : shares) {
      const std::uint32_t own = depth(share.layer);
      if (share.directory < own) {
        rows.push_back({ways_[share.layer][share.directory],
                        {share.layer, share.directory + 1, Kind::directory}});
        continue;
      }
      const SourceTree& own_tree = tree(share.layer);
      const Directory& directory = own_tree.directories()[share.directory - own];
      for (const Entry entry : own_tree.entries(directory)) {
        rows.push_back({own_tree.name(directory, entry), child_of(share.layer, entry.node)});
      }
    }
    const std::size_t entries = rows.size();
    if (mark != kNoMark) {
      for (const auto& [name, below] : marks_[mark].children) {
        add_links(below, name, layer_count(), shares, rows);
      }
    }
    if (shares.size() > 1 || rows.size() != entries) sort(rows);
  }
  std::uint32_t layer_count() const noexcept { return static_cast<std::uint32_t>(placed_.size()); }

  NewNode new_node(const Origin& origin) const {
    NewNode made;
    if (is_made(origin)) {
      made.mode = S_IFDIR | 0755;
    } else {
      const SourceTree& from = tree(origin.layer);
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
    if (const auto patch = patches_.find(origin); patch != patches_.end()) {
      const Patch& change = patch->second;
      // Symlinks have none.
      if (change.permissions && !S_ISLNK(made.mode)) {
        made.mode =
            static_cast<std::uint16_t>((made.mode & S_IFMT) | (*change.permissions & 07777));
      }
      made.uid = change.uid.value_or(made.uid);
      made.gid = change.gid.value_or(made.gid);
      made.mtime = change.mtime.value_or(made.mtime);
    }
    return made;
  }

  std::vector<Xattr> xattrs_of(const Origin& origin) const {
    if (is_made(origin)) return {};
    const auto set = tree(origin.layer).xattrs(node_of(origin).xattrs);
    return {set.begin(), set.end()};
  }

  /// The directories of the result, in the order of their numbers.
  struct Pending {
    std::vector<Share> shares;  ///< through which something is seen
    std::uint32_t mark;
  };

  Result<Layer> assemble() {
    Found found = root(layer_count());
    const Origin top = attributes_of(found.shares);
    TreeAssembler assembler(new_node(top), xattrs_of(top));
    std::size_t nodes = 0;
    std::size_t directories = 0;
    for (const PlacedLayer& placed : placed_) {
      nodes += placed.layer.tree->node_count();
      directories += placed.layer.tree->directories().size();
      set_numbers_.emplace_back(placed.layer.tree->xattr_set_count(), kNoSet);
      set_numbers_.back()[0] = 0;
    }
    assembler.reserve(nodes, nodes, directories, 0);
    origins_.reserve(nodes);
    origins_.push_back(top);

    std::deque<Pending> pending;
    const auto take_directory = [&](NodeNo no, std::uint32_t mark) {
      if (std::ranges::all_of(found.shares,
                              [&](const Share& share) { return is_implied(share); })) {
        implied_.push_back(no);
      }
      found.shares.resize(seen_shares(found.shares, mark, layer_count()));
      pending.push_back({found.shares, mark});
    };
    take_directory(kRootNode, 0);
    std::vector<Row> rows;
    for (std::uint32_t d = 0; d < assembler.directory_count(); ++d) {
      assembler.open_directory(d);
      const Pending directory = std::move(pending.front());
      pending.pop_front();
      list(directory.shares, directory.mark, rows);
      for (std::size_t first = 0, end = 0; first < rows.size(); first = end) {
        const std::string_view name = rows[first].name;
        while (end < rows.size() && rows[end].name == name) ++end;
        const std::uint32_t mark = mark_below(directory.mark, name);
        const std::uint32_t barrier =
            mark == kNoMark ? 0 : first_seen(marks_[mark].whiteouts, layer_count());
        settle(std::span(rows).subspan(first, end - first), barrier, found);
        if (found.leaf) {
          add(assembler, name, *found.leaf);
        } else if (found.exists()) {
          const NodeNo no = add_new(assembler, name, attributes_of(found.shares));
          take_directory(no, mark);
        }
      }
    }
    set_data_order(assembler);
    return result(std::move(assembler));
  }

  void add(TreeAssembler& assembler, std::string_view name, const Origin& origin) {
    const bool has_names =
        node_of(origin).link_count > 1 || (!links_.empty() && shared_.contains(origin));
    if (!has_names) {
      add_new(assembler, name, origin);
      return;
    }
    const auto known = shared_.find(origin);
    if (known != shared_.end() && known->second != kNoNode) {
      assembler.add_link(name, known->second);
      return;
    }
    shared_[origin] = add_new(assembler, name, origin);
  }

  NodeNo add_new(TreeAssembler& assembler, std::string_view name, const Origin& origin) {
    NewNode node = new_node(origin);
    if (!is_made(origin)) {
      XattrSetNo& number = set_numbers_[origin.layer][node_of(origin).xattrs];
      if (number == kNoSet) number = assembler.intern(xattrs_of(origin));
      node.xattrs = number;
    }
    origins_.push_back(origin);
    return assembler.add(name, node);
  }

  void set_data_order(TreeAssembler& assembler) const {
    const bool any = std::ranges::any_of(placed_, [](const PlacedLayer& placed) {
      return !placed.layer.tree->data_order().empty();
    });
    if (!any) return;
    std::vector<Sequence> sequences;
    for (const PlacedLayer& placed : placed_) {
      sequences.push_back(data_sequence(*placed.layer.tree));
    }
    std::vector<NodeNo> order;
    for (NodeNo no = 0; no < origins_.size(); ++no) {
      if (!is_made(origins_[no]) && node_of(origins_[no]).is_regular()) order.push_back(no);
    }
    std::ranges::sort(order, {}, [&](NodeNo no) {
      const Origin& origin = origins_[no];
      return std::pair(origin.layer, sequences[origin.layer].position_of(origin.node));
    });
    assembler.set_data_order(std::move(order));
  }

  Layer result(TreeAssembler assembler) {
    std::vector<std::shared_ptr<ContentStore>> stores;
    for (PlacedLayer& placed : placed_) stores.push_back(placed.layer.contents);
    Layer merged;
    merged.tree = std::make_shared<const SourceTree>(std::move(assembler).finish());
    merged.contents = std::make_shared<MergedContents>(std::move(stores), std::move(origins_));
    merged.implied_directories = std::move(implied_);
    return merged;
  }

  static constexpr NodeNo kNoNode = std::numeric_limits<NodeNo>::max();
  static constexpr XattrSetNo kNoSet = std::numeric_limits<XattrSetNo>::max();

  std::deque<PlacedLayer> placed_;                   // a deque: ways_ point into their strings
  std::vector<std::vector<std::string_view>> ways_;  // by layer: the components of `at`
  std::vector<Mark> marks_ = std::vector<Mark>(1);   // 0 is the root's
  std::uint64_t node_limit_ = 1;                     // the result has no more nodes
  std::vector<Link> links_;
  std::map<Origin, Patch> patches_;
  // The nodes that have several names, or may have; the number in the result once it is known.
  std::unordered_map<Origin, NodeNo, OriginHash> shared_;
  std::vector<std::vector<XattrSetNo>> set_numbers_;  // by layer and set: the result's
  std::vector<Origin> origins_;                       // by node of the result
  std::vector<NodeNo> implied_;
};

bool is_valid_place(std::string_view at) {
  const auto names = components_of(at);
  return names &&
         std::ranges::all_of(*names, [](std::string_view name) { return name.size() <= 255; });
}

LayerStack::LayerStack() : merger_(std::make_unique<LayerMerger>()) {}
LayerStack::~LayerStack() = default;
Result<void> LayerStack::add(PlacedLayer layer) { return merger_->add(std::move(layer)); }
Standing LayerStack::look(std::string_view path) const { return merger_->look(path); }
Result<Layer> LayerStack::merge() && { return merger_->merge(); }

Result<Layer> merge_layers(std::vector<PlacedLayer> layers) {
  LayerStack stack;
  for (PlacedLayer& layer : layers) {
    if (Result<void> good = stack.add(std::move(layer)); !good) {
      return propagate(good);
    }
  }
  return std::move(stack).merge();
}

}  // namespace mkvirtfs
