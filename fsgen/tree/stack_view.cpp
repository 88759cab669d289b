// SPDX-License-Identifier: BSD-3-Clause
// A path is looked for from the root down. At each step the directory of the whole is a list of
// shares, one for each layer that has it, the last layer's first. The rows of the next name are
// what these layers have there; from the last layer down they are directories, which are shares
// again, until one is something else: that is what stands there if it is the first, and hides all
// before it if it is not. Whiteouts and opaque directories cut the list off at a layer.
#include "fsgen/tree/stack_view.h"

#include <fmt/format.h>

#include <algorithm>

#include "fsgen/tree/tree_path.h"

namespace mkvirtfs {
namespace {

void sort(std::vector<StackRow>& rows) {
  std::ranges::sort(rows, [](const StackRow& a, const StackRow& b) {
    const int order = a.name.compare(b.name);
    return order != 0 ? order < 0 : a.child.layer > b.child.layer;
  });
}

}  // namespace

Result<void> StackView::add(PlacedLayer placed) {
  const LayerNo no = end();
  placed_.push_back(std::move(placed));
  Result<void> good = place(placed_.back());
  if (good) good = mark(no);
  if (good) good = check_way(no);
  if (good) good = find_targets(no);
  return good;
}

Result<void> StackView::place(const PlacedLayer& placed) {
  auto way = plain_components_of(placed.at);
  if (!way || !is_valid_place(placed.at)) {
    return fail(Errc::usage, fmt::format("{} is no place in a tree: it must be a path without "
                                         ". and .., of names of up to 255 bytes",
                                         placed.at));
  }
  node_limit_ += placed.layer.tree->node_count() + way->size();
  ways_.push_back(std::move(*way));
  if (node_limit_ > std::numeric_limits<std::uint32_t>::max()) {
    return fail(Errc::does_not_fit, "the sources have more than 4294967295 entries together");
  }
  return {};
}

std::unexpected<Error> StackView::wrong(LayerNo layer, const std::string& what) const {
  const std::string& name = placed_[layer].name;
  return fail(Errc::unreadable, name.empty() ? what : fmt::format("{}: {}", name, what));
}

std::string StackView::placed_path(LayerNo layer, std::string_view path) const {
  return join_path(join_path(way(layer)), path);
}

/// Notes whiteouts, opaque directories and outward links of the layer.
Result<void> StackView::mark(LayerNo no) {
  const Layer& layer = this->layer(no);
  for (const std::string& path : layer.whiteouts) {
    const Result<MarkNo> at = marks_.at(placed_path(no, path));
    if (!at) return propagate(at);
    if (path.empty()) return wrong(no, "a whiteout of the root: there is no such thing");
    marks_.add_whiteout(*at, no);
  }
  for (const std::string& path : layer.opaque_directories) {
    const Result<MarkNo> at = marks_.at(placed_path(no, path));
    if (!at) return propagate(at);
    marks_.add_opaque_directory(*at, no);
  }
  for (const OutwardLink& link : layer.outward_links) {
    if (Result<void> good = mark_link(no, link); !good) return good;
  }
  return {};
}

Result<void> StackView::mark_link(LayerNo no, const OutwardLink& link) {
  const SourceTree& tree = this->tree(no);
  std::string path = placed_path(no, link.path);
  const Result<MarkNo> at = marks_.at(path);
  if (!at) return propagate(at);
  const Node* directory = tree.find_path(parent_path(link.path));
  if (link.path.empty() || directory == nullptr || !directory->is_directory() ||
      tree.find_path(link.path) != nullptr) {
    return wrong(no,
                 fmt::format("{}: a hard link to {} cannot stand there", link.path, link.target));
  }
  marks_.add_link(*at, OutwardLinkNo{static_cast<std::uint32_t>(links_.size())});
  links_.push_back({no, std::move(path), placed_path(no, link.target), {}});
  return {};
}

/// Nothing but directories on the way to where a layer is placed, and there itself.
Result<void> StackView::check_way(LayerNo no) const {
  std::string path;
  for (const std::string_view name : way(no)) {
    path = join_path(path, name);
    const Result<StackEntry> found = find(path, no);
    if (!found) return propagate(found);
    if (!found->exists()) return {};
    if (found->leaf) {
      const char* what = node_of(*found->leaf).is_symlink() ? "symlink" : "file";
      return fail_option(
          {"at", fmt::format("/{}", placed_path(no, ""))},
          fmt::format("/{} is a {} in the sources before, and no directory", path, what));
    }
  }
  return {};
}

Result<void> StackView::find_targets(LayerNo no) {
  for (Link& link : links_) {
    if (link.layer != no) continue;
    const Result<StackEntry> found = find(link.target, no);
    if (!found) return propagate(found);
    if (!found->leaf) {
      return wrong(no, fmt::format("{} is a hard link to {}, which is {}", link.path, link.target,
                                   found->exists() ? "a directory" : "nowhere"));
    }
    link.origin = *found->leaf;
  }
  return {};
}

std::vector<Origin> StackView::linked() const {
  std::vector<Origin> origins;
  for (const Link& link : links_) origins.push_back(link.origin);
  return origins;
}

bool StackView::is_implied(const DirectoryShare& share) const noexcept {
  const Origin origin = origin_of(share);
  return is_made(origin) ||
         std::ranges::binary_search(layer(origin.layer).implied_directories, origin.node);
}

Origin StackView::attributes_of(std::span<const DirectoryShare> shares) const noexcept {
  for (const DirectoryShare& share : shares) {
    if (!is_implied(share)) return origin_of(share);
  }
  return origin_of(shares.back());
}

LayerChild StackView::child_of(LayerNo layer, NodeNo no) const noexcept {
  const SourceTree& tree = this->tree(layer);
  if (!tree.node(no).is_directory()) return {layer, no};
  const auto before = static_cast<std::uint32_t>(way(layer).size());
  return {layer, PlacedDirectoryNo{tree.directory_no(no).value() + before}};
}

void StackView::see(std::span<const StackRow> rows, LayerNo lowest, StackEntry& found) const {
  found.leaf.reset();
  found.shares.clear();
  for (const StackRow& row : rows) {
    const LayerChild& child = row.child;
    if (child.layer < lowest) return;
    if (const auto* directory = std::get_if<PlacedDirectoryNo>(&child.what)) {
      found.shares.push_back({child.layer, *directory});
      continue;
    }
    // It is what was before the directories above it came.
    if (!found.shares.empty()) return;
    if (const auto* link = std::get_if<OutwardLinkNo>(&child.what)) {
      found.leaf = links_[*link].origin;
    } else {
      found.leaf = Origin{child.layer, std::get<NodeNo>(child.what)};
    }
    return;
  }
}

std::size_t StackView::seen_shares(std::span<const DirectoryShare> shares, MarkNo mark,
                                   LayerNo limit) const noexcept {
  const LayerNo lowest = marks_.lowest_in(mark, limit);
  const auto end = std::ranges::find_if(
      shares, [&](const DirectoryShare& share) { return share.layer < lowest; });
  return static_cast<std::size_t>(end - shares.begin());
}

StackEntry StackView::root(LayerNo limit) const {
  StackEntry found;
  for (std::uint32_t no = limit; no-- > 0;) {
    found.shares.push_back({LayerNo{no}, PlacedDirectoryNo{0}});
  }
  return found;
}

/// What the layer of a share has under a name.
void StackView::look_up(std::string_view name, const DirectoryShare& share,
                        std::vector<StackRow>& rows) const {
  if (const std::string_view* on_way = way_from(share)) {
    if (*on_way == name) rows.push_back({name, {share.layer, next(share.directory)}});
    return;
  }
  const Entry* entry = tree(share.layer).find(own_directory(share), name);
  if (entry != nullptr) rows.push_back({name, child_of(share.layer, entry->node)});
}

Result<StackEntry> StackView::find(std::string_view path, LayerNo limit) const {
  const auto components = plain_components_of(path);
  if (!components) {
    return fail(Errc::unreadable, fmt::format("{}: . and .. have no place in a path", path));
  }
  StackEntry found = root(limit);
  MarkNo mark = kRootMark;
  std::vector<StackRow> rows;
  for (std::size_t at = 0; at < components->size(); ++at) {
    const std::string_view name = (*components)[at];
    found.shares.resize(seen_shares(found.shares, mark, limit));
    mark = marks_.below(mark, name);
    rows.clear();
    for (const DirectoryShare& share : found.shares) look_up(name, share, rows);
    if (mark != kNoMark) {
      add_links(mark, name, limit, found.shares, rows);
      sort(rows);
    }
    see(rows, marks_.lowest_at(mark, limit), found);
    const bool on_the_way = at + 1 < components->size();
    if (!found.exists() || (found.leaf && on_the_way)) return StackEntry{};
  }
  return found;
}

/// The outward links under a name, as far as their layers have a share in the directory.
void StackView::add_links(MarkNo mark, std::string_view name, LayerNo limit,
                          std::span<const DirectoryShare> shares,
                          std::vector<StackRow>& rows) const {
  for (const OutwardLinkNo no : marks_.links(mark)) {
    const LayerNo layer = links_[no].layer;
    const bool is_seen =
        layer < limit && std::ranges::find(shares, layer, &DirectoryShare::layer) != shares.end();
    if (is_seen) rows.push_back({name, {layer, no}});
  }
}

void StackView::list(std::span<const DirectoryShare> shares, MarkNo mark,
                     std::vector<StackRow>& rows) const {
  rows.clear();
  for (const DirectoryShare& share : shares) {
    if (const std::string_view* on_way = way_from(share)) {
      rows.push_back({*on_way, {share.layer, next(share.directory)}});
      continue;
    }
    const SourceTree& tree = this->tree(share.layer);
    const Directory& directory = own_directory(share);
    for (const Entry entry : tree.entries(directory)) {
      rows.push_back({tree.name(directory, entry), child_of(share.layer, entry.node)});
    }
  }
  const std::size_t entries = rows.size();
  if (mark != kNoMark) {
    for (const auto& [name, below] : marks_.children(mark)) {
      add_links(below, name, end(), shares, rows);
    }
  }
  if (shares.size() > 1 || rows.size() != entries) sort(rows);
}

}  // namespace mkvirtfs
