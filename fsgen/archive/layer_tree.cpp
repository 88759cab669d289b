// SPDX-License-Identifier: BSD-3-Clause
// Two steps: what extraction would leave at each path (Extraction); then its paths are numbered as
// a SourceTree numbers them, directory by directory with names sorted (Numbering), and get the
// attributes that the options give them.
#include "fsgen/archive/layer_tree.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <tuple>
#include <utility>

#include "fsgen/archive/extraction.h"
#include "fsgen/tree/entry_rules.h"
#include "fsgen/tree/tree_path.h"
#include "support/arithmetic.h"

namespace mkvirtfs::archive {
namespace {

constexpr NodeNo kNoNode{std::numeric_limits<std::uint32_t>::max()};
constexpr std::uint16_t kDirectoryPermissions = 0755;
constexpr std::uint16_t kFilePermissions = 0644;
constexpr std::uint32_t kNoId = std::numeric_limits<std::uint32_t>::max();

/// What an extraction leaves, as a SourceTree numbers it.
class Numbering {
 public:
  Numbering(const MemberLog& members, std::string_view name, const LayerOptions& options,
            const EntryRules& rules, Extraction& extraction)
      : members_(members),
        name_(name),
        options_(options),
        rules_(rules),
        paths_(extraction.paths()),
        extraction_(extraction) {}

  Result<LayerTree> run();

 private:
  void collect_entries();
  /// The attributes of `member_` as the image shall have them.
  NewNode node_of_member() const;
  NewNode with_rules(EntryAttributes attributes) const;
  NewNode implied_directory() const;
  std::vector<Xattr> xattrs_of_member() const;
  /// The names of `member_`'s attributes that no file can have, until the next call.
  std::string_view lost_xattrs_of_member();
  Result<NewNode> owned(NewNode node) const;
  Result<std::pair<NewNode, std::vector<Xattr>>> root();
  std::span<const PathNo> sorted_entries(PathNo directory);
  Result<void> fill(TreeAssembler& assembler, PathNo directory, std::vector<PathNo>& directories);
  Result<void> add_directory(TreeAssembler& assembler, const ExtractedPath& path);
  Result<void> add_file(TreeAssembler& assembler, const ExtractedPath& path);
  bool takes(std::string_view path) const;
  Result<void> find_subtree();
  /// A path of the archive below the layer's root; nullopt for one that is not.
  std::optional<std::string> below_root(const std::string& path) const;
  Result<void> add_outward_links();
  Result<void> add_overrides();
  Result<void> check_sizes() const;
  /// The files by where they lie.
  std::vector<NodeNo> data_order() const;

  const MemberLog& members_;
  const std::string name_;
  const LayerOptions& options_;
  const EntryRules& rules_;
  const ExtractedPaths& paths_;
  Extraction& extraction_;

  PathNo root_ = kRootPath;  // of the layer
  Member member_;
  // By PathNo: the paths directly below d are entries_[first_[d]] .. entries_[first_[d + 1] - 1].
  std::vector<std::uint32_t> first_;
  std::vector<PathNo> entries_;
  std::vector<NodeNo> node_of_file_;  // by ExtractedFileNo
  std::string lost_xattrs_;
  LayerTree made_;
};

void Numbering::collect_entries() {
  first_.resize(std::size_t{paths_.size()} + 1);
  std::uint32_t sum = 0;
  for (std::uint32_t no = 0; no < paths_.size(); ++no) {
    first_[no] = sum;
    sum += paths_[PathNo{no}].entry_count();
  }
  first_[paths_.size()] = sum;
  entries_.resize(sum);
  std::vector<std::uint32_t> next(first_.begin(), first_.end() - 1);
  for (std::uint32_t no = 1; no < paths_.size(); ++no) {
    const PathNo parent = paths_[PathNo{no}].parent();
    entries_[next[parent]++] = PathNo{no};
  }
}

NewNode Numbering::with_rules(EntryAttributes attributes) const {
  rules_.apply(attributes);
  NewNode node;
  node.mode = attributes.mode;
  node.uid = attributes.uid;
  node.gid = attributes.gid;
  node.mtime = attributes.mtime;
  return node;
}

NewNode Numbering::node_of_member() const {
  std::uint16_t mode = member_.mode;
  if (!member_.has_permissions) {
    mode = static_cast<std::uint16_t>((mode & S_IFMT) |
                                      (S_ISDIR(mode) ? kDirectoryPermissions : kFilePermissions));
  }
  // Symlinks have no permissions; Linux shows all of them.
  if (S_ISLNK(mode)) mode = S_IFLNK | 0777;
  NewNode node = with_rules({mode, member_.uid, member_.gid, member_.mtime});
  if (S_ISREG(node.mode)) {
    node.size_bytes = member_.size_bytes;
    node.sparse = member_.is_sparse;
    node.data_runs = member_.stored_runs;
  }
  if (S_ISLNK(node.mode)) node.symlink_target = member_.link_target;
  node.device = member_.device;
  return node;
}

NewNode Numbering::implied_directory() const {
  return with_rules({S_IFDIR | kDirectoryPermissions, 0, 0, {}});
}

std::vector<Xattr> Numbering::xattrs_of_member() const {
  std::vector<Xattr> set;
  if (!options_.entries.xattrs) return set;
  for (const auto& [name, value] : member_.xattrs) {
    if (!XattrRules::keeps_name(name)) continue;
    Xattr xattr{std::string(name), std::string(value)};
    if (rules_.xattrs().normalise(xattr.name, xattr.value)) set.push_back(std::move(xattr));
  }
  return set;
}

std::string_view Numbering::lost_xattrs_of_member() {
  lost_xattrs_.clear();
  if (!options_.entries.lists_lost_xattrs) return {};
  for (const auto& [name, value] : member_.xattrs) {
    if (XattrRules::is_linux_name(name)) continue;
    if (!lost_xattrs_.empty()) lost_xattrs_ += ", ";
    lost_xattrs_ += name;
  }
  return lost_xattrs_;
}

/// 2^32 - 1 means "no change" to the kernel, so it is no id; but the rules for owners and for what
/// is left out come first.
Result<NewNode> Numbering::owned(NewNode node) const {
  if (node.uid != kNoId && node.gid != kNoId) return node;
  return fail(Errc::unreadable,
              fmt::format("{}: member {} belongs to {}:{}, which no file can", name_, member_.path,
                          node.uid, node.gid),
              {{"owner"}, {"map-uid"}, {"map-gid"}, {"exclude"}});
}

Result<void> Numbering::add_directory(TreeAssembler& assembler, const ExtractedPath& path) {
  NewNode node;
  if (path.kind() == PathKind::implied) {
    node = implied_directory();
    made_.layer.implied_directories.push_back(NodeNo{narrow<std::uint32_t>(made_.places.size())});
  } else {
    members_.read(path.member(), member_);
    Result<NewNode> made = owned(node_of_member());
    if (!made) return propagate(made);
    node = *made;
    node.xattrs = assembler.intern(xattrs_of_member());
    node.lost_xattrs = lost_xattrs_of_member();
  }
  assembler.add(path.name(), node);
  made_.places.add_nowhere();
  return {};
}

Result<void> Numbering::add_file(TreeAssembler& assembler, const ExtractedPath& path) {
  NodeNo& known = node_of_file_[path.file()];
  if (known != kNoNode) {
    assembler.add_link(path.name(), known);
    return {};
  }
  members_.read(extraction_.file(path.file()), member_);
  Result<NewNode> node = owned(node_of_member());
  if (!node) return propagate(node);
  node->xattrs = assembler.intern(xattrs_of_member());
  node->lost_xattrs = lost_xattrs_of_member();
  known = assembler.add(path.name(), *node);
  made_.places.add(member_);
  return {};
}

/// Whether what `member_` changes is in the image, and is not left out with all its like.
bool Numbering::takes(std::string_view path) const {
  if (rules_.takes_all() || path.empty()) return true;
  for (std::size_t from = 0;;) {
    const std::size_t slash = path.find('/', from);
    const std::string_view directory = path.substr(0, from);
    const std::string_view name = path.substr(from, slash - from);
    if (slash == std::string_view::npos) {
      return rules_.takes(directory, name,
                          S_ISDIR(member_.mode) ? EntryKind::directory : EntryKind::other);
    }
    if (!rules_.takes(directory, name, EntryKind::directory)) return false;
    from = slash + 1;
  }
}

Result<void> Numbering::add_overrides() {
  MemberPath path;
  for (const MemberLog::Position at : extraction_.overrides()) {
    members_.read(at, member_);
    const bool good = path.parse(member_.path, options_.unsafe_names).has_value();
    assert(good);
    static_cast<void>(good);
    EntryAttributes attributes{member_.mode, member_.uid, member_.gid, member_.mtime};
    rules_.apply(attributes);
    AttributeOverride change;
    Result<std::string> settled = extraction_.settled(path);
    if (!settled) {
      return fail(Errc::unreadable,
                  fmt::format("{}: member {} {}", name_, member_.path, settled.error().what),
                  settled.error().hints);
    }
    std::optional<std::string> below = below_root(*settled);
    if (!below) continue;
    change.path = std::move(*below);
    if (!takes(change.path)) continue;
    change.type = static_cast<std::uint16_t>(member_.mode & S_IFMT);
    change.is_optional = member_.is_optional;
    if (member_.has_permissions) {
      change.permissions = static_cast<std::uint16_t>(attributes.mode & 07777);
    }
    if (member_.has_uid) change.uid = attributes.uid;
    if (member_.has_gid) change.gid = attributes.gid;
    if (member_.has_mtime) change.mtime = attributes.mtime;
    made_.layer.overrides.push_back(std::move(change));
  }
  return {};
}

/// That the tree's 32-bit indexes can hold all of it.
Result<void> Numbering::check_sizes() const {
  constexpr std::uint64_t kMost = std::numeric_limits<std::uint32_t>::max();
  // The log has less than 4 GiB, so all names, targets and runs in it have, once each. Names of a
  // directory stand behind a length byte, targets behind four.
  if (std::uint64_t{members_.end()} + std::uint64_t{paths_.size()} * 5 > kMost) {
    return fail(Errc::does_not_fit, fmt::format("{}: its names have more than 4 GiB", name_));
  }
  return {};
}

std::vector<NodeNo> Numbering::data_order() const {
  struct Lies {
    bool in_archive;
    std::uint64_t offset;
    NodeNo no;
  };
  std::vector<Lies> files;
  for (NodeNo no; no < made_.places.size(); ++no) {
    const MemberPlace place = made_.places.place(no);
    if (place == MemberPlace::nowhere || place == MemberPlace::host ||
        place == MemberPlace::unreadable) {
      continue;
    }
    files.push_back({place != MemberPlace::spooled, made_.places.lies_at(no), no});
  }
  std::ranges::sort(files, {}, [](const Lies& lies) {
    return std::tuple(!lies.in_archive, lies.offset, lies.no);
  });
  std::vector<NodeNo> order;
  order.reserve(files.size());
  for (const Lies& lies : files) order.push_back(lies.no);
  return order;
}

Result<void> Numbering::find_subtree() {
  const auto names = plain_components_of(options_.subtree);
  if (!names) {
    return fail(Errc::usage,
                fmt::format("{}//{}: . and .. have no place in a path", name_, options_.subtree));
  }
  for (const std::string_view name : *names) {
    const PathNo found = paths_.find(root_, name);
    const std::string path = join_path(paths_.text(root_), name);
    if (found == kNoPath) {
      return fail(Errc::unreadable, fmt::format("{} holds no directory {}", name_, path));
    }
    if (!paths_[found].is_directory()) {
      std::string what = "no directory";
      if (paths_[found].kind() == PathKind::file) {
        members_.read(extraction_.file(paths_[found].file()), member_);
        if (S_ISLNK(member_.mode)) what = fmt::format("a symlink to {}", member_.link_target);
      }
      return fail(Errc::unreadable, fmt::format("{}: {} is {}", name_, path, what));
    }
    root_ = found;
  }
  return {};
}

std::optional<std::string> Numbering::below_root(const std::string& path) const {
  if (root_ == kRootPath) return path;
  const std::string root = paths_.text(root_);
  if (path == root) return "";
  if (!path.starts_with(root + "/")) return std::nullopt;
  return path.substr(root.size() + 1);
}

Result<void> Numbering::add_outward_links() {
  for (const OutwardLink& link : extraction_.outward_links()) {
    std::optional<std::string> path = below_root(link.path);
    if (!path) continue;
    std::optional<std::string> target = below_root(link.target);
    if (!target) {
      return fail(Errc::unreadable,
                  fmt::format("{}: member {} is a hard link to {}, which the archive does not hold",
                              name_, link.path, link.target));
    }
    made_.layer.outward_links.push_back({std::move(*path), std::move(*target)});
  }
  return {};
}

Result<std::pair<NewNode, std::vector<Xattr>>> Numbering::root() {
  const std::optional<MemberLog::Position> named =
      root_ == kRootPath ? extraction_.root()
      : paths_[root_].kind() == PathKind::directory
          ? std::optional<MemberLog::Position>(paths_[root_].member())
          : std::nullopt;
  if (!named) {
    made_.layer.implied_directories.push_back(kRootNode);
    return std::pair(implied_directory(), std::vector<Xattr>());
  }
  members_.read(*named, member_);
  Result<NewNode> root = owned(node_of_member());
  if (!root) return propagate(root);
  root->lost_xattrs = lost_xattrs_of_member();
  return std::pair(*root, xattrs_of_member());
}

/// The paths directly below a directory, sorted by name; those that lie elsewhere are among them.
std::span<const PathNo> Numbering::sorted_entries(PathNo directory) {
  const auto entries =
      std::span(entries_).subspan(first_[directory], paths_[directory].entry_count());
  std::ranges::sort(entries, {}, [&](PathNo no) { return paths_[no].name(); });
  return entries;
}

/// Adds what stands in a directory; `directories` is where the directories among it wait.
Result<void> Numbering::fill(TreeAssembler& assembler, PathNo directory,
                             std::vector<PathNo>& directories) {
  std::string path_of_directory;
  if (!rules_.takes_all()) {
    path_of_directory = below_root(paths_.text(directory)).value_or("");
    if (!path_of_directory.empty()) path_of_directory += '/';
  }
  for (const PathNo no : sorted_entries(directory)) {
    const ExtractedPath& path = paths_[no];
    if (path.kind() == PathKind::outward) continue;
    const EntryKind kind = path.is_directory() ? EntryKind::directory : EntryKind::other;
    if (!rules_.takes_all() && !rules_.takes(path_of_directory, path.name(), kind)) {
      ++made_.excluded_count;
      continue;
    }
    Result<void> added =
        path.is_directory() ? add_directory(assembler, path) : add_file(assembler, path);
    if (!added) return added;
    if (path.is_directory()) directories.push_back(no);
  }
  return {};
}

Result<LayerTree> Numbering::run() {
  if (Result<void> good = check_sizes(); !good) return propagate(good);
  if (Result<void> good = find_subtree(); !good) return propagate(good);
  collect_entries();
  node_of_file_.assign(extraction_.files().size(), kNoNode);

  Result<std::pair<NewNode, std::vector<Xattr>>> root = this->root();
  if (!root) return propagate(root);
  TreeAssembler assembler(root->first, std::move(root->second));
  assembler.reserve(paths_.size(), paths_.size(), 1, 0);
  made_.places.reserve(paths_.size());
  made_.places.add_nowhere();

  std::vector<PathNo> directories = {root_};
  for (DirectoryNo d; d < assembler.directory_count(); ++d) {
    assembler.open_directory(d);
    if (Result<void> good = fill(assembler, directories[d], directories); !good) {
      return propagate(good);
    }
  }
  if (options_.data_order == DataOrder::archive) assembler.set_data_order(data_order());
  if (Result<void> good = add_overrides(); !good) return propagate(good);
  if (Result<void> good = add_outward_links(); !good) return propagate(good);
  made_.layer.tree = std::make_shared<const SourceTree>(std::move(assembler).finish());
  return std::move(made_);
}

/// The layers below, as an archive sees them of which only a subtree is laid over them.
class BelowSubtree final : public LayersBelow {
 public:
  BelowSubtree(const LayersBelow& below, std::string at, std::string subtree)
      : below_(below), at_(std::move(at)), subtree_(std::move(subtree)) {}

  Standing look(std::string_view path) const override {
    if (path == subtree_) return below_.look(at_);
    if (!path.starts_with(subtree_ + "/")) return {};
    return below_.look(join_path(at_, path.substr(subtree_.size() + 1)));
  }

 private:
  const LayersBelow& below_;
  const std::string at_;
  const std::string subtree_;
};

}  // namespace

Result<LayerTree> make_layer_tree(const MemberLog& members, std::string_view name,
                                  const LayerOptions& given, LogSink& log) {
  const Result<EntryRules> rules = EntryRules::make(given.entries);
  if (!rules) return propagate(rules);
  LayerOptions options = given;
  options.at = join_path(components_of(given.at));
  options.subtree = join_path(components_of(given.subtree));
  std::optional<BelowSubtree> below_subtree;
  if (!options.subtree.empty() && options.below != nullptr) {
    options.below = &below_subtree.emplace(*options.below, options.at, options.subtree);
    options.at.clear();
    // Where they lead is not a path of the archive.
    if (options.layer_symlinks == LayerSymlinks::follow) {
      options.layer_symlinks = LayerSymlinks::error;
    }
  }
  Extraction extraction(members, name, options);
  if (Result<void> good = extraction.run(log); !good) {
    // Of a subtree they are not followed.
    if (below_subtree) {
      std::erase_if(good.error().hints, [](const Setting& hint) { return hint.value == "follow"; });
    }
    return propagate(good);
  }
  return Numbering(members, name, options, *rules, extraction).run();
}

}  // namespace mkvirtfs::archive
